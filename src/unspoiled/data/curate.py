"""Curation of the questions that models wrote: what is no question, or repeats another or a test prompt, goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from unspoiled.data._flaws import Flaw, Lengths, find_flaw
from unspoiled.data._held_out import HeldOut
from unspoiled.data._language import UNKNOWN, language_of, require_known_languages
from unspoiled.data._near_duplicates import PromptIndex, Repeat, Rule
from unspoiled.data._rows import Question, Row, SetName
from unspoiled.files import read_jsonl, write_jsonl_atomic

Reason = Literal[
    Flaw, "language", "test_prompt", "test_quoted_in_response", "shown_example", "duplicate", "near_duplicate"
]


@dataclass(frozen=True)
class Dropped:
    """A question that was left out.

    Args:
        id: The question's id.
        prompt: Its text.
        group: Its harm category or domain.
        set: The set that it was for.
        reason: Why it was left out.
        rule: How what it repeats was found: `exact`, `near` or `ngrams`; None if it repeats nothing.
        of: The prompt (or test answer) that it repeats, or None.
        source: The name of the test set, or of the generated set, that `of` is from; None if `of` is.
    """

    id: str
    prompt: str
    group: str
    set: SetName
    reason: Reason
    rule: Rule | None = None
    of: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Curated:
    """What curation left of a set's questions, each list in the questions' order."""

    kept: list[Question]
    dropped: list[Dropped]


class Curator:
    """Decides which questions stay; it remembers those of earlier sets, so that no prompt is in two.

    What it decides depends on the order of the questions and sets alone: the first of two that repeat each other
    stays.

    Args:
        tests: By its name, the prompts of every test set that the run uses.
        answers: By the test set's name, its right answers, which responses must not quote.
        shown: The in-context examples that the writers of questions were shown.
        languages: The languages to keep, as ISO 639 codes; None keeps all. A question whose language can't be told
            (short, mixed) is kept.
        lengths: How long a question may be.

    Raises:
        ConfigError: A language can't be recognised.
    """

    def __init__(
        self,
        tests: Mapping[str, Sequence[str]],
        shown: Sequence[str] = (),
        languages: Sequence[str] | None = None,
        *,
        answers: Mapping[str, Sequence[str]] = MappingProxyType({}),
        lengths: Lengths | None = None,
    ) -> None:
        if languages is not None:
            require_known_languages(languages)
        self.held_out = HeldOut(tests, answers)
        """The test sets; `require_no_leak` takes them."""
        self._shown = PromptIndex(shown)
        self._languages = languages
        self._lengths = lengths or Lengths()
        self._seen = PromptIndex()

    def remember(self, questions: Iterable[Question], set_name: SetName) -> None:
        """Count questions among those of earlier sets: ones that were curated before the run was continued."""
        for question in questions:
            self._seen.add(question.text, set_name)

    def curate(self, questions: Sequence[Question], set_name: SetName) -> Curated:
        """Return the questions that stay, which are remembered, and those that don't, each with one reason.

        The reasons are tried in this order: flaws of form, language, test prompts, examples shown, earlier questions.

        Args:
            questions: The questions of a set, in the order in which the first of two stays.
            set_name: The set that they are for.
        """
        curated = Curated([], [])
        for question in questions:
            found = self._unfit(question.text) or self._repeats(question.text)
            if found is None:
                self._seen.add(question.text, set_name)
                curated.kept.append(question)
            else:
                reason, repeat = found
                curated.dropped.append(_dropped(question.id, question.text, question.group, set_name, reason, repeat))
        return curated

    def check_responses(self, rows: Sequence[Row]) -> tuple[list[Row], list[Dropped]]:
        """Return the rows whose responses quote no test prompt or answer in long runs of words, and the others."""
        kept, dropped = list[Row](), list[Dropped]()
        for row in rows:
            if (quoted := self.held_out.find_quoted(row.response)) is None:
                kept.append(row)
            else:
                reason: Reason = "test_quoted_in_response"
                dropped.append(_dropped(row.id, row.prompt, row.group, row.set, reason, quoted))
        return kept, dropped

    def _unfit(self, text: str) -> tuple[Reason, None] | None:
        if (flaw := find_flaw(text, self._lengths)) is not None:
            return flaw, None
        if self._languages is not None and language_of(text) not in {UNKNOWN, *self._languages}:
            return "language", None
        return None

    def _repeats(self, text: str) -> tuple[Reason, Repeat] | None:
        if (repeat := self.held_out.find(text)) is not None:
            return "test_prompt", repeat
        if (repeat := self._shown.find(text)) is not None:
            return "shown_example", repeat
        if (repeat := self._seen.find(text)) is not None:
            return "duplicate" if repeat.rule == "exact" else "near_duplicate", repeat
        return None


def write_dropped(path: Path, dropped: Sequence[Dropped]) -> None:
    """Write what was left out as JSON lines, all or nothing."""
    write_jsonl_atomic(path, [asdict(one) for one in dropped])


def read_dropped(path: Path) -> list[Dropped]:
    """Read what `write_dropped` wrote."""
    return [Dropped(**row) for row in read_jsonl(path)]


def _dropped(
    identity: str, prompt: str, group: str, set_name: SetName, reason: Reason, repeat: Repeat | None
) -> Dropped:
    if repeat is None:
        return Dropped(identity, prompt, group, set_name, reason)
    return Dropped(identity, prompt, group, set_name, reason, repeat.rule, repeat.of, repeat.source)
