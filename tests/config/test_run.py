"""A run's config is checked whole before any work: what is wrong, on which line, and what to write instead."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from unspoiled.config import RunConfig, as_plain, read_run_config, write_starter
from unspoiled.errors import ConfigError

GOOD = """\
bunch:
  base: models/base
  experts:
    aligned: {model: models/aligned}
    math: {model: models/base+models/math, domain: arithmetic}
domains:
  arithmetic: {examples: examples.jsonl, test: test.jsonl}
generate: {questioner: models/questioner}
search: {trials: 10}
evaluate: {unsafe: unsafe.jsonl, harmless: harmless.jsonl}
output: runs/one
"""


def write(directory: Path, text: str = GOOD) -> Path:
    path = directory / "run.yaml"
    path.write_text(text)
    return path


def complaints(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_run_config(path, overrides=overrides)
    return str(caught.value).splitlines()


def test_what_is_not_said_is_the_papers_setting(tmp_path: Path) -> None:
    config = read_run_config(write(tmp_path))
    assert config.generate.safety_questions == config.generate.expert_questions == 1000
    assert config.search.objective.alpha == 0.3
    assert config.search.temperature == 1.0
    assert config.generate.max_new_tokens == 512


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("search.trials=0", "search.trials: must be 1 or more (got 0)"),
        ("search.trials=2.5", "search.trials: must be a whole number (got 2.5)"),
        ("search.objective.alpha=-0.1", "search.objective.alpha: must be 0 or more (got -0.1)"),
        ("search.objective.kind=constraint", "did you mean 'constrained'?"),
        ("search.objective.safety_tolerance=-1", "must be 0 or more (got -1)"),
        ("search.temperature=0", "search.temperature: must be greater than 0 (got 0)"),
        ("search.step=0", "search.step: must be greater than 0 (got 0)"),
        ("search.finalists=0", "search.finalists: must be 1 or more (got 0)"),
        ("search.parameters.weight=[1.0, 1.0]", "parameters.weight [1.0, 1.0] is not [smallest, largest]"),
        ("search.parameters={}", "search.parameters: must not be empty"),
        ("search.fixed.weight=0.5", "'weight' is under both `parameters` and `fixed`"),
        ("generate.benign_questions=-1", "generate.benign_questions: must be 0 or more (got -1)"),
        ("runtime.workers=-1", "runtime.workers: must be 0 or more (got -1)"),
        ("search.strategies=[]", "search.strategies: must not be empty"),
        ("search.strategies=[evolv]", "did you mean 'evolve'?"),
        ("search.granularity=layers", "did you mean 'layer'?"),
        ("generate.selection_share=0", "generate.selection_share: must be greater than 0 (got 0)"),
        ("generate.selection_share=1", "generate.selection_share: must be less than 1 (got 1)"),
        ("generate.safety_questions=0", "generate.safety_questions: must be 1 or more (got 0)"),
        ("generate.seed=-1", "generate.seed: must be 0 or more (got -1)"),
        ("merge.dtype=int8", "merge.dtype: must be "),
        ("evaluate.limit=0", "evaluate.limit: must be 1 or more (got 0)"),
        ("runtime.batch_size=0", "runtime.batch_size: must be 1 or more or 'auto' (got 0)"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_key(tmp_path: Path, override: str, complaint: str) -> None:
    found = complaints(write(tmp_path), override)
    assert complaint in found[0]
    assert f"--set {override}" in found[-1], "the file's line says something else: the override must be named"


@pytest.mark.parametrize("strategies", ["evolve, evolve", "cocktail, evolve, cocktail"])
def test_a_strategy_named_twice_is_refused(tmp_path: Path, strategies: str) -> None:
    # its second search would be taken for a replay of the first
    assert "twice" in complaints(write(tmp_path), f"search.strategies=[{strategies}]")[0]


def test_an_unknown_key_is_refused_with_its_line_and_the_likely_one(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("search: {trials: 10}", "search:\n  trails: 10"))
    assert complaints(path) == [f"{path}:10: search.trails: unknown key; did you mean 'trials'?"]


def test_every_problem_of_every_section_comes_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("trials: 10", "steps: -1").replace("unsafe: unsafe.jsonl, ", "").replace("output", "outputs")
    path = write(tmp_path, text)
    found = complaints(path)
    assert [re.sub(r"^.*?run\.yaml:(\d+): ([\w.]+).*$", r"\1 \2", line) for line in found] == [
        "1 output",
        "9 search.steps",
        "10 evaluate.unsafe",
        "11 outputs",
    ]


def test_sections_that_contradict_each_other_are_named_together(tmp_path: Path) -> None:
    text = """\
bunch:
  base: models/base
  experts:
    uniform: {model: models/aligned}
    math: {model: models/math, domain: arithmetic}
    more: {model: models/more, domain: arithmetic}
    bio: {model: models/bio, domain: biology}
  safety_expert: alinged
domains:
  arithmetic: {examples: examples.jsonl, test: test.jsonl}
  law: {examples: examples.jsonl, test: test.jsonl}
generate: {questioner: models/questioner}
evaluate: {unsafe: unsafe.jsonl, harmless: harmless.jsonl}
output: runs/one
"""
    path = write(tmp_path, text)
    assert complaints(path) == [
        f"{path}:4: bunch.experts.uniform: 'uniform' is a name of ours: rename it",
        f"{path}:7: bunch.experts.bio.domain: 'biology' is not among the domains ['arithmetic', 'law']",
        f"{path}:8: bunch.safety_expert: 'alinged' is not among the experts ['uniform', 'math', 'more', 'bio']",
        f"{path}:10: domains.arithmetic: the experts ['math', 'more'] have `domain: arithmetic`: give each domain "
        "exactly one expert",
        f"{path}:11: domains.law: no expert has `domain: law`: give each domain exactly one expert",
    ]


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "a b", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    # experts and domains name files in the run directory
    text = GOOD.replace("aligned: {", f"{json.dumps(name)}: {{")
    assert "bunch.experts" in complaints(write(tmp_path, text))[0]


def test_overrides_replace_what_the_file_says_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path)
    plain = as_plain(read_run_config(path))
    changed = as_plain(
        read_run_config(
            path,
            overrides=[
                "search.trials=20",
                "search.parameters.weight=[-1, 1e0]",
                "bunch.experts.math.model=models/other",
                "runtime={batch_size: 2}",  # a whole section
                "output=runs/two",
                "search.trials=30",  # the last word counts
            ],
        )
    )
    assert changed["search"] == {**plain["search"], "trials": 30, "parameters": {"weight": [-1.0, 1.0]}}
    assert changed["bunch"]["experts"]["math"] == {"model": "models/other", "domain": "arithmetic"}
    assert changed["runtime"] == {**plain["runtime"], "batch_size": 2}
    assert changed["output"] == "runs/two"
    assert {k: v for k, v in changed.items() if k not in {"search", "bunch", "runtime", "output"}} == {
        k: v for k, v in plain.items() if k not in {"search", "bunch", "runtime", "output"}
    }


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("serch.trials=20", "unknown key; did you mean 'search'?"),
        ("search.trails=20", "unknown key; did you mean 'trials'?"),
        ("search.trials", "write it as section.key=value"),
        ("=20", "write it as section.key=value"),
        ("search.trials=", "empty"),
        ("search.trials=[1", "not valid YAML"),
        ("search=20", "search: must be a block of `key: value` lines (got 20)"),
        ("output.path=x", "'output' is not a section"),
        ("search.trials.deep=1", "'trials' is not a section"),
    ],
)
def test_a_bad_override_is_refused_by_name(tmp_path: Path, override: str, complaint: str) -> None:
    found = "\n".join(complaints(write(tmp_path), override))
    assert complaint in found
    assert "--set" in found


def test_paths_start_from_the_configs_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    path = write(tmp_path / "inner")
    monkeypatch.chdir(tmp_path)
    config = read_run_config(Path("inner/run.yaml"))
    assert config.directory == path.parent
    assert config.output_directory == tmp_path / "inner" / "runs" / "one"
    assert config.locate(config.evaluate.unsafe) == tmp_path / "inner" / "unsafe.jsonl"
    assert config.locate("/elsewhere/x") == Path("/elsewhere/x")


def test_the_safety_expert_is_the_first_without_a_domain_unless_stated(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert read_run_config(path).safety_expert == "aligned"
    assert read_run_config(path, overrides=["bunch.safety_expert=math"]).safety_expert == "math"
    assert read_run_config(path).domain_experts == {"arithmetic": "math"}


def test_the_starter_is_a_valid_config_whose_comments_tell_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    written = write_starter(path)
    assert written == [path, tmp_path / "unspoiled.schema.json"]
    config = as_plain(read_run_config(path))
    text = path.read_text()
    assert text.splitlines()[0] == "# yaml-language-server: $schema=unspoiled.schema.json"
    commented = re.sub(r"(?m)^( *)# ([\w]+:( .*)?|  \w+: .*)$", r"\1\2", text)  # every option that is commented out
    spelled_out = as_plain(read_run_config(write(tmp_path, commented)))
    for option in ("limit", "tasks_folder"):
        spelled_out["evaluate"][option] = None  # an example there, and said to be
    for option in ("benign_questioner", "templates", "languages", "consistency"):
        spelled_out["generate"][option] = None
    spelled_out["runtime"]["ray_address"] = spelled_out["runtime"]["storage"] = None
    spelled_out["domains"]["math"]["description"] = spelled_out["bunch"]["safety_expert"] = None
    assert spelled_out == config, "a value shown after a # is not the default"
    for option in every_option(RunConfig.model_json_schema()):
        assert re.search(rf"(?m)^[ #]*{option}:", text), f"the starter does not mention {option}"


def every_option(schema: dict[str, Any]) -> set[str]:
    return {name for part in [schema, *schema["$defs"].values()] for name in part.get("properties", {})}


def test_the_schema_beside_the_starter_describes_it(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    path, schema = write_starter(tmp_path / "run.yaml")
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(schema.read_text()))


def test_a_starter_never_overwrites(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(ConfigError, match="exists"):
        write_starter(path)
    assert path.read_text() == GOOD
    assert not (tmp_path / "unspoiled.schema.json").exists()
    with pytest.raises(ConfigError, match="No such file"):
        write_starter(tmp_path / "no" / "run.yaml")


def test_a_domain_is_not_named_like_the_safety_set(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("arithmetic", "safety"))
    assert complaints(path) == [f"{path}:7: domains.safety: 'safety' is a name of ours: rename it"]


@pytest.mark.parametrize("null", ["null", "~", " null "])
def test_set_can_take_a_value_away(tmp_path: Path, null: str) -> None:
    path = write(tmp_path, GOOD.replace("harmless: harmless.jsonl", "harmless: harmless.jsonl, limit: 5"))
    assert read_run_config(path).evaluate.limit == 5
    assert read_run_config(path, overrides=[f"evaluate.limit={null}"]).evaluate.limit is None
