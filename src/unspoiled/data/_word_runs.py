"""Long runs of the same words: what shows that a text quotes another, though much of it differs.

Reports on language models call a test prompt contaminated when runs of n words of it stand in the training data:
13 words for GPT-3 (arXiv 2005.14165, appendix C), 8 words covering 70% of the prompt for PaLM (arXiv 2204.02311,
section 8), 8 tokens covering half of it for Tülu 3 (arXiv 2411.15124). Here it is 8 words and half. What is said in
other words or another language escapes all of them (arXiv 2311.04850).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from unspoiled.data._near_duplicates import Repeat
from unspoiled.data._words import normal_form, words_of

RUN = 8
"""Words in a run."""
COVERAGE = 0.5
"""Share of a text's words that the runs shared with another must cover."""
PHRASE = 4
"""Words in a stock phrase; and texts of fewer words are only compared whole, as near-duplicates."""
STOCK = 10
"""A phrase that stands in more than this many texts is a stock phrase, and shows nothing (GPT-3's rule for runs)."""


class WordRuns:
    """The runs of words of many texts, and whether a new text shares enough of them with one.

    - A text of 8 words or more is repeated if the runs of 8 words that both share cover half of the words of either.
      A run with a stock phrase ("which of the following") counts for neither: exams ask everything with them.
    - A text of 4 to 7 words has no such run. It is repeated if all of it stands in the new text, makes at least half
      of that, and the numbers and operators are the same: "what is 12 + 35" is not "what is 12 + 35 - 4".
    - A text of fewer words is never found here.

    Args:
        texts: (source, text) pairs; the same words twice count once, for the first source.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        distinct: dict[str, tuple[str, str]] = {}
        for source, text in texts:
            distinct.setdefault(" ".join(words_of(text)), (source, text))
        self._texts = list(distinct.values())
        self._short = {key: n for n, key in enumerate(distinct) if PHRASE <= key.count(" ") + 1 < RUN}
        phrases = Counter(phrase for key in distinct for phrase in set(_runs(key.split(" "), PHRASE)))
        self._stock = {phrase for phrase, count in phrases.items() if count > STOCK}
        self._places: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)  # of a run: (text, where in it)
        self._words: list[int] = []  # of each text, how many words its runs cover
        for number, key in enumerate(distinct):
            runs = self._runs(key.split(" "))
            self._words.append(len(_covered(runs)))
            for place, run in runs.items():
                self._places[run].append((number, place))

    def find(self, text: str) -> Repeat | None:
        """Return the text that `text` repeats (the one that it shares most with), or None."""
        words = words_of(text)
        return self._find_long(words, either=True) or self._find_short(text, words)

    def find_quoted(self, text: str) -> Repeat | None:
        """Return the text of 8 words or more, half of whose words stand in runs of `text`, or None.

        This is for responses, in which a short question may well be said again.
        """
        return self._find_long(words_of(text), either=False)

    def _find_long(self, words: Sequence[str], *, either: bool) -> Repeat | None:
        runs = self._runs(words)
        theirs, ours = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)  # where shared runs begin
        for place, run in runs.items():
            for number, their_place in self._places.get(run, ()):
                theirs[number].append(their_place)
                ours[number].append(place)
        own = len(_covered(runs))

        def coverage(number: int) -> float:
            covered = len(_covered(theirs[number])) / self._words[number]
            return max(covered, len(_covered(ours[number])) / own) if either else covered

        best = max(theirs, key=lambda number: (coverage(number), -number), default=None)
        return None if best is None or coverage(best) < COVERAGE else self._repeat(best)

    def _find_short(self, text: str, words: Sequence[str]) -> Repeat | None:
        shortest = max(PHRASE, -(-len(words) // 2))
        for length in range(min(RUN - 1, len(words)), shortest - 1, -1):
            for run in _runs(words, length):
                number = self._short.get(run)
                if number is not None and normal_form(self._texts[number][1]).numbers == normal_form(text).numbers:
                    return self._repeat(number)
        return None

    def _runs(self, words: Sequence[str]) -> dict[int, str]:
        """Return the runs of 8 words without a stock phrase, by their places."""
        stock = [phrase in self._stock for phrase in _runs(words, PHRASE)]
        phrases_in_run = RUN - PHRASE + 1
        return {
            place: run for place, run in enumerate(_runs(words, RUN)) if not any(stock[place : place + phrases_in_run])
        }

    def _repeat(self, number: int) -> Repeat:
        source, text = self._texts[number]
        return Repeat(text, "ngrams", source)


def _runs(words: Sequence[str], length: int) -> list[str]:
    return [" ".join(words[start : start + length]) for start in range(len(words) - length + 1)]


def _covered(places: Iterable[int]) -> set[int]:
    """Return the places of the words in runs of 8 that begin at `places`."""
    return {place + offset for place in places for offset in range(RUN)}
