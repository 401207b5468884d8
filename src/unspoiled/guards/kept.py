"""A guard whose verdicts are kept as it gives them, so that a killed run asks it for nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unspoiled.files import KeyedLog, hash_value
from unspoiled.guards._protocol import Guard, Verdict
from unspoiled.inference import Progress, silent

_AT_ONCE = 64  # pairs judged between two writes


class KeptGuard:
    """A guard with a log of its verdicts: what was judged before, by the same guard, is read and not judged again.

    Args:
        guard: The guard.
        path: The log, JSON lines; it need not exist.
        note: Called with what the user should know, such as that a torn record was removed from the log.
    """

    def __init__(self, guard: Guard, path: Path, *, note: Callable[[str], None]) -> None:
        self._guard = guard
        self._log = KeyedLog(
            path,
            kind="verdict",
            write=lambda verdict: {"verdict": asdict(verdict)},
            read=lambda row: read_verdict(row["verdict"]),
            note=note,
        )
        self.name, self.fingerprint = guard.name, guard.fingerprint
        self.judges_content, self.advice = guard.judges_content, guard.advice

    def judge(self, pairs: Sequence[tuple[str, str]], *, progress: Progress = silent) -> list[Verdict]:
        """Return one verdict per (prompt, response), in order.

        Raises:
            DataError: The log is damaged; the message names the line.
        """
        keys = [hash_value([self.fingerprint, *pair]) for pair in pairs]
        self._log.complete(
            dict(zip(keys, pairs, strict=True)),
            self._guard.judge,
            at_once=_AT_ONCE,
            progress=lambda left: progress(len(pairs) - left, len(pairs)),
        )
        return [self._log.records[key] for key in keys]


def read_verdict(plain: dict[str, Any]) -> Verdict:
    """Return a verdict from its plain values, as JSON holds them."""
    return Verdict(**{**plain, "categories": tuple(plain["categories"])})
