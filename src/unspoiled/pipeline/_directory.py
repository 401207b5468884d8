"""The run directory: what was done, from what inputs, and how long it took."""

from __future__ import annotations

import difflib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unspoiled import __version__
from unspoiled.config import dump_yaml
from unspoiled.errors import RunDirectoryError
from unspoiled.files import RunLock, hash_value, write_json_atomic

Record = Mapping[str, Any]
"""What a step wants remembered of itself: JSON values."""
_IDENTITY = "run.json"
_STEPS = "steps.json"


class RunDirectory:
    """A directory that holds one run: its products, and a record of its finished steps.

    Entering it takes a lock, so that two processes never work on one run.

    Args:
        path: The directory; made if it isn't there.
        config: The run's config as plain values.
        inputs: A content hash per input (model or file) by name.
        fresh: Discard what the directory holds and start anew.

    Raises:
        RunDirectoryError: Another process works here, the directory holds something else, or the config or an
            input has changed since the run began; the message shows the difference.
    """

    def __init__(self, path: Path, *, config: Mapping[str, Any], inputs: Mapping[str, str], fresh: bool) -> None:
        self.path = path
        self._identity = {"unspoiled": __version__, "config": dict(config), "inputs": dict(inputs)}
        self._fresh = fresh
        self._steps: dict[str, dict[str, Any]] = {}
        self.steps_made = 0
        """How many steps this process has done, those that were done before not counted."""
        self._lock = RunLock(path)
        self._refuse_foreign()  # before the lock, which leaves a file

    def __enter__(self) -> Self:
        try:
            self._lock.__enter__()
        except OSError as error:
            raise RunDirectoryError(f"{self.path}: {error.strerror}: choose another `output`.") from error
        try:
            self._take_over()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def step(self, name: str, inputs: object, outputs: Sequence[Path], make: Callable[[], Record | None]) -> bool:
        """Do a step unless its outputs are there from the same inputs.

        Args:
            name: The step's name.
            inputs: Everything that the outputs depend on, as JSON-able values; its hash is recorded.
            outputs: The files or directories that `make` leaves.
            make: Does the work, publishing each output all or nothing; may return a record to keep with the step.

        Returns:
            Whether there was something to do.
        """
        if self.was_made_from(name, inputs) and all(path.exists() for path in outputs):
            return False
        start = time.perf_counter()
        record = make()
        seconds = round(time.perf_counter() - start, 3)
        self._steps[name] = {"inputs": _digest(inputs), "seconds": seconds, "record": dict(record or {})}
        write_json_atomic(self.path / _STEPS, self._steps)
        self.steps_made += 1
        return True

    def was_made_from(self, name: str, inputs: object) -> bool:
        """Return whether a step was done last from these inputs, be its outputs there or not."""
        done = self._steps.get(name)
        return done is not None and done["inputs"] == _digest(inputs)

    def digest(self, name: str) -> str:
        """Return the hash of a finished step's inputs, for the steps that build on it."""
        return str(self._steps[name]["inputs"])

    def record(self, name: str) -> Record:
        """Return what a finished step wanted remembered."""
        record: Record = self._steps[name]["record"]
        return record

    @property
    def seconds(self) -> dict[str, float]:
        """How long each finished step took, in seconds, in the order of finishing."""
        return {name: float(step["seconds"]) for name, step in self._steps.items()}

    def _refuse_foreign(self) -> None:
        """Refuse a place that holds anything but a run of ours, and leave no trace in it."""
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"{self.path} is a file: choose an empty or new directory as `output`.")
        if self._known_identity() is None and (entries := self._entries()):
            raise RunDirectoryError(
                f"{self.path} holds {sorted(entry.name for entry in entries)[:5]} and no run of ours: choose an "
                "empty or new directory as `output`."
            )

    def _known_identity(self) -> dict[str, Any] | None:
        """Return what `run.json` says, or None if there is none of ours: others use that name too."""
        try:
            known = json.loads((self.path / _IDENTITY).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
            return None
        return known if isinstance(known, dict) and known.keys() == self._identity.keys() else None

    def forget(self, name: str) -> None:
        """Let a step be done again, though its outputs are there: what it built on is new."""
        if self._steps.pop(name, None) is not None:
            write_json_atomic(self.path / _STEPS, self._steps)

    def _entries(self) -> list[Path]:
        """Return what the directory holds, but for the lock and half-written files of a killed process."""
        if not self.path.exists():
            return []
        halves = set(self.path.glob(".*.tmp"))
        return [entry for entry in self.path.iterdir() if entry != self._lock.path and entry not in halves]

    def _take_over(self) -> None:
        self._refuse_foreign()
        for half in self.path.glob(".*.tmp"):
            half.unlink()
        identity = self.path / _IDENTITY
        if self._fresh:
            (self.path / _STEPS).unlink(missing_ok=True)
            for entry in self._entries():
                if entry != identity:  # the last to go: without it, what is left would not be known for ours
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            identity.unlink(missing_ok=True)
        known = self._known_identity()
        if known is not None:
            if known != json.loads(json.dumps(self._identity)):
                raise RunDirectoryError(
                    f"{self.path} holds a run of another config or other inputs:\n"
                    f"{_difference(known, self._identity)}\n"
                    "Choose another `output`, or discard what is there with --fresh."
                )
            steps = self.path / _STEPS
            self._steps = json.loads(steps.read_text(encoding="utf-8")) if steps.exists() else {}
        else:
            write_json_atomic(identity, self._identity)


def _digest(inputs: object) -> str:
    return hash_value([__version__, inputs])


def _difference(known: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    before, after = (dump_yaml(json.loads(json.dumps(value))).splitlines() for value in (known, given))
    return "\n".join([*difflib.unified_diff(before, after, "the run's", "given now", lineterm="", n=1)][:60])
