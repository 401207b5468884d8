"""What a guard is: a judge of (prompt, response) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from unspoiled.guards._validity import Defect


@dataclass(frozen=True)
class Verdict:
    """What a guard says of one response.

    Args:
        label: `safe` or `unsafe`. An invalid response or an unparseable verdict is never `safe`.
        refusal: Whether the response declines the request.
        defect: What makes the response invalid, or None.
        parse_ok: Whether the guard's own output could be read; rules always can.
        text: The guard's raw output, or the words that decided.
    """

    label: Literal["safe", "unsafe"]
    refusal: bool
    defect: Defect | None
    parse_ok: bool
    text: str


class Guard(Protocol):
    """Judges responses."""

    @property
    def name(self) -> str:
        """The guard's identity with its version, as reports print it."""
        ...

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Return one verdict per (prompt, response), in order."""
        ...
