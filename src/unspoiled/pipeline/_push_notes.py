"""What the owner of an upload should know before anybody reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unspoiled.checkpoints import RECIPE_NAME
from unspoiled.config import load_yaml
from unspoiled.errors import ConfigError

_START = r"(?:(?<![\w/:.<~\\])|(?<=\\[nrt]))"
"""Where a path can begin; in JSON a line break before it is written as a letter."""
_IN_RECIPE = re.compile(r"(?<![\w/:])(?:/|[A-Za-z]:\\)[^\s'\"+,\]}]+")
_ON_UNIX = re.compile(_START + r"/[\w.@~-]+(?:/[\w.@~-]+)+")
_ON_WINDOWS = re.compile(_START + r"[A-Z]:\\{1,2}\w[\w.@~ -]*(?:\\{1,2}\w[\w.@~-]*)+")
_HOMES = frozenset({"home", "Users", "root"})
_EVERYWHERE = frozenset({"bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr", "var"})
"""Directories that every machine has: a path in them says nothing of this one."""


def notes(files: Mapping[str, Path]) -> Iterator[str]:
    """Yield what a stranger would stumble over, or learn that he shouldn't, in files by their names on the hub."""
    if "README.md" not in files:
        yield "there is no model card"
    else:
        yield from _card_notes(files["README.md"].read_text(encoding="utf-8"))
    known = set(_IN_RECIPE.findall(_text(files[RECIPE_NAME]))) if RECIPE_NAME in files else set()
    for name, path in files.items():
        if found := _local_paths(_text(path), known):
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            yield f"{name} names paths of this machine: {', '.join(found[:3])}{more}"
    if "report.html" in files:
        yield "report.html shows answers of models that comply with unsafe prompts"


def _text(path: Path) -> str:
    """Return the text of a file; nothing of one that holds none."""
    if path.suffix == ".safetensors":
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def _local_paths(text: str, known: set[str]) -> list[str]:
    """Return the absolute paths in a text: those of the recipe, below a home, on a drive, or to what exists here.

    Models write paths too, and tags and tokens look like them, so that not everything with a slash is one.
    """
    found = {path for path in known if re.search(_START + re.escape(path), text)}
    found |= {path for path in set(_ON_UNIX.findall(text)) if _is_of_a_machine(path)}
    found |= set(_ON_WINDOWS.findall(text))
    return sorted(found)


def _is_of_a_machine(path: str) -> bool:
    first, second = path.split("/")[1:3]
    return first in _HOMES or (first not in _EVERYWHERE and Path("/", first, second).exists())


def _card_notes(card: str) -> Iterator[str]:
    head = re.match(r"---\n(.*?\n)---\n", card, flags=re.DOTALL)
    found: Any = {}
    if head is not None:
        try:
            found = load_yaml(head[1], source="README.md").value
        except ConfigError as error:
            yield f"the card's front matter can't be read: {error}"
    stated = found if isinstance(found, dict) else {}
    if "license" not in stated:
        yield "the card states no license: the inputs' cards don't all state one"
    if "base_model" not in stated:
        yield "the card names no base_model: no input is a model of the hub"
    if "model-index" not in stated:
        yield "the card has no results for the hub"
