"""Fixtures for all tests: a tiny real bunch, built once per session. `tiny.py` builds others."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unspoiled", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.load_profile("unspoiled")

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test reaches the network
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tiny import tiny_adapter, tiny_base, tiny_expert  # noqa: E402


@dataclass(frozen=True)
class Bunch:
    """Paths of a tiny bunch; read only, since the whole session shares it."""

    base: Path
    aligned: Path  # LoRA adapter, rank 4
    skilled: Path  # LoRA adapter, rank 2, on the attention only
    full: Path  # full fine-tune


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
