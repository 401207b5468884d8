"""The card that is published names the models, and nothing of the machine that merged them."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trained import TrainedBunch
from unspoiled.config import load_yaml, read_run_config
from unspoiled.data import Row
from unspoiled.evaluate import ModelScores, Rate, Results
from unspoiled.objective import WeightedSum
from unspoiled.pipeline import open_bunch
from unspoiled.pipeline._data_card import data_card_inputs
from unspoiled.pipeline._data_sets import data_sets, dropped_files
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._evaluate import _card, _provenance


def test_no_path_of_this_machine_is_on_the_card(trained: TrainedBunch, tmp_path: Path) -> None:
    home = tmp_path / "it's Ann's own" / ("a directory whose name is so long that " * 3 + "YAML folds it")
    shutil.copytree(trained.root, home)
    guards = f"guards: {{judge: {{family: policy, model: {json.dumps(str(home / 'aligned'))}}}}}\n"
    config = trained.config.replace(f"{trained.root}/", "").replace("evaluate:\n", "evaluate:\n  guards: [judge]\n")
    (home / "run.yaml").write_text(guards + config.replace("generate:\n", "generate:\n  guard: judge\n"))
    bunch = open_bunch(read_run_config(home / "run.yaml"))
    recipe = bunch.space.recipe([0.5] * bunch.space.size)
    found: Any = SimpleNamespace(winner="evolve", goals={"search": WeightedSum(1.0, 1.0)}, safest="aligned")
    results = Results(
        models={"evolve": ModelScores(rates={"safe:judge": Rate.of([True])})},
        comparisons=[],
        provenance=_provenance(bunch, found),
    )
    run = RunDirectory(tmp_path / "run", config={}, inputs={}, fresh=False)
    for path in (path for name in data_sets(bunch) for path in dropped_files(run.path / "data", name)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    row = Row("1", "safety", "Theft", "How?", "No.", "questioner", "aligned", "search")
    data = data_card_inputs(bunch, run, [row], {})
    for text in (_card(bunch, recipe, None, None), _card(bunch, recipe, results, "evolve", data), results.to_json()):
        assert "Ann" not in text
        assert "folds" not in text
    assert results.provenance["guard"] == results.provenance["search_guard"] == data.guards[0].name == "policy:aligned"
    card = _card(bunch, recipe, results, "evolve", data)
    assert "judged by policy&#58;aligned. The data of the search were filtered by policy&#58;aligned. That is" in card
    shown = load_yaml(card.split("```yaml\n")[1].split("```")[0], source="card").value
    assert shown["base_model"] == "base"
    assert [entry["model"] for entry in shown["models"]] == ["aligned", "colours", "sounds"]
