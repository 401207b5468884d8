"""What makes a generated prompt no question at all, whatever it asks."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from unspoiled.data._words import words_of
from unspoiled.errors import ConfigError
from unspoiled.guards import find_defect

Flaw = Literal["too_short", "too_long", "control_characters", "markup", "placeholder", "loop"]


@dataclass(frozen=True)
class Lengths:
    """How long a prompt may be.

    Args:
        least_words: Fewest words, at least 1; in Chinese and other scripts without spaces, fewest characters.
        most_words: Most words.
        most_characters: Most characters, for texts with hardly any words.
    """

    least_words: int = 2
    most_words: int = 400
    most_characters: int = 4000

    def __post_init__(self) -> None:
        if not 1 <= self.least_words <= self.most_words or self.most_characters < 1:
            raise ConfigError(
                f"lengths of prompts from {self.least_words!r} to {self.most_words!r} words and "
                f"{self.most_characters!r} characters: give 1 <= least_words <= most_words and most_characters >= 1."
            )


_REPLACEMENT = "\ufffd"  # where bytes could not be read
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # make a text look like another
_UNWANTED_CATEGORIES = {"Cc", "Co", "Cs"}  # control, private use, half a character

# What is left of the format that was asked for: an open code fence, the JSON around the question, a chat's tokens.
_MARKUP = re.compile(
    r"""\A\s*```(?:json)?\s*\Z | \A\s*```json | ["']question["']\s*: | <\|[^|<>\n]{1,40}\|> | \[/?INST\] | <</?SYS>>""",
    re.IGNORECASE | re.VERBOSE,
)
_FENCE = "```"

# A gap that the writer left unfilled, such as <question>, [insert topic here] or {category}, or nothing but that.
_GAP = (
    r"(?:your\ |the\ |a\ |an\ |some\ |new\ )?(?:unsafe\ |harmless\ )?(?:question|prompt|topic|category|domain|subject)"
)
_PLACEHOLDER = re.compile(
    rf"""[<\[{{]\s*(?:insert\b[^<>\[\]{{}}\n]{{0,60}}|{_GAP}(?:\ text)?(?:\ goes)?(?:\ here)?[\ _#]?\d*)\s*[>\]}}]
    | \A\W*(?:{_GAP}|string|text|n/?a|none|null|todo|lorem\ ipsum.*)(?:\ (?:goes\ )?here)?[\ _#]?\d*\W*\Z""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_ELLIPSIS = re.compile(r"\.\.\.|…")
_WORDS_BEFORE_ELLIPSIS = 3  # "How do I ...?" is an empty frame; "I feel so tired ... what can I do?" is none

_STUTTER = re.compile(r"([^\W\d_]{1,20}?[^\w\n]{0,2})\1{7,}", re.IGNORECASE)  # digits may repeat: 1000000000


def find_flaw(prompt: str, lengths: Lengths = Lengths()) -> Flaw | None:
    """Return what makes `prompt` unfit as a question, or None.

    - `control_characters`: it holds some, or unreadable bytes, or characters that turn the direction of writing.
    - `markup`: left over from the format that was asked for: an open code fence, JSON keys, a chat's control tokens.
    - `placeholder`: `...`, `<question>`, `[insert topic]`, `How do I ...?`, `Question 1`.
    - `too_short`, `too_long`: by `lengths`.
    - `loop`: a letter or syllable eight times over, or runs of words that come again and again.
    """
    if any(_is_unwanted(character) for character in prompt):
        return "control_characters"
    if len(prompt) > lengths.most_characters:  # first, so that no pattern runs over a very long text
        return "too_long"
    if _MARKUP.search(prompt) or prompt.count(_FENCE) % 2:
        return "markup"
    words = words_of(prompt)
    if _PLACEHOLDER.search(prompt) or (_ELLIPSIS.search(prompt) and len(words) <= _WORDS_BEFORE_ELLIPSIS):
        return "placeholder"
    if len(words) < lengths.least_words:
        return "too_short"
    if len(words) > lengths.most_words:
        return "too_long"
    return "loop" if _STUTTER.search(prompt) or find_defect("", prompt) == "loop" else None


def _is_unwanted(character: str) -> bool:
    if character in "\n\t\r":
        return False
    return (
        character == _REPLACEMENT or character in _DIRECTIONS or unicodedata.category(character) in _UNWANTED_CATEGORIES
    )
