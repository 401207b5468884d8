"""Files of several recipes: each stage comes after those it uses, whatever the documents' order."""

from pathlib import Path

import pytest

from unspoiled.config import parse_recipes, read_recipes, recipes_to_yaml, stage_name
from unspoiled.errors import ConfigError


def stage(name: str | None, *models: str, more: str = "") -> str:
    named = f"name: {name}\n" if name else ""
    return f"{named}merge_method: linear\nmodels: [{', '.join(f'{{model: {model}}}' for model in models)}]\n{more}"


def order(*documents: str) -> list[str | None]:
    return [recipe.name for recipe in parse_recipes("---\n".join(documents), "r.yaml")]


def test_stages_keep_the_documents_order_where_it_fits() -> None:
    assert order(stage("a", "x"), stage("b", "x"), stage("c", "a", "b")) == ["a", "b", "c"]
    assert order(stage("a", "x")) == ["a"]


def test_a_stage_comes_after_those_it_uses() -> None:
    assert order(stage("c", "b"), stage("b", "a"), stage("a", "x")) == ["a", "b", "c"]
    assert order(stage("a", "x"), stage("b", "d"), stage("c", "x"), stage("d", "c")) == ["a", "c", "d", "b"]


def test_the_unnamed_stage_is_the_last() -> None:
    assert order(stage(None, "x"), stage("a", "x")) == ["a", None]
    assert order(stage("a", "x"), stage(None, "a")) == ["a", None]


@pytest.mark.parametrize(
    "use",
    [
        "base_model: late\n",
        "tokenizer_source: late\n",
        "tokenizer: {source: late}\n",
        "tokenizer: {tokens: {x: {source: late}}}\n",
        "tokenizer: {tokens: {x: {source: {kind: model_token, model: late, token_id: 1}}}}\n",
    ],
)
def test_a_stage_is_used_wherever_a_model_is_named(use: str) -> None:
    assert order(stage("early", "x", more=use), stage("late", "x")) == ["late", "early"]


def test_a_stage_is_used_by_its_slices_and_with_an_adapter() -> None:
    sliced = "name: early\nmerge_method: passthrough\nslices: [{sources: [{model: late, layer_range: [0, 1]}]}]\n"
    assert order(sliced, stage("late", "x")) == ["late", "early"]
    assert order(stage("early", "late+./adapter"), stage("late", "x")) == ["late", "early"]
    assert stage_name("late@main + hub/lora@v1") == "late"


def test_only_models_are_looked_up_among_the_stages() -> None:
    # a stage with the name of a method isn't used by every recipe of that method
    assert order(stage("a", "x"), stage("linear", "a")) == ["a", "linear"]


def test_a_file_of_stages_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "stages.yaml"
    path.write_text("---\n".join([stage(None, "a"), stage("a", "x")]))
    stages = read_recipes(path)
    assert [recipe.name for recipe in stages] == ["a", None]
    assert recipes_to_yaml(stages) == (
        "name: a\nmerge_method: linear\nmodels:\n  - model: x\n---\nmerge_method: linear\nmodels:\n  - model: a\n"
    )


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([stage("a", "x"), stage("a", "y")], "r.yaml:5: name: the recipe in line 1 has the name 'a' too"),
        ([stage(None, "x"), stage(None, "y")], "r.yaml:4: no `name`, like the recipe in line 1"),
        ([stage("a", "a")], "r.yaml:1: name: the recipe uses what it makes: 'a' -> 'a'"),
        (
            [stage(None, "c"), stage("b", "c"), stage("c", "b")],
            "r.yaml:4: name: the recipe uses what it makes: 'b' -> 'c' -> 'b'",
        ),
        ([stage("a", "x"), ""], "r.yaml:5: an empty document: remove it"),
        ([stage("a", "x"), stage("b", "x", more="dtype: f4\n")], "r.yaml:8: dtype: must be 'float32'"),
    ],
)
def test_one_line_says_what_is_refused(documents: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipes("---\n".join(documents), "r.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(expected)


def test_the_faults_of_all_stages_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        order(stage("a", "x", more="dtype: f4\n"), stage("b", "x", more="dtype: f8\n"))
    assert [line.split(": must")[0] for line in str(caught.value).splitlines()] == [
        "r.yaml:4: dtype",
        "r.yaml:9: dtype",
    ]
