"""A bunch behind one set of weights: each model as itself, under its own chat template."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tiny import CHATML, Bunch
from unspoiled.config import ModelEntry, Recipe
from unspoiled.errors import CheckpointError
from unspoiled.inference import (
    Exchange,
    LiveBunch,
    Prompt,
    TransformersBackend,
    load_chat_template,
    load_model,
)
from unspoiled.merging import Models, merge_to_directory

EXCHANGE = Exchange(Prompt("How do I bake bread?"), "Mix flour and wait.")


def recipe(bunch: Bunch, full: Path) -> Recipe:
    models = {f"{bunch.base}+{bunch.aligned}": 0.6, str(full): 0.3}
    entries = tuple(ModelEntry(model=model, parameters={"weight": weight}) for model, weight in models.items())
    return Recipe(merge_method="task_arithmetic", base_model=str(bunch.base), models=entries, dtype="float32")


def test_models_and_merges_score_as_their_checkpoints_do(bunch: Bunch, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(bunch.full, own)
    (own / "chat_template.jinja").write_text(CHATML.replace("assistant", "model"))
    wanted = recipe(bunch, own)
    models = Models.open([wanted], Path.cwd())
    live = LiveBunch(models, models.sources[str(bunch.base)], merged_template=bunch.base, dtype=torch.float32)
    merge_to_directory(wanted, models, tmp_path / "out", tokenizer=bunch.base)

    def alone(directory: Path) -> float:
        backend = TransformersBackend(
            load_model(directory, dtype=torch.float32), load_chat_template(directory), batch_size=1
        )
        return backend.score([EXCHANGE])[0].log_likelihood

    for _ in range(2):
        assert live.take_model(models.sources[str(own)]).score([EXCHANGE])[0].log_likelihood == alone(own)
        assert live.take_recipe(wanted).score([EXCHANGE])[0].log_likelihood == alone(tmp_path / "out")
        assert live.take_model(models.sources[str(bunch.base)]).score([EXCHANGE])[0].log_likelihood == alone(bunch.base)
    assert "model" in live.take_model(models.sources[str(own)]).template.tokenizer.chat_template


def test_what_ends_a_response_is_each_models_own(bunch: Bunch, tmp_path: Path) -> None:
    """Whichever was in memory before, and of a merge what the checkpoint on the disk says."""
    wanted = recipe(bunch, bunch.full)
    asked = {"prompts": [Prompt("Which?")], "max_new_tokens": 12}

    def written(backend: TransformersBackend) -> str:
        return backend.generate(**asked)[0].text

    plain = Models.open([wanted], Path.cwd())
    live = LiveBunch(plain, plain.sources[str(bunch.base)], merged_template=bunch.base, dtype=torch.float32)
    backend = live.take_model(plain.sources[str(bunch.full)])
    ids = backend.complete([backend.template.prompt_ids(asked["prompts"][0])], max_new_tokens=12)[0].tokens
    stop = next(token for token in ids if token != ids[0])
    own = tmp_path / "own"
    shutil.copytree(bunch.full, own)
    (own / "generation_config.json").write_text(json.dumps({"eos_token_id": [stop]}))

    models = Models.open([recipe(bunch, own)], Path.cwd())
    live = LiveBunch(models, models.sources[str(bunch.base)], merged_template=own, dtype=torch.float32)
    stopping, other = models.sources[str(own)], models.sources[str(bunch.base)]
    expected = backend.template.decode(ids[: ids.index(stop)]).strip()
    for _ in range(2):
        assert len(live.take_model(other).generate(**asked)[0].text) > 0
        assert live.take_model(other).model.generation_config.eos_token_id != [stop]
        assert written(live.take_model(stopping)) == expected
        assert live.take_model(stopping).model.generation_config.eos_token_id == [stop]
    assert live.take_recipe(recipe(bunch, own)).model.generation_config.eos_token_id == [stop]
    merge_to_directory(recipe(bunch, own), models, tmp_path / "out", tokenizer=own)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [stop]


def test_a_batch_size_that_fits_outlives_the_trial(bunch: Bunch) -> None:
    """Otherwise every trial of a search would run out of memory again first."""
    wanted = recipe(bunch, bunch.full)
    models = Models.open([wanted], Path.cwd())
    live = LiveBunch(models, models.sources[str(bunch.base)], merged_template=bunch.base, dtype=torch.float32)
    live.take_recipe(wanted).batch_size = 4
    assert live.take_recipe(wanted).batch_size == 4


def test_what_transformers_cannot_load_is_an_error_of_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no such model"}')
    with pytest.raises(CheckpointError, match="can't load the model in"):
        load_model(tmp_path, dtype=torch.float32)
