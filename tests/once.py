"""What takes long to build is built once for all test processes of a session."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

Built = TypeVar("Built")


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], Built]) -> Built:
    """Return what `build` makes in a new folder: in the first test process that asks, and for all others too.

    Args:
        factory: pytest's; under pytest-xdist, the folder above the process's own is every process's.
        name: The folder's name.
        build: Gets the empty folder, and returns something that can be pickled. What it wrote is read only from then
            on.
    """
    shared = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    kept = shared / f"{name}.pickle"
    with FileLock(shared / f"{name}.lock"):
        if not kept.exists():
            place = shared / name
            place.mkdir()
            kept.write_bytes(pickle.dumps(build(place)))
        found: Built = pickle.loads(kept.read_bytes())
    return found
