"""Read finished runs, to show several on one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unspoiled.errors import RunDirectoryError
from unspoiled.evaluate import Results
from unspoiled.report import ComparedRun


def read_runs(directories: Sequence[Path]) -> list[ComparedRun]:
    """Return what runs measured, with their configs where they are known.

    A run is called by its directory's name; where two have one name, by the path.

    Raises:
        RunDirectoryError: A directory has no results.
        DataError: It has such as this version can't read.
    """
    names = [directory.resolve().name for directory in directories]
    unique = len(set(names)) == len(names)
    shown = names if unique else [str(directory) for directory in directories]
    return [_read(directory, name) for directory, name in zip(directories, shown, strict=True)]


def _read(directory: Path, name: str) -> ComparedRun:
    path = directory / "results.json"
    try:
        results = Results.read(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunDirectoryError(
            f"{directory} has no results.json: give the directory of a run that was evaluated (`unspoiled run`)."
        ) from error
    return ComparedRun(name, results, _config(directory / "run.json"))


def _config(path: Path) -> dict[str, Any]:
    """Return the config that a run was of; empty where only results are kept, as of models that no run made."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    config = known.get("config") if isinstance(known, dict) else None
    return config if isinstance(config, dict) else {}
