"""Make text that a model or a stranger wrote fit to be looked at: nothing in it hides, nothing in it acts.

Escaping of markup is the template's work (jinja2 autoescape); here are the characters that survive escaping.
"""

import unicodedata
from html import escape

_KEPT = "\n\t\u200c\u200d"
"""Line breaks, and the joiners that Persian, Indic scripts and emoji are spelt with."""

_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Drawn as nothing, though Unicode calls them letters or symbols."""


def visible(text: str) -> str:
    """Replace what can't be seen or would move other text by its code point, as in ⟨U+202E⟩.

    These are control and format characters (terminal escapes, bidirectional overrides, zero-width spaces, tag
    characters), lone surrogates, private and unassigned code points, and the selectors used to smuggle bytes.
    Line breaks, tabs and the joiners stay.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text  # most texts, at once
    return "".join(char if _is_plain(char) else f"⟨U+{ord(char):04X}⟩" for char in text.replace("\r\n", "\n"))


def shortened(name: str, length: int) -> str:
    """Return the visible form of a name on one line, cut to a number of characters with an ellipsis."""
    shown = " ".join(visible(name).split())
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def clip(text: str, budget: int) -> tuple[str, int]:
    """Return the visible form of a text's beginning, and how many characters were left out.

    Args:
        text: any text, of any length.
        budget: how many bytes the escaped UTF-8 form of the beginning may take, so that a page of hostile
            text stays within its size.
    """
    whole = visible(text) if len(text) <= budget else ""
    if whole and len(escape(whole).encode()) <= budget:
        return whole, 0
    spent = 0
    for index, char in enumerate(text):
        spent += len(escape(visible(char)).encode())
        if spent > budget:
            return visible(text[:index]), len(text) - index
    return visible(text), 0


def _is_plain(char: str) -> bool:
    if char in _KEPT:
        return True
    if char in _BLANK_LETTERS or 0xE0100 <= ord(char) <= 0xE01EF:
        return False
    return unicodedata.category(char) not in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")
