"""Trying proposals in this process, one after the other."""

from __future__ import annotations

from unspoiled.search._strategy import Evaluation, Evaluator, Proposal


class InProcess:
    """Works on one proposal at a time, when its result is waited for.

    Args:
        evaluator: The live model.
    """

    slots = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._proposal: Proposal | None = None

    def submit(self, proposal: Proposal) -> None:
        """Take a proposal; nothing happens until `finished`."""
        if self._proposal is not None:
            raise RuntimeError(f"proposal {self._proposal.number} is not finished yet")
        self._proposal = proposal

    def finished(self) -> tuple[Proposal, Evaluation | None]:
        """Try the proposal, and return it with what came of it."""
        if self._proposal is None:
            raise RuntimeError("no proposal was submitted")
        proposal, self._proposal = self._proposal, None
        return proposal, self._evaluator.evaluate(proposal)
