"""The test sets of a run, as what generated text must not repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from unspoiled.data._near_duplicates import PromptIndex, Repeat
from unspoiled.data._word_runs import WordRuns
from unspoiled.errors import DataError


class FindsRepeats(Protocol):
    """Anything that knows prompts and says which of them a new one repeats."""

    def find(self, prompt: str) -> Repeat | None:
        """Return what `prompt` repeats, or None."""
        ...


class HeldOut:
    """The prompts and answers of the test sets, which neither search nor selection may hold.

    Args:
        prompts: By the test set's name, its prompts.
        answers: By the test set's name, its right answers. Those of fewer than 8 words ("Paris", "B") can't be told
            from chance and are not looked for.
    """

    def __init__(
        self, prompts: Mapping[str, Sequence[str]], answers: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> None:
        self._index = PromptIndex()
        for name, texts in prompts.items():
            for text in texts:
                self._index.add(text, name)
        self._prompts = WordRuns(_pairs(prompts))
        self._answers = WordRuns(_pairs(answers))

    def find(self, prompt: str) -> Repeat | None:
        """Return the test prompt that `prompt` repeats: the same, nearly the same, or in long runs of its words."""
        return self._index.find(prompt) or self._prompts.find(prompt)

    def find_quoted(self, response: str) -> Repeat | None:
        """Return the test prompt or answer that a response quotes in long runs of its words, or None."""
        return self._prompts.find_quoted(response) or self._answers.find_quoted(response)


def require_no_leak(generated: Sequence[str], test: FindsRepeats) -> None:
    """Check that no generated prompt repeats a test prompt.

    Raises:
        DataError: One does; the message shows both.
    """
    for prompt in generated:
        if (leaked := test.find(prompt)) is not None:
            where = "" if leaked.source is None else f" of {leaked.source!r}"
            raise DataError(
                f"the generated prompt {prompt!r} repeats the test prompt {leaked.of!r}{where}: the test set would be "
                "searched on. Generate the data again (`unspoiled generate --fresh`)."
            )


def require_apart(search: Sequence[str], selection: Sequence[str]) -> None:
    """Check that no prompt of the selection split repeats one of the search split, nor nearly.

    Raises:
        DataError: One does; the message shows both.
    """
    seen = PromptIndex(search)
    for prompt in selection:
        if (repeat := seen.find(prompt)) is not None:
            raise DataError(
                f"the prompt {prompt!r} of the selection split repeats {repeat.of!r} of the search split: finalists "
                "would be picked on what they were searched on. Generate the data again (`unspoiled generate --fresh`)."
            )


def _pairs(sets: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    return [(name, text) for name, texts in sets.items() for text in texts]
