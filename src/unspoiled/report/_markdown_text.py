"""Markdown of hostile text: what a stranger wrote shows as it is, and means nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from unspoiled.report._hostile_text import visible

_WWW = re.compile(r"(www)\.", re.IGNORECASE)
"""What GitHub makes a link of, without a scheme or a colon."""


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line: every character with a meaning is escaped."""
    line = " ".join(visible(text).split())
    shown = []
    for char, after in zip(line, f"{line[1:]} "):
        if char in "<>&@$" or (char == ":" and after != " "):  # a colon before a letter may begin an address or emoji
            shown.append(f"&#{ord(char)};")
        else:
            shown.append(f"\\{char}" if char in "\\`*_{}[]()#+!|~" else char)
    return _WWW.sub(r"\1&#46;", "".join(shown))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return a table of cells that are Markdown already; the first `left` columns are not aligned to the right."""
    lines = [header, ["---"] * left + ["---:"] * (len(header) - left), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code_block(text: str, language: str = "") -> str:
    """Return a code block whose fence is longer than any run of backticks in the text."""
    shown = visible(text).rstrip("\n")
    fence = "```"
    while fence in shown:
        fence += "`"
    return f"{fence}{language}\n{shown}\n{fence}"
