"""Curation: near-duplicates and test prompts out of the generated sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from unspoiled.errors import DataError

NEAR_DUPLICATE = 90.0
_WORDS = re.compile(r"\w+")
_OPERATORS = re.compile(r"(?<=[\d\s)])[-+*/^=<>×÷−](?=[\d\s(])")  # between numbers, not inside words


class PromptIndex:
    """The prompts seen so far, and whether a new one repeats any of them.

    Two prompts are near-duplicates if their normalised texts are at least 90% alike (Indel similarity of
    rapidfuzz) and hold the same numbers and operators: `12 + 35`, `12 + 36` and `12 - 35` are three questions.
    """

    def __init__(self, prompts: Iterable[str] = ()) -> None:
        self._by_numbers: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for prompt in prompts:
            self.add(prompt)

    def add(self, prompt: str) -> None:
        """Remember a prompt."""
        numbers, text = _normal_form(prompt)
        self._by_numbers.setdefault(numbers, []).append((text, prompt))

    def find(self, prompt: str) -> str | None:
        """Return a remembered prompt that `prompt` repeats, or None."""
        from rapidfuzz import fuzz, process

        numbers, normal = _normal_form(prompt)
        candidates = self._by_numbers.get(numbers, [])
        found = process.extractOne(
            normal, [text for text, _ in candidates], scorer=fuzz.ratio, score_cutoff=NEAR_DUPLICATE
        )
        return candidates[found[2]][1] if found else None


def require_no_leak(generated: Sequence[str], test: PromptIndex) -> None:
    """Check that no generated prompt repeats a test prompt.

    Raises:
        DataError: One does; the message shows both.
    """
    for prompt in generated:
        if (leaked := test.find(prompt)) is not None:
            raise DataError(
                f"the generated prompt {prompt!r} repeats the test prompt {leaked!r}: the test set would be "
                "searched on. Generate the data again (`unspoiled generate --fresh`)."
            )


def _normal_form(prompt: str) -> tuple[tuple[str, ...], str]:
    """Return the prompt's numbers and operators, sorted, and its words in lower case (all of it, if it has none)."""
    words = _WORDS.findall(prompt.lower())
    numbers = [word for word in words if any(c.isdigit() for c in word)]
    return tuple(sorted(numbers + _OPERATORS.findall(prompt))), " ".join(words) or " ".join(prompt.split())
