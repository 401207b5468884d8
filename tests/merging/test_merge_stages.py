"""Recipes of several stages: what one makes, later ones merge, and only the last one's model stays."""

import hashlib
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from command import Finished, started, unspoiled
from tiny import Bunch, tiny_adapter, tiny_expert
from unspoiled.checkpoints import RECIPE_NAME
from unspoiled.config import read_recipes
from unspoiled.files import MANIFEST_NAME

ABSENT = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def other(bunch: Bunch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_expert(bunch.base, tmp_path_factory.mktemp("other") / "other", seed=8)


def linear(name: str, *models: object, more: str = "") -> str:
    listed = "".join(f"  - {{model: {model}, parameters: {{weight: {n + 1}}}}}\n" for n, model in enumerate(models))
    return f"{f'name: {name}' if name else '# last'}\nmerge_method: linear\ndtype: float32\nmodels:\n{listed}{more}"


def merge(place: Path, *recipes: str, out: str = "out") -> Finished:
    place.mkdir(exist_ok=True)
    (place / "recipe.yaml").write_text("---\n".join(recipes))
    return unspoiled("merge", place / "recipe.yaml", place / out, "--quiet")


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def assert_same(one: Path, two: Path) -> None:
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_three_stages_are_the_three_merges_one_after_the_other(bunch: Bunch, other: Path, tmp_path: Path) -> None:
    """Also where the documents stand in another order, and one stage is used by two."""
    first = linear("first", bunch.base, bunch.full)
    second = linear("second", "first", other)
    last = linear("", "second", "first", bunch.base)
    done = merge(tmp_path / "at_once", last, second, first)
    assert done.code == 0, done.err
    assert names(tmp_path / "at_once") == {"recipe.yaml", "out"}
    one_by_one = tmp_path / "one_by_one"
    assert merge(one_by_one, linear("", bunch.base, bunch.full), out="first").code == 0
    assert merge(one_by_one, linear("", "./first", other), out="second").code == 0
    assert merge(one_by_one, linear("", "./second", "./first", bunch.base), out="out").code == 0
    assert_same(tmp_path / "at_once" / "out", one_by_one / "out")


def test_the_recipe_written_holds_all_stages_and_merges_to_the_same_bytes(
    bunch: Bunch, other: Path, tmp_path: Path
) -> None:
    recipes = (linear("first", bunch.base, bunch.full), linear("", "first", other))
    assert merge(tmp_path / "one", *recipes).code == 0
    written = tmp_path / "one" / "out" / RECIPE_NAME
    assert read_recipes(written) == read_recipes(tmp_path / "one" / "recipe.yaml")
    assert ".staging" not in written.read_text(), "no name of a directory that is gone"
    assert unspoiled("merge", written, tmp_path / "again", "--quiet").code == 0
    for path in (tmp_path / "one" / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_an_adapter_lies_on_what_a_stage_makes(bunch: Bunch, other: Path, tmp_path: Path) -> None:
    """Whatever the output is called: + and @ part the names of models from adapters and revisions."""
    adapter = tiny_adapter(bunch.base, tmp_path / "lora", seed=6)
    first = linear("first", bunch.base, bunch.full)
    done = merge(tmp_path / "place", first, linear("", f"first+{adapter}", other), out="a+b@c")
    assert done.code == 0, done.err
    assert merge(tmp_path / "steps", linear("", bunch.base, bunch.full), out="first").code == 0
    assert unspoiled("materialize", f"{tmp_path / 'steps' / 'first'}+{adapter}", tmp_path / "mid", "--quiet").code == 0
    assert merge(tmp_path / "steps", linear("", tmp_path / "mid", other)).code == 0
    ours, theirs = weights(tmp_path / "place" / "a+b@c"), weights(tmp_path / "steps" / "out")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-6, atol=1e-7)


def test_a_stage_is_a_base_a_slice_and_a_tokenizer(bunch: Bunch, other: Path, tmp_path: Path) -> None:
    first = linear("first", bunch.base, bunch.full, more="chat_template: chatml\n")
    stack = (
        "merge_method: passthrough\nbase_model: first\nslices:\n"
        "  - sources: [{model: first, layer_range: [0, 2]}]\n"
        f"  - sources: [{{model: {other}, layer_range: [1, 2]}}]\n"
        "tokenizer_source: first\n"
    )
    done = merge(tmp_path / "place", first, stack)
    assert done.code == 0, done.err
    assert merge(tmp_path / "steps", first.replace("name: first", "# alone"), out="first").code == 0
    assert merge(tmp_path / "steps", stack.replace("first", "./first")).code == 0
    assert_same(tmp_path / "place" / "out", tmp_path / "steps" / "out")
    template = (tmp_path / "place" / "out" / "chat_template.jinja").read_text()
    assert template == (tmp_path / "steps" / "first" / "chat_template.jinja").read_text()


def test_an_error_in_a_later_stage_leaves_nothing(bunch: Bunch, tmp_path: Path) -> None:
    broken = tiny_expert(bunch.base, tmp_path / "broken", seed=9)
    tensors = weights(broken)
    tensors[ABSENT][0, 0] = torch.nan
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    done = merge(tmp_path / "place", linear("first", bunch.base, bunch.full), linear("", "first", broken))
    assert done.code == 3
    assert f"/broken: tensor '{ABSENT}' has 1 NaN" in done.err
    assert names(tmp_path / "place") == {"recipe.yaml"}


@pytest.mark.parametrize(
    ("last", "complaint"),
    [
        ("merge_method: liner\nmodels: [{model: first}]\n", "liner"),
        (linear("", "first", "./nowhere"), "nowhere"),
        ("merge_method: linear\nmodels: [{model: first, parameters: {wieght: 1}}]\n", "Did you mean 'weight'"),
        ("merge_method: task_arithmetic\nmodels: [{model: first, parameters: {weight: 1}}]\n", "needs a base_model"),
    ],
)
def test_what_a_later_stage_lacks_is_said_before_the_first(
    bunch: Bunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, complaint: str
) -> None:
    from unspoiled.merging import stages

    monkeypatch.setattr(stages, "merge_to_directory", lambda *_args, **_options: pytest.fail("work was begun"))
    done = merge(tmp_path / "place", linear("first", bunch.base, bunch.full), last)
    assert done.code in (2, 3), done.err
    assert complaint in done.err
    assert names(tmp_path / "place") == {"recipe.yaml"}


def test_an_output_that_is_not_ours_is_said_before_the_first_stage(
    bunch: Bunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unspoiled.merging import stages

    monkeypatch.setattr(stages, "merge_to_directory", lambda *_args, **_options: pytest.fail("work was begun"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    done = merge(tmp_path, linear("first", bunch.base, bunch.full), linear("", "first"))
    assert done.code == 6
    assert "mine.txt" in done.err
    assert names(tmp_path) == {"recipe.yaml", "out"}


def test_what_a_killed_merge_left_is_swept_by_the_next(bunch: Bunch, other: Path, tmp_path: Path) -> None:
    """Killed when the first stage's model is complete beside the output."""
    recipes = (linear("first", bunch.base, bunch.full), linear("", "first", other))
    (tmp_path / "recipe.yaml").write_text("---\n".join(recipes))
    with started("merge", "recipe.yaml", "out", cwd=tmp_path) as process:
        while process.poll() is None and not list(tmp_path.glob(f".out.staging-*/first/{MANIFEST_NAME}")):
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".out.staging-*")), "it was killed in time"
    assert not (tmp_path / "out").exists()
    assert merge(tmp_path, *recipes).code == 0
    assert names(tmp_path) == {"recipe.yaml", "out"}
    whole = hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest()
    assert whole in (tmp_path / "out" / MANIFEST_NAME).read_text()
