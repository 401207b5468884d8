"""Prompts that repeat one another, word for word or nearly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from unspoiled.data._letter_counts import LetterCounts
from unspoiled.data._words import normal_form

Rule = Literal["exact", "near", "ngrams"]

NEAR_DUPLICATE = 90.0
SCAN_LIMIT = 500
"""Up to this many prompts with the same numbers are compared one by one; among more, letter counts choose which."""


@dataclass(frozen=True)
class Repeat:
    """What a text repeats.

    Args:
        of: The prompt (or answer) that came before.
        rule: `exact` (the same normal form), `near` (near-duplicates), or `ngrams` (long runs of the same words).
        source: The set that `of` is from, or None.
    """

    of: str
    rule: Rule
    source: str | None = None


class PromptIndex:
    """The prompts seen so far, and whether a new one repeats any of them.

    Two prompts are near-duplicates if their normalised texts are at least 90% alike (Indel similarity of
    rapidfuzz) and hold the same numbers and operators: `12 + 35`, `12 + 36` and `12 - 35` are three questions.

    Args:
        prompts: Prompts to remember from the start.
        source: The set that they are from.
        scan_limit: See `SCAN_LIMIT`; what is found doesn't depend on it.
    """

    def __init__(self, prompts: Iterable[str] = (), source: str | None = None, *, scan_limit: int = SCAN_LIMIT) -> None:
        self._scan_limit = scan_limit
        self._exact: dict[tuple[Sequence[str], str], tuple[str, str | None]] = {}
        self._by_numbers: dict[Sequence[str], _Texts] = {}
        for prompt in prompts:
            self.add(prompt, source)

    def add(self, prompt: str, source: str | None = None) -> None:
        """Remember a prompt, and the set that it is from."""
        numbers, text = normal_form(prompt)
        if (numbers, text) not in self._exact:
            self._exact[numbers, text] = prompt, source
            self._by_numbers.setdefault(numbers, _Texts(self._scan_limit)).add(text)

    def find(self, prompt: str) -> Repeat | None:
        """Return the remembered prompt that `prompt` repeats, the most similar one; or None."""
        numbers, text = normal_form(prompt)
        if (same := self._exact.get((numbers, text))) is not None:
            return Repeat(same[0], "exact", same[1])
        others = self._by_numbers.get(numbers)
        if others is None or (similar := others.most_similar(text)) is None:
            return None
        of, source = self._exact[numbers, similar]
        return Repeat(of, "near", source)


class _Texts:
    """Normalised texts with the same numbers."""

    def __init__(self, scan_limit: int) -> None:
        self._scan_limit = scan_limit
        self._texts: list[str] = []
        self._counts: LetterCounts | None = None

    def add(self, text: str) -> None:
        self._texts.append(text)
        if self._counts is not None:
            self._counts.add(text)
        elif len(self._texts) > self._scan_limit:
            self._counts = LetterCounts(NEAR_DUPLICATE / 100)
            for earlier in self._texts:
                self._counts.add(earlier)

    def most_similar(self, text: str) -> str | None:
        from rapidfuzz import fuzz, process

        texts = self._texts
        if self._counts is not None:
            texts = [texts[number] for number in self._counts.candidates(text)]
        found = process.extractOne(text, texts, scorer=fuzz.ratio, score_cutoff=NEAR_DUPLICATE)
        return None if found is None else str(found[0])
