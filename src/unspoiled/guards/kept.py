"""A guard whose verdicts are kept as it gives them, so that a killed run asks it for nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unspoiled.errors import DataError
from unspoiled.files import append_jsonl, hash_value, read_jsonl
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
        self._guard, self._path, self._note = guard, path, note
        self.name, self.fingerprint = guard.name, guard.fingerprint
        self.judges_content, self.advice = guard.judges_content, guard.advice

    def judge(self, pairs: Sequence[tuple[str, str]], *, progress: Progress = silent) -> list[Verdict]:
        """Return one verdict per (prompt, response), in order.

        Raises:
            DataError: The log is damaged.
        """
        rows = read_jsonl(self._path, repaired=self._note) if self._path.exists() else []
        try:
            known = {row["key"]: read_verdict(row["verdict"]) for row in rows}
        except (KeyError, TypeError) as error:
            raise DataError(f"{self._path}: holds no verdicts of ours ({error}). Remove it to judge anew.") from error
        keys = [hash_value([self.fingerprint, *pair]) for pair in pairs]
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
        waiting = list(missing.items())
        for start in range(0, len(waiting), _AT_ONCE):
            some = waiting[start : start + _AT_ONCE]
            verdicts = self._guard.judge([pair for _, pair in some])
            append_jsonl(
                self._path,
                [{"key": key, "verdict": asdict(verdict)} for (key, _), verdict in zip(some, verdicts, strict=True)],
            )
            known |= {key: verdict for (key, _), verdict in zip(some, verdicts, strict=True)}
            progress(len(pairs) - len(waiting) + start + len(some), len(pairs))
        return [known[key] for key in keys]


def read_verdict(plain: dict[str, Any]) -> Verdict:
    """Return a verdict from its plain values, as JSON holds them."""
    return Verdict(**{**plain, "categories": tuple(plain["categories"])})
