"""Fixtures for all tests: a tiny real bunch, built once per session. `tiny.py` builds others.

Tests may run in several processes side by side (pytest-xdist), one thread each; `once` builds for all of them.
"""

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

settings.register_profile("unspoiled", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.load_profile("unspoiled")

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test reaches the network
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is: another number of threads adds up in another order

from once import once  # noqa: E402
from tiny import Bunch, tiny_adapter, tiny_base, tiny_expert  # noqa: E402

if TYPE_CHECKING:
    from trained import FinishedRun, TrainedBunch


@pytest.fixture(scope="session")
def bunch(tmp_path_factory: pytest.TempPathFactory) -> Bunch:
    root = tmp_path_factory.mktemp("bunch")
    base = tiny_base(root / "base")
    return Bunch(
        base=base,
        aligned=tiny_adapter(base, root / "aligned", seed=1),
        skilled=tiny_adapter(base, root / "skilled", seed=2, rank=2, target_modules=["q_proj", "v_proj"]),
        full=tiny_expert(base, root / "full", seed=3),
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> "TrainedBunch":
    """A bunch that asks, answers, refuses and complies (about ten seconds of training)."""
    from trained import build

    return once(tmp_path_factory, "trained", build)


@pytest.fixture(scope="session")
def finished_run(trained: "TrainedBunch", tmp_path_factory: pytest.TempPathFactory) -> "FinishedRun":
    """`unspoiled run` on the trained bunch, done once for all tests."""
    from trained import finish

    return once(tmp_path_factory, "finished", lambda place: finish(trained, place))
