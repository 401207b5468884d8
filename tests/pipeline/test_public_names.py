"""The card that is published names the models, and nothing of the machine that merged them."""

import shutil
from pathlib import Path

from trained import TrainedBunch
from unspoiled.config import load_yaml, read_run_config
from unspoiled.pipeline import open_bunch
from unspoiled.pipeline._evaluate import _card


def test_no_path_of_this_machine_is_on_the_card(trained: TrainedBunch, tmp_path: Path) -> None:
    home = tmp_path / "it's Ann's own" / ("a directory whose name is so long that " * 3 + "YAML folds it")
    shutil.copytree(trained.root, home)
    (home / "run.yaml").write_text(trained.config.replace(f"{trained.root}/", ""))
    bunch = open_bunch(read_run_config(home / "run.yaml"))
    recipe = bunch.space.recipe([0.5] * bunch.space.size)
    card = _card(bunch, recipe, None, None)
    assert "Ann" not in card
    assert "folds" not in card
    shown = load_yaml(card.split("```yaml\n")[1].split("```")[0], source="card").value
    assert shown["base_model"] == "base"
    assert [entry["model"] for entry in shown["models"]] == ["aligned", "colours", "sounds"]
