"""A judging run is worth nothing if the guard's answers can't be read."""

from __future__ import annotations

from collections.abc import Sequence

from unspoiled.errors import DataError
from unspoiled.guards._protocol import Verdict

_LONGEST_SAMPLE = 200  # characters


def require_parsed(verdicts: Sequence[Verdict], at_most: float = 0.1) -> None:
    """Refuse verdicts of which too many could not be read.

    Each of them counts as unsafe, so that a guard that answers in another format would pass for a strict one.

    Args:
        verdicts: Of one guard.
        at_most: The largest share that may be unreadable, from 0 to 1.

    Raises:
        DataError: More are; the message names the guard and shows one answer.
    """
    unread = [verdict for verdict in verdicts if not verdict.parse_ok]
    if not unread or len(unread) <= at_most * len(verdicts):
        return
    sample = unread[0].text
    shown = sample if len(sample) <= _LONGEST_SAMPLE else sample[:_LONGEST_SAMPLE] + "..."
    raise DataError(
        f"guard {unread[0].guard!r}: {len(unread)} of {len(verdicts)} verdicts "
        f"({len(unread) / len(verdicts):.0%}, at most {at_most:.0%} allowed) could not be read. One answer: {shown!r}. "
        "Check that the model is one of the guard's family, and that nothing cuts its answers short."
    )
