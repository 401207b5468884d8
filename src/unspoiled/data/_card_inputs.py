"""What the data card is written from: plain values, none of which a model wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from unspoiled.data._balance import GroupLengths
from unspoiled.data._near_duplicates import Rule
from unspoiled.data._rows import Row, SetName, Split
from unspoiled.data.curate import Dropped


@dataclass(frozen=True)
class ModelUsed:
    """A model that wrote something.

    Args:
        role: What it did: `writes unsafe questions`, `answers`, ...
        name: Its path, hub id or server.
        hash: A hash of its weights; of a server's model, of its address.
    """

    role: str
    name: str
    hash: str


@dataclass(frozen=True)
class GuardUsed:
    """A guard whose verdicts chose rows: its name, and a hash of all that its verdicts depend on."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class SamplingUsed:
    """How a step sampled: temperature 0 is greedy, `max_new_tokens` the longest output."""

    step: str
    temperature: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True)
class Contamination:
    """How many of a set's questions or responses repeated a test set, by one rule."""

    set: SetName
    test: str
    rule: Rule
    count: int


@dataclass(frozen=True)
class DataCardInputs:
    """What the data card says.

    Args:
        name: The data set's name.
        command: The command that made it.
        versions: Packages and their versions.
        models: Who wrote questions and answers.
        guards: Who judged the answers.
        sampling: How each step sampled.
        templates: A hash of each request template, by its name.
        yields: By data set (a domain's own), what became of its questions: `requests`, `malformed`, ..., `kept`.
        group_yields: The same for each category or domain of a data set.
        splits: Rows by set and split, as `write_dataset` returns them: sets and splits with a file, at least one.
        groups: The rows by category or domain; see `group_lengths`.
        targets: By set, how many responses each model (or `templates`) gave; see `count_targets`.
        tests: The test sets that everything was compared with.
        contamination: What repeated them; see `count_contamination`.
        languages: How many prompts are in which language (`unknown` included); empty if nobody looked.
        warnings: Further sentences for the section on limits, such as a balance's.
    """

    name: str
    command: str
    versions: Mapping[str, str]
    models: tuple[ModelUsed, ...]
    guards: tuple[GuardUsed, ...]
    sampling: tuple[SamplingUsed, ...]
    templates: Mapping[str, str]
    yields: Mapping[str, Mapping[str, int]]
    group_yields: Mapping[str, Mapping[str, Mapping[str, int]]]
    splits: Mapping[tuple[SetName, Split], int]
    groups: tuple[GroupLengths, ...]
    targets: Mapping[SetName, Mapping[str, int]]
    tests: tuple[str, ...]
    contamination: tuple[Contamination, ...] = ()
    languages: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not any(self.splits.values()):
            raise ValueError(f"splits is {self.splits!r}: a data card needs at least one set and split with rows")


def count_contamination(dropped: Iterable[Dropped]) -> tuple[Contamination, ...]:
    """Count what was dropped because it repeats a test set, by set, test set and rule, sorted."""
    counts = Counter(
        (one.set, one.source, one.rule)
        for one in dropped
        if one.reason in {"test_prompt", "test_quoted_in_response"} and one.source and one.rule
    )
    return tuple(Contamination(*key, count) for key, count in sorted(counts.items()))


def count_targets(rows: Iterable[Row]) -> dict[SetName, dict[str, int]]:
    """Count, for each set, whose responses its rows have, the most frequent first."""
    by_set: dict[SetName, Counter[str]] = {}
    for row in rows:
        by_set.setdefault(row.set, Counter())[row.answered_by] += 1
    return {set_name: dict(counts.most_common()) for set_name, counts in by_set.items()}
