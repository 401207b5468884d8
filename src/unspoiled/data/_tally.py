"""What became of the questions of a set, counted in all and by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


class Tally:
    """Counts by reason, in all (`total`) and for each category or domain (`groups`)."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.groups: dict[str, Counter[str]] = {}

    def count(self, reason: str, group: str, n: int = 1) -> None:
        """Count `n` more of `reason` in a group; 0 makes the reason appear."""
        self.total[reason] += n
        self.groups.setdefault(group, Counter())[reason] += n

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"total": dict(self.total), "groups": {group: dict(own) for group, own in self.groups.items()}}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Tally:
        """Read what `plain` returned."""
        tally = cls()
        tally.total.update(plain["total"])
        tally.groups.update({group: Counter(own) for group, own in plain["groups"].items()})
        return tally

    def followed_by(self, later: Tally) -> Tally:
        """Return both; what is `kept` is what the later step kept, which may be nothing."""
        both = Tally()
        both.total.update(_followed(self.total, later.total))
        for group in dict.fromkeys([*self.groups, *later.groups]):
            both.groups[group] = _followed(self.groups.get(group, Counter()), later.groups.get(group, Counter()))
        return both

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self.plain() == other.plain()

    __hash__ = None  # type: ignore[assignment]


def _followed(first: Counter[str], later: Counter[str]) -> Counter[str]:
    return Counter({**first, "kept": 0, **later})
