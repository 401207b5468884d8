"""The benchmark of merging: what it measures is what it says."""

import sys
from pathlib import Path

import pytest

from unspoiled.config import read_recipe
from unspoiled.merging import Models, merge_to_directory

MIB = 2**20


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")


def test_memory_of_a_child_process_counts(tmp_path: Path) -> None:
    from measured_process import measure

    child = "import time; held = bytearray(64 * 2**20); held[::4096] = b'x' * (64 * 2**8); time.sleep(0.5)"
    used = measure([sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"],
                   cwd=tmp_path)  # fmt: skip
    assert 64 * MIB < used.private < 128 * MIB
    assert used.resident > used.private
    assert used.seconds > 0.5


def test_a_failure_shows_what_the_command_printed(tmp_path: Path) -> None:
    from measured_process import CommandError, measure

    with pytest.raises(CommandError, match=r"exited with 3:\nno such model"):
        measure([sys.executable, "-c", "print('no such model'); raise SystemExit(3)"], cwd=tmp_path)


def test_the_raw_copy_reads_to_the_end_and_writes_as_much_as_the_first_input(tmp_path: Path) -> None:
    from raw_copy import BUFFER, raw_copy

    short, long = tmp_path / "short", tmp_path / "long"
    short.write_bytes(b"s" * (BUFFER + 7))
    long.write_bytes(b"l" * (3 * BUFFER + 5))
    for name, inputs, size in (("a", [short, long], BUFFER + 7), ("b", [long, short], 3 * BUFFER + 5)):
        assert raw_copy(str(tmp_path / name), [str(path) for path in inputs]) > 0
        assert (tmp_path / name).stat().st_size == size


def test_every_recipe_merges_a_bunch(tmp_path: Path) -> None:
    from merge_recipes import CHOICES, inputs, write_recipe
    from merge_results import TARGETS
    from random_bunch import TINY, write_random_bunch

    bunch = tmp_path / "bunch"
    write_random_bunch(bunch, TINY)
    assert CHOICES.keys() == TARGETS.keys()
    for method in CHOICES:
        recipe = read_recipe(write_recipe(bunch, method))
        models = Models.open([recipe], bunch)
        assert models.sources.keys() == set(inputs(method))
        merge_to_directory(recipe, models, bunch / f"{method}-out")


def test_the_sizes_are_those_of_the_models_they_are_named_for() -> None:
    from math import prod

    from random_bunch import SIZES

    counts = {size: sum(prod(shape) for shape in of.tensors().values()) for size, of in SIZES.items()}
    assert counts == {"135m": 134_515_008, "1.1b": 1_100_048_384, "8b": 8_030_261_248}


def test_a_row_is_judged_by_its_best_times_and_largest_memory() -> None:
    from measured_process import Usage
    from merge_results import Row, memory_grid, time_grid

    ours = (Usage(12.0, 700 * MIB, 900 * MIB, ""), Usage(10.0, 900 * MIB, 950 * MIB, ""))
    theirs = (Usage(95.0, 0, 0, ""),)
    row = Row("ties", "1.1b", 4, (2.0, 1.5), (4.0, 3.0), ours, theirs, interpreter=100 * MIB, limit=1024 * MIB)
    times = [cell for cell in time_grid([row], "1.1b").rows[0] if cell.holds is not None]
    assert [(cell.text, cell.holds) for cell in times] == [("4.67 ≤ 6", True), ("9.5 < 10", False)]
    memory = [cell for cell in memory_grid([row], "1.1b").rows[0] if cell.holds is not None]
    assert [(cell.text, cell.holds) for cell in memory] == [("0.78 ≤ 1", True)]
