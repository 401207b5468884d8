"""Each command alone: what it prints, where it leaves its product, how it fails."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from command import unspoiled
from tiny import Bunch
from trained import FinishedRun
from unspoiled.cli._main import cli
from unspoiled.config import read_recipe

COMMANDS = [
    *("run", "check", "generate", "search", "evaluate", "audit", "report", "compare", "push"),
    *("merge", "materialize", "extract-lora", "statistics", "init", "guards"),
]


def test_the_commands_are_these() -> None:
    assert sorted(cli.commands) == sorted(COMMANDS)


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=["unspoiled", *COMMANDS])
def test_help_fits_80_columns(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = unspoiled(*arguments, "--help")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert "Usage:" in done.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["rnu"], "No such command 'rnu'"), (["run"], "Missing argument 'CONFIG'"), (["run", "x", "--frehs"], "--frehs")],
)
def test_a_mistyped_command_says_so(arguments: list[str], complaint: str) -> None:
    done = unspoiled(*arguments)
    assert done.code == 2
    assert complaint in done.err


def test_a_config_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = unspoiled("check", tmp_path / "run.yaml")
    assert done.code == 2
    assert done.err.startswith(f"Error: {tmp_path}/run.yaml: can't be read")
    assert "Traceback" not in done.err


def test_init_writes_a_config_that_check_understands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = unspoiled("init")
    assert (done.code, done.out.splitlines()) == (0, ["run.yaml", "unspoiled.schema.json"])
    assert (tmp_path / "run.yaml").read_text().startswith("# yaml-language-server: $schema=unspoiled.schema.json\n")
    assert json.loads((tmp_path / "unspoiled.schema.json").read_text())["title"] == "RunConfig"
    checked = unspoiled("check", "run.yaml")
    assert checked.code == 4, "only the models and files of the example are missing"
    assert "path/to/base' does not exist" in checked.err
    (tmp_path / "run.yaml").write_text("mine")
    again = unspoiled("init")
    assert again.code == 2
    assert "run.yaml exists" in again.err
    assert (tmp_path / "run.yaml").read_text() == "mine"


def test_check_says_what_a_run_would_need(finished_run: FinishedRun) -> None:
    done = unspoiled("check", finished_run.config)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("3 experts on one base, 0.1 M parameters, ")
    assert done.out.splitlines()[1:] == ["6 coefficients: task_arithmetic by layer.", "No problem found."]


def test_the_stages_alone_end_where_a_whole_run_ends(finished_run: FinishedRun, tmp_path: Path) -> None:
    shutil.copy(finished_run.config, tmp_path / "run.yaml")
    config, directory = tmp_path / "run.yaml", tmp_path / "run"
    generated = unspoiled("generate", config)
    assert (generated.code, generated.out) == (0, f"{directory / 'data'}\n")
    assert not (directory / "search").exists()
    searched = unspoiled("search", config)
    assert searched.code == 0, searched.err
    assert re.search(r"^generate +nothing to do$", searched.err, re.MULTILINE)
    head, _, recipe = searched.out.partition("\n")
    assert head in {f"# best on the selection split: {name}" for name in ("cocktail", "evolve", "gradient")}
    assert recipe == (directory / "recipe.yaml").read_text() == (finished_run.directory / "recipe.yaml").read_text()
    assert not (directory / "merged").exists()
    evaluated = unspoiled("run", config, "--until", "evaluate")
    assert evaluated.code == 0, evaluated.err
    assert (directory / "results.json").read_text() == (finished_run.directory / "results.json").read_text()
    assert not (directory / "report.html").exists()
    reported = unspoiled("report", config, "--quiet")
    assert (reported.code, reported.out, reported.err) == (0, f"{directory / 'report.html'}\n", "")
    whole = unspoiled("run", config, "--quiet")
    tables = evaluated.out.splitlines()[:-1]  # the last line says where the merged checkpoint is
    assert whole.out.splitlines()[: len(tables)] == tables


def test_the_stages_that_a_run_can_end_with_are_the_pipelines() -> None:
    from unspoiled.cli._stages import _STAGES
    from unspoiled.pipeline import STAGES

    assert _STAGES == STAGES


def test_the_reports_command_can_be_typed_again(finished_run: FinishedRun, tmp_path: Path) -> None:
    place = tmp_path / "a place"
    shutil.copytree(finished_run.directory, place / "run")
    shutil.copy(finished_run.config, place / "run.yaml")
    (place / "run" / "report.html").unlink()
    same = "search.strategies=[cocktail, evolve, gradient]"
    assert unspoiled("run", place / "run.yaml", "--set", same, "--quiet").code == 0
    page = (place / "run" / "report.html").read_text()
    typed = f"unspoiled run '{place}/run.yaml' --set '{same}'"
    assert typed in page.replace("&#39;", "'").replace("&#x27;", "'")


def test_merge_follows_a_recipe_to_a_directory(bunch: Bunch, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    base = os.path.relpath(bunch.base, tmp_path)  # relative to the recipe, not to where one stands
    recipe.write_text(
        f"merge_method: task_arithmetic\nbase_model: {base}\ndtype: float32\n"
        f"models:\n  - model: {base}+{bunch.aligned}\n    parameters: {{weight: 0.5}}\n"
    )
    done = unspoiled("merge", recipe, tmp_path / "out")
    assert (done.code, done.out) == (0, f"{tmp_path / 'out'}\n"), done.err
    assert (tmp_path / "out" / "unspoiled.json").is_file()
    assert read_recipe(tmp_path / "out" / "mergekit_config.yml").models[0].parameters == {"weight": 0.5}


def test_merge_refuses_to_write_over_what_is_not_ours(bunch: Bunch, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"merge_method: linear\nmodels:\n  - model: {bunch.base}\n    parameters: {{weight: 1}}\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    done = unspoiled("merge", recipe, tmp_path / "out", "--quiet")
    assert done.code == 6
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt", "out", "recipe.yaml"]


def test_materialize_writes_an_adapter_into_the_weights(
    bunch: Bunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = unspoiled("materialize", f"{bunch.base}+{bunch.aligned}", "full", "--dtype", "float32")
    assert (done.code, done.out) == (0, "full\n"), done.err
    written, base = (load_file(path / "model.safetensors") for path in (tmp_path / "full", bunch.base))
    assert written.keys() == base.keys()
    assert not written["model.layers.0.mlp.up_proj.weight"].equal(base["model.layers.0.mlp.up_proj.weight"])
    assert written["model.embed_tokens.weight"].equal(base["model.embed_tokens.weight"])


def test_a_full_disk_is_a_message_not_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "run.yaml"))

    monkeypatch.setattr("unspoiled.config.write_starter", full)
    done = unspoiled("init", tmp_path / "run.yaml")
    assert done.code == 7
    assert done.err == (
        f"Error: {tmp_path}/run.yaml: No space left on device. What is done is kept: free some space and run the same "
        "command again.\n"
    )
