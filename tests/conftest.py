"""Fixtures for all tests: a tiny real bunch, built once per session. `tiny.py` builds others."""

import os

import pytest
from hypothesis import settings

settings.register_profile("unspoiled", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.load_profile("unspoiled")

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test reaches the network
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tiny import Bunch, tiny_adapter, tiny_base, tiny_expert  # noqa: E402


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
