"""Sizes on the command line: `5GB` is 5·10⁹ bytes, `2GiB` is 2·2³⁰."""

import re

import click

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def size(text: str) -> int:
    """Return the number of bytes that `text` means, at least 1 and below 2⁶³.

    Raises:
        click.BadParameter: It isn't a number with one of the units.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    count = float(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else 0
    if not 1 <= count < 2**63:
        raise click.BadParameter(f"{text!r} is no size: write a number with a unit, such as 500MB, 2GiB or 5GB.")
    return int(count)
