"""`unspoiled merge` killed before each of its steps: nothing, the complete old model, or the complete new one."""

import subprocess
import sys
from pathlib import Path

import pytest

from command import environment, unspoiled
from tiny import Bunch

SCRIPT = Path(__file__).with_name("merge_until_killed.py")


def write_recipe(path: Path, bunch: Bunch, weight: int, *, stages: bool) -> Path:
    one = f"  - {{model: {bunch.base}, parameters: {{weight: 1}}}}\n"
    other = f"  - {{model: {bunch.full}, parameters: {{weight: {weight}}}}}\n"
    recipe = f"merge_method: linear\nmodels:\n{one}{other}"
    again = f"---\nmerge_method: linear\nmodels:\n{one}  - {{model: first, parameters: {{weight: 1}}}}\n"
    path.write_text(f"name: first\n{recipe}{again}" if stages else recipe)
    return path


def killed_at_every(recipe: Path, out: Path, *, every: int) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, SCRIPT, recipe, out, "0", str(every)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("stages", [False, True])
def test_killed_at_any_step_where_nothing_was(bunch: Bunch, tmp_path: Path, stages: bool) -> None:
    """The last run, which isn't killed, sweeps what all those before it left."""
    recipe = write_recipe(tmp_path / "recipe.yaml", bunch, 3, stages=stages)
    *killed, (ended, new, left, _) = killed_at_every(recipe, tmp_path / "out", every=8 if stages else 4)
    assert len(killed) > 10
    assert ended == "ended"
    assert left == "0"
    assert "incomplete" not in {state for _, state, _ in killed}
    states = [state for _, state, _ in killed]
    before = states.count("absent")
    assert states == ["absent"] * before + [new] * (len(states) - before), "complete from one step on"
    assert max(int(beside) for _, _, beside in killed) <= 2, "each start sweeps what is there"


def test_killed_at_any_step_over_an_older_model(bunch: Bunch, tmp_path: Path) -> None:
    """Between two renames it has no name for a moment, and the next start puts it back."""
    old = write_recipe(tmp_path / "old.yaml", bunch, 1, stages=False)
    assert unspoiled("merge", old, tmp_path / "out", "--quiet", "--shard-size", "60KB").code == 0
    recipe = write_recipe(tmp_path / "new.yaml", bunch, 3, stages=False)
    *killed, (_, new, left, _) = killed_at_every(recipe, tmp_path / "out", every=2)
    states = [state for _, state, _ in killed]
    former = states[0]
    assert former not in ("absent", "incomplete", new)
    assert set(states) <= {former, "absent", new}
    assert states.count("absent") <= 4, "only between the renames, and where a start puts the old one back"
    assert states.index(new) > states.index(former) + 10
    assert left == "0"
