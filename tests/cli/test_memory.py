"""Memory that runs out is a message with its own exit code; other errors of the machinery are not taken for it."""

from pathlib import Path

import pytest
import torch

from command import unspoiled
from unspoiled import config


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_memory_that_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(config, "read_run_config", fail)
    done = unspoiled("check", tmp_path / "run.yaml")
    assert done.code == 7
    assert done.err.startswith("Error: memory ran out (")
    assert "runtime.batch_size" in done.err


def test_another_runtime_error_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(config, "read_run_config", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        unspoiled("check", tmp_path / "run.yaml")


def test_ctrl_c_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "read_run_config", fail)
    done = unspoiled("check", tmp_path / "run.yaml")
    assert done.code == 130
    assert "Stopped." in done.err
