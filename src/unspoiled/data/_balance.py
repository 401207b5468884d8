"""How the rows of a set are spread over its groups, and how long they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

from unspoiled.data._rows import Row, SetName
from unspoiled.data._words import words_of

_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Balance:
    """How evenly rows are spread over groups.

    Args:
        counts: Rows by group, groups without any included.
        ratio: The largest count divided by the smallest: 1 is even, infinite if a group has none.
        warnings: A sentence for each group with less than half of an even share.
    """

    counts: Mapping[str, int]
    ratio: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Quartiles:
    """The lower quartile, the median and the upper quartile of a length in words."""

    lower: int
    median: int
    upper: int


@dataclass(frozen=True)
class GroupLengths:
    """The rows of one group of a set: how many there are, and how long prompts and responses are."""

    set: SetName
    group: str
    rows: int
    prompt: Quartiles
    response: Quartiles


def balance_of(groups: Iterable[str], expected: Sequence[str] = ()) -> Balance:
    """Return how evenly rows are spread.

    Args:
        groups: The group of each row.
        expected: The groups that there should be, such as a taxonomy's categories; one without rows counts, too.
    """
    counts = dict.fromkeys(expected, 0)
    for group in groups:
        counts[group] = counts.get(group, 0) + 1
    if not counts:
        return Balance({}, 1.0, ())
    even = sum(counts.values()) / len(counts)
    warnings = tuple(
        f"{group!r} has {count} of {sum(counts.values())} rows, less than half of an even share ({even:.1f})."
        for group, count in counts.items()
        if count < _LEAST_SHARE * even
    )
    least = min(counts.values())
    return Balance(counts, max(counts.values()) / least if least else math.inf, warnings)


def group_lengths(rows: Iterable[Row]) -> tuple[GroupLengths, ...]:
    """Return the groups of each set with the lengths of their rows, sorted by set and group."""
    by_group: dict[tuple[SetName, str], list[Row]] = {}
    for row in rows:
        by_group.setdefault((row.set, row.group), []).append(row)
    return tuple(
        GroupLengths(
            set_name,
            group,
            len(own),
            _quartiles([len(words_of(row.prompt)) for row in own]),
            _quartiles([len(words_of(row.response)) for row in own]),
        )
        for (set_name, group), own in sorted(by_group.items())
    )


def _quartiles(lengths: Sequence[int]) -> Quartiles:
    if len(lengths) == 1:  # which has no quantiles
        return Quartiles(lengths[0], lengths[0], lengths[0])
    lower, median, upper = quantiles(lengths, n=4, method="inclusive")
    return Quartiles(round(lower), round(median), round(upper))
