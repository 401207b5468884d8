"""Strategies whose proposals are all known before anything is tried."""

from __future__ import annotations

from collections.abc import Iterable

from unspoiled.search._strategy import Evaluation, Proposal


class Listed:
    """Propose what is on a list, in order, whatever comes of it.

    Args:
        name: The strategy's name.
        proposals: The list; each proposal's `number` is its place.
    """

    def __init__(self, name: str, proposals: Iterable[Proposal]) -> None:
        self._name = name
        self._proposals = tuple(proposals)
        self._asked = 0

    @property
    def name(self) -> str:
        """The name in configs, studies and reports."""
        return self._name

    @property
    def ended(self) -> bool:
        """Whether the whole list was proposed."""
        return self._asked == len(self._proposals)

    def ask(self) -> Proposal | None:
        """Return the next proposal of the list; None at its end."""
        if self.ended:
            return None
        self._asked += 1
        return self._proposals[self._asked - 1]

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        """Learn nothing: the list is fixed."""
