"""Everything that is wrong with a bunch comes in one message, before any work, and leaves nothing behind."""

import json
from pathlib import Path

import pytest

from command import unspoiled
from tiny import tiny_base
from trained import TrainedBunch
from unspoiled.checkpoints import chat_template
from unspoiled.config import read_run_config
from unspoiled.inference import TransformersBackend
from unspoiled.pipeline import Bunch, open_bunch
from unspoiled.pipeline._askers import Asker


def config_in(directory: Path, text: str) -> Path:
    (directory / "run.yaml").write_text(text)
    return directory / "run.yaml"


def refused(directory: Path, text: str, *overrides: str) -> str:
    """Run a config that must be refused by preflight; return the message."""
    before = sorted(directory.rglob("*"))
    config = config_in(directory, text)
    done = unspoiled("run", config, *(part for override in overrides for part in ("--set", override)))
    assert done.code == 4, done.err
    assert done.out == ""
    assert sorted(directory.rglob("*")) == sorted([*before, config]), "a run directory was begun"
    return done.err


def test_every_problem_comes_at_once(trained: TrainedBunch, tmp_path: Path) -> None:
    other = tiny_base(tmp_path / "other")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "fine"}\n{"question": "what?"}\n')
    (tmp_path / "two.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    message = refused(
        tmp_path,
        trained.config,
        f"bunch.experts.aligned.model={other}",
        "bunch.experts.colours.model=nowhere/at/all",
        "generate.questioner=not/here/either",
        "evaluate.unsafe=absent.jsonl",
        "evaluate.harmless=bad.jsonl",
        "domains.sounds.examples=two.jsonl",
        "generate.taxonomy=no-taxonomy.yaml",
        "runtime.device=abacus",
        "search={granularity: group, layer_groups: 3}",
    )
    for piece in (
        "'aligned': the tokenizer differs from the base's",
        "'aligned': hidden_size is 32 in its config, but 64",
        f"colours: '{tmp_path}/nowhere/at/all' does not exist",
        f"questioner: '{tmp_path}/not/here/either' does not exist",
        f"{tmp_path}/absent.jsonl: No such file",
        f"{tmp_path}/bad.jsonl:2: 'prompt' is None",
        f"{tmp_path}/two.jsonl: 2 in-context examples: give at least 3",
        "no-taxonomy.yaml: can't be read",
        "torch can't use 'abacus'",
        "search.layer_groups is 3: choose 1 to 2",
    ):
        assert piece in message, f"{piece!r} is missing in:\n{message}"
    assert " problems before any work:" in message


def test_one_model_under_two_names_is_refused(trained: TrainedBunch, tmp_path: Path) -> None:
    twice = f"bunch.experts.sounds.model={trained.root}/base+{trained.root}/colours"
    assert "expert 'sounds' is the same model as 'colours'" in refused(tmp_path, trained.config, twice)


def without_template(model: Path, copy: Path) -> Path:
    copy.mkdir()
    for path in model.iterdir():
        if path.name != "chat_template.jinja":
            (copy / path.name).write_bytes(path.read_bytes())
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    return copy


def test_a_safety_expert_without_a_chat_template_is_refused(trained: TrainedBunch, tmp_path: Path) -> None:
    silent = without_template(trained.root / "aligned", tmp_path / "silent")
    assert "has no chat template" in refused(tmp_path, trained.config, f"bunch.experts.aligned.model={silent}")


def test_a_pretrained_base_speaks_under_the_safety_experts_template(trained: TrainedBunch, tmp_path: Path) -> None:
    """The usual bunch: a base that was never tuned to chat, and experts that were."""
    silent = without_template(trained.root / "base", tmp_path / "silent")
    config = config_in(tmp_path, trained.config)
    bunch = open_bunch(read_run_config(config, overrides=[f"bunch.base={silent}"]))
    backend = bunch.live.take_model(bunch.base)
    assert backend.template.tokenizer.chat_template == chat_template(bunch.template_directory)


def weights_in_memory(bunch: Bunch, asker: Asker) -> object:
    opened = bunch.open_asker(asker)
    assert isinstance(opened, TransformersBackend)
    return opened.model


def in_memory(bunch: Bunch) -> object:
    return bunch.live.take_model(bunch.base).model


def test_a_questioner_of_the_bunchs_architecture_needs_no_memory_of_its_own(
    trained: TrainedBunch, tmp_path: Path
) -> None:
    config = config_in(tmp_path, trained.config)
    apart = open_bunch(read_run_config(config))
    assert weights_in_memory(apart, apart.questioner) is not in_memory(apart), "it has one layer"
    base = f"generate.questioner={trained.root}/base"
    shared = open_bunch(read_run_config(config, overrides=[base]))
    assert weights_in_memory(shared, shared.questioner) is in_memory(shared)


def test_a_questioner_of_equal_shapes_and_another_computation_gets_its_own(
    trained: TrainedBunch, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in (trained.root / "base").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "rms_norm_eps": 0.1}))
    config = config_in(tmp_path, trained.config)
    bunch = open_bunch(read_run_config(config, overrides=[f"generate.questioner={other}"]))
    assert weights_in_memory(bunch, bunch.questioner) is not in_memory(bunch)


def test_adapters_on_one_base_share_its_tensors(trained: TrainedBunch, tmp_path: Path) -> None:
    bunch = open_bunch(read_run_config(config_in(tmp_path, trained.config)))
    assert bunch.experts["colours"].checkpoint is bunch.experts["sounds"].checkpoint is bunch.base.checkpoint


@pytest.mark.parametrize("path", ["taken.txt", "taken.txt/inner"])
def test_an_output_that_can_not_be_is_refused(trained: TrainedBunch, tmp_path: Path, path: str) -> None:
    (tmp_path / "taken.txt").write_text("x")
    done = unspoiled("generate", config_in(tmp_path, trained.config), "--set", f"output={path}")
    assert done.code == 6
    assert "taken.txt" in done.err


def test_a_study_in_no_database_is_refused_before_any_work(trained: TrainedBunch, tmp_path: Path) -> None:
    message = refused(tmp_path, trained.config, "runtime.storage=nosql://me:secret@db/search")
    assert "nosql://me:***@db/search is no URL of a database" in message
