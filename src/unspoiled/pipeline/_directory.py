"""The run directory: what was done, with what inputs, and how long it took."""

from __future__ import annotations

import difflib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from unspoiled import __version__
from unspoiled.config import dump_yaml
from unspoiled.errors import RunDirectoryError
from unspoiled.files import RunLock, hash_value, write_json_atomic

T = TypeVar("T")
_IDENTITY = "run.json"
_STEPS = "steps.json"


class RunDirectory:
    """A directory that holds one run: its products, and a record of the finished steps.

    Entering it takes a lock, so that two processes never work on one run.

    Args:
        path: The directory; made if it isn't there.
        config: The run's config as plain values. Another config than the directory's own is refused.
        inputs: A hash per input (model or file) by name; changed inputs are refused too.
        fresh: Discard what the directory holds and start anew.

    Raises:
        RunDirectoryError: Another process works here, the directory holds something else, or the config or an
            input has changed since the run began; the message shows the difference.
    """

    def __init__(self, path: Path, *, config: Mapping[str, Any], inputs: Mapping[str, str], fresh: bool) -> None:
        self.path = path
        self._identity = {"unspoiled": __version__, "config": dict(config), "inputs": dict(inputs)}
        self._fresh = fresh
        path.mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(path)
        self.steps: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        self._lock.__enter__()
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

    def step(
        self, name: str, inputs: object, outputs: Sequence[Path], make: Callable[[], None]
    ) -> bool:
        """Do a step unless its outputs are there from the same inputs.

        Args:
            name: The step's name.
            inputs: Everything that the outputs depend on, as JSON-able values; its hash is recorded.
            outputs: The files or directories that `make` leaves.
            make: Does the work; it must publish each output all or nothing.

        Returns:
            Whether there was something to do.
        """
        digest = hash_value([__version__, inputs])
        done = self.steps.get(name)
        if done is not None and done["inputs"] == digest and all(path.exists() for path in outputs):
            return False
        start = time.perf_counter()
        make()
        self.steps[name] = {"inputs": digest, "seconds": round(time.perf_counter() - start, 3)}
        write_json_atomic(self.path / _STEPS, self.steps)
        return True

    def _take_over(self) -> None:
        identity_file = self.path / _IDENTITY
        foreign = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")]
        if not identity_file.exists():
            if foreign:
                raise RunDirectoryError(
                    f"{self.path} holds {sorted(foreign)[:5]} and no run of ours: choose an empty or new directory "
                    "as `output`."
                )
        elif self._fresh:
            for entry in self.path.iterdir():
                if not entry.name.startswith("."):
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        else:
            known = json.loads(identity_file.read_text(encoding="utf-8"))
            if known != self._identity:
                raise RunDirectoryError(
                    f"{self.path} holds a run of another config or other inputs:\n{_difference(known, self._identity)}\n"
                    "Choose another `output`, or discard what is there with --fresh."
                )
            steps = self.path / _STEPS
            self.steps = json.loads(steps.read_text(encoding="utf-8")) if steps.exists() else {}
        write_json_atomic(identity_file, self._identity)


def _difference(known: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    before, after = (dump_yaml(json.loads(json.dumps(value))).splitlines() for value in (known, given))
    lines = [line for line in difflib.unified_diff(before, after, "the run's", "given now", lineterm="", n=1)]
    return "\n".join(lines[:60])
