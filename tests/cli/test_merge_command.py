"""`unspoiled merge` at the prompt: its options, what it prints where, and how it says no."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from command import environment, unspoiled, unspoiled_process
from tiny import Bunch


@pytest.fixture
def recipe(bunch: Bunch, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"merge_method: linear\nmodels:\n"
        f"  - {{model: {bunch.base}, parameters: {{weight: 1}}}}\n"
        f"  - {{model: {bunch.full}, parameters: {{weight: 3}}}}\n"
    )
    return path


def test_the_output_path_is_all_of_stdout(recipe: Path, tmp_path: Path) -> None:
    done = unspoiled_process("merge", "recipe.yaml", "a place/out", cwd=tmp_path)
    assert (done.code, done.out) == (0, "a place/out\n"), done.err
    assert done.err.splitlines() == ["  merge: MB 1/1", "merge      0 s"], "one line, not one a tensor"
    assert unspoiled("merge", recipe, tmp_path / "quiet", "--quiet").err == ""


def test_a_stages_name_is_printed_as_it_is(recipe: Path, tmp_path: Path) -> None:
    """[bold] is markup to the library that prints, and [/x] an error."""
    recipe.write_text(f"name: '[x] [bold]'\n{recipe.read_text()}")
    done = unspoiled("merge", recipe, tmp_path / "out")
    assert done.code == 0, done.err
    assert "  merge: [x] [bold], MB 1/1\n" in done.err


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_of_the_weights_the_config_and_the_recipe(recipe: Path, tmp_path: Path, dtype: str) -> None:
    done = unspoiled("merge", recipe, tmp_path / "out", "--dtype", dtype, "--quiet")
    assert done.code == 0, done.err
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {getattr(torch, dtype)}  # noqa: SIM118
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert f"out_dtype: {dtype}" in (tmp_path / "out" / "mergekit_config.yml").read_text()


def test_shards_have_the_size_asked_for_and_load_as_one(recipe: Path, tmp_path: Path) -> None:
    for name, options in {"whole": [], "split": ["--shard-size", "50KB"]}.items():
        assert unspoiled("merge", recipe, tmp_path / name, "--quiet", *options).code == 0
    shards = sorted(path for path in (tmp_path / "split").glob("*.safetensors"))
    index = json.loads((tmp_path / "split" / "model.safetensors.index.json").read_text())
    assert len(shards) > 2
    assert {path.name for path in shards} == set(index["weight_map"].values())
    assert [path.stat().st_size for path in shards if path.stat().st_size > 54_000] == []  # 4 KB for the header
    ids = torch.arange(8)[None]
    with torch.no_grad():
        one, several = (
            AutoModelForCausalLM.from_pretrained(tmp_path / name)(ids).logits for name in ("whole", "split")
        )
    assert torch.equal(one, several)


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--threads", "0", "0 is not in the range x>=1"),
        ("--threads", "two", "'two' is not a valid integer"),
        ("--dtype", "int8", "'int8' is not one of 'float32', 'bfloat16', 'float16'"),
        ("--memory", "x", "'x' is no size: write a number with a unit, such as 500MB, 2GiB or 5GB"),
        ("--memory", "0", "'0' is no size"),
        ("--memory", "-1GB", "'-1GB' is no size"),
        ("--shard-size", "5XB", "'5XB' is no size"),
        ("--shard-size", "", "'' is no size"),
        ("--shard-size", "9" * 400, "is no size"),
    ],
)
def test_options_that_make_no_sense(recipe: Path, tmp_path: Path, option: str, value: str, complaint: str) -> None:
    done = unspoiled("merge", recipe, tmp_path / "out", option, value)
    assert done.code == 2
    assert f"Invalid value for '{option}'" in done.err
    assert complaint in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2GiB", 2 * 2**30),
        ("500MB", 500 * 10**6),
        ("1.5 GB", 1_500_000_000),
        ("64k", 64_000),
        ("3Ti", 3 * 2**40),
        ("4096", 4096),
        ("7B", 7),
    ],
)
def test_sizes_as_people_write_them(text: str, count: int) -> None:
    from unspoiled.cli._size import size

    assert size(text) == count


def test_every_fault_of_a_recipe_is_told_with_its_line(bunch: Bunch, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"merge_method: linear\nmodles: 3\nmodels:\n  - model: {bunch.base}\n    wieght: 1\nout_dtype: int8\n"
    )
    done = unspoiled("merge", tmp_path / "recipe.yaml", tmp_path / "out")
    assert done.code == 2
    for line, word in ((2, "modles"), (5, "wieght"), (6, "int8")):
        assert any(f"recipe.yaml:{line}: " in said and word in said for said in done.err.splitlines()), done.err


def test_ctrl_c_ends_it_with_130_and_nothing_left(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when other threads are at work; and it says nothing of what a merge doesn't do, which is to continue."""
    from unspoiled.checkpoints import CheckpointWriter

    real, written = CheckpointWriter.write, []

    def write(self: CheckpointWriter, name: str, *arguments: object, **options: object) -> None:
        real(self, name, *arguments, **options)  # type: ignore[arg-type]
        written.append(name)
        if len(written) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointWriter, "write", write)
    done = unspoiled("merge", recipe, tmp_path / "out", "--quiet", "--threads", "2")
    assert done.code == 130
    assert done.err == "\nStopped. Nothing was written.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_disk_that_fills_up_at_a_later_shard(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone else may fill it after the room was measured."""
    real, made = os.posix_fallocate, []

    def full(descriptor: int, start: int, size: int) -> None:
        made.append(size)
        if len(made) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    done = unspoiled("merge", recipe, tmp_path / "out", "--quiet", "--shard-size", "50KB")
    assert done.code == 7
    assert "No space left on device while writing a checkpoint of 0.00 GB" in done.err
    assert "nothing was published" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_limit_of_the_file_size_that_only_the_small_shards_keep(recipe: Path, tmp_path: Path) -> None:
    """A real limit, of the kernel: 60 KB a file."""
    command = [sys.executable, "-m", "unspoiled", "merge", "recipe.yaml", "out", "--quiet", "--shard-size"]
    found = {
        size: subprocess.run(
            [*command, size],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
        )
        for size in ("5GB", "45KB")
    }
    assert found["5GB"].returncode == 7
    assert "File too large while writing a checkpoint" in found["5GB"].stderr
    assert found["45KB"].returncode == 0, found["45KB"].stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "recipe.yaml"]


def test_no_room_is_said_before_any_work(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspoiled.files.free_bytes", lambda directory: 1_000_000)
    done = unspoiled("merge", recipe, tmp_path / "out", "--quiet")
    assert done.code == 7
    assert "0.05 GB are needed and 0.00 GB are free" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_memory_that_runs_out_names_the_options_of_a_merge(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unspoiled.checkpoints import CheckpointWriter

    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. More")

    monkeypatch.setattr(CheckpointWriter, "write", fail)
    done = unspoiled("merge", recipe, tmp_path / "out", "--quiet")
    assert done.code == 7
    assert "--memory" in done.err
    assert "batch_size" not in done.err
