"""Markdown in which nothing but what we write has a meaning."""

from __future__ import annotations

from collections.abc import Sequence

_MEANT_BY_HTML_OR_HUB = "<>&@:$|"  # tags, entities, mentions, emoji and links, formulas, table cells
_MEANT_BY_MARKDOWN = "\\`*_{}[]()#+!~"


def plain(text: str) -> str:
    """Return a name so that Markdown shows it as it is, on one line; what can't be seen is shown by its code point."""
    return "".join(_shown(character) for character in " ".join(text.split()))


def code(text: str) -> str:
    """Return a hash or a short name in the type of code, without what could end it."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return f"`{shown.replace('`', '').replace('|', '')}`"


def fenced(text: str, language: str) -> str:
    """Return a block of code whose fence is longer than any run of backticks in it."""
    shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text).strip("\n")
    fence = "```"
    while fence in shown:
        fence += "`"
    return f"{fence}{language}\n{shown}\n{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; columns that begin with a number are flush right, the others flush left. Cells are Markdown."""
    sides = ["---:" if rows and rows[0][i][:1].isdigit() else "---" for i in range(len(header))]
    lines = [header, sides, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(character: str) -> str:
    if not character.isprintable():
        return f"⟨U+{ord(character):04X}⟩"
    if character in _MEANT_BY_HTML_OR_HUB:
        return f"&#{ord(character)};"
    return f"\\{character}" if character in _MEANT_BY_MARKDOWN else character
