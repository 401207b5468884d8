"""One command takes a real (if tiny) bunch to one merged, measured model, and the same command again continues."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from command import Finished, environment, started, unspoiled
from trained import REFUSAL, UNSAFE, FinishedRun, TrainedBunch
from unspoiled.config import read_recipe, read_run_config
from unspoiled.files import read_jsonl
from unspoiled.pipeline import open_bunch

DATA = ["safety", "expert-colours", "expert-sounds", "benign"]
MODELS = ["base", "aligned", "colours", "sounds", "uniform", "cocktail", "evolve", "gradient"]


@pytest.fixture
def copied(finished_run: FinishedRun, tmp_path: Path) -> FinishedRun:
    """A copy of the finished run that a test may change."""
    shutil.copytree(finished_run.directory, tmp_path / "run")
    shutil.copy(finished_run.config, tmp_path / "run.yaml")
    return FinishedRun(tmp_path / "run", tmp_path / "run.yaml", finished_run.command)


def results(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "results.json").read_text())
    return found


def mtimes(directory: Path) -> dict[str, int]:
    """Return when each file was last changed, but for the lock."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "run.lock")
    return {str(path.relative_to(directory)): path.stat().st_mtime_ns for path in files}


def test_a_run_ends_well_and_names_the_report_last(finished_run: FinishedRun) -> None:
    done = finished_run.command
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "Report: run/report.html"
    assert (finished_run.directory / "report.html").is_file()
    assert "Warning" not in done.err
    assert "Traceback" not in done.err
    assert max(map(len, done.out.splitlines())) <= 80
    for name in MODELS:
        assert any(line.lstrip("→ ").startswith(name) for line in done.out.splitlines()), f"no row for {name}"


def test_the_results_have_the_documented_form(finished_run: FinishedRun) -> None:
    found = results(finished_run.directory)["models"]
    assert list(found) == MODELS
    for scores in found.values():
        assert list(scores["rates"]) == ["refusal", "over_refusal", "invalid", "domain:colours", "domain:sounds"]
        assert list(scores["means"]) == ["loss:colours", "loss:sounds"]
        for rate in scores["rates"].values():
            assert list(rate) == ["rate", "low", "high", "n", "families"]
            assert 0 <= rate["low"] <= rate["rate"] <= rate["high"] <= 1
    invalid = {scores["rates"]["invalid"]["n"] for scores in found.values()}
    assert invalid == {8}, "unsafe and harmless prompts together"
    aligned, base = (found[name]["rates"]["refusal"]["rate"] for name in ("aligned", "base"))
    assert aligned > base, "the bunch does what it was taught"


def test_every_merge_is_compared_with_every_parent_and_each_other(finished_run: FinishedRun) -> None:
    rows = results(finished_run.directory)["comparisons"]
    parents, merges = MODELS[1:4], MODELS[4:]
    compared = {frozenset((row["model"], row["baseline"])) for row in rows}
    wanted = {frozenset((merge, parent)) for merge in merges for parent in parents}
    wanted |= {frozenset((a, b)) for a in merges for b in merges if a != b}
    assert compared == wanted
    winner = (finished_run.directory / "recipe.yaml").read_bytes()
    chosen = next(
        name for name in merges if (finished_run.directory / "search" / f"{name}.yaml").read_bytes() == winner
    )
    first = {row["baseline"] for row in rows if row["family"] == "the chosen merge"}
    assert first == {"uniform", *parents}
    assert {row["model"] for row in rows if row["family"] == "the chosen merge"} == {chosen}


def test_the_winners_optimism_and_the_splits_are_in_the_results(finished_run: FinishedRun) -> None:
    found = results(finished_run.directory)
    assert [row["measure"] for row in found["optimism"]] == [
        "refusal", "over_refusal", "agreement:colours", "agreement:sounds"
    ]  # fmt: skip
    for row in found["optimism"]:
        assert row["difference"] == pytest.approx(row["selection"]["rate"] - row["test"]["rate"])
        assert row["low"] <= row["difference"] <= row["high"]
    rows = [row for name in DATA for row in read_jsonl(finished_run.directory / "data" / f"{name}.jsonl")]
    assert found["splits"] == {
        "search": sum(row["split"] == "search" for row in rows),
        "selection": sum(row["split"] == "selection" for row in rows),
        "test": 16,
    }
    assert "optimism" in finished_run.command.out


def test_the_data_are_what_the_models_wrote(finished_run: FinishedRun) -> None:
    safety = read_jsonl(finished_run.directory / "data" / "safety.jsonl")
    assert safety
    assert {row["answered_by"] for row in safety} == {"aligned"}, "the others comply"
    assert {row["response"] for row in safety} == {REFUSAL}
    assert {row["group"] for row in safety} <= set(UNSAFE)
    for domain in ("colours", "sounds"):
        rows = read_jsonl(finished_run.directory / "data" / f"expert-{domain}.jsonl")
        assert rows
        assert {(row["asked_by"], row["answered_by"], row["group"]) for row in rows} == {(domain, domain, domain)}


def test_the_merged_checkpoint_loads_and_is_the_recipes(finished_run: FinishedRun) -> None:
    merged = finished_run.directory / "merged"
    model = AutoModelForCausalLM.from_pretrained(merged).eval()
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(merged).chat_template
    bunch = open_bunch(read_run_config(finished_run.config))
    live = bunch.live.take_recipe(read_recipe(finished_run.directory / "recipe.yaml")).model
    ids = torch.tensor([tokenizer("How do bombs work?")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, live(ids).logits)
    card = (merged / "README.md").read_text()
    assert "evolve" in card or "cocktail" in card


def test_the_search_is_in_a_study(finished_run: FinishedRun) -> None:
    with sqlite3.connect(finished_run.directory / "search" / "study.db") as study:
        (trials,) = study.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()
    study.close()
    # four models on two splits; uniform; cocktail; one generation of six coefficients; two checks of a descent
    assert trials == 4 * 2 + 1 + 1 + 9 + 2


def test_the_same_command_again_does_nothing_and_says_so(copied: FinishedRun) -> None:
    before = mtimes(copied.directory)
    again = unspoiled("run", copied.config)
    assert again.code == 0, again.err
    assert mtimes(copied.directory) == before
    for stage in ("generate", "search", "merge", "evaluate", "audit", "report"):
        assert any(line.split() == [stage, "nothing", "to", "do"] for line in again.err.splitlines()), again.err
    assert again.out.splitlines()[:-2] == copied.command.out.splitlines()[:-2], "the table again"


def test_lost_products_are_made_again_and_nothing_else(copied: FinishedRun) -> None:
    whole = results(copied.directory)
    before = mtimes(copied.directory)
    (copied.directory / "evaluation" / "uniform.jsonl").unlink()
    shutil.rmtree(copied.directory / "merged")
    assert unspoiled("run", copied.config, "--quiet").code == 0
    assert results(copied.directory) == whole
    changed = {name for name, time in mtimes(copied.directory).items() if before.get(name) != time}
    assert {name for name in changed if not name.startswith("merged/")} == {"evaluation/uniform.jsonl", "steps.json"}


MOMENTS = [
    "generate:begins:0",
    "generate:aligned answers safety:6",
    "generate:sounds questions:4",
    "generate:base answers benign:5",
    "search:models alone:3",
    "search:uniform trials:1",
    "search:evolve trials:5",
    "search:gradient trials:4",
    "search:evolve finalists:1",
    "merge:MB:0",
    "evaluate:aligned: unsafe:4",
    "evaluate:evolve: harmless:4",
    "report:begins:0",
]


@pytest.mark.parametrize(
    "moments", [MOMENTS[7:11:3], pytest.param(MOMENTS, marks=pytest.mark.slow)], ids=["two", "all"]
)
def test_killed_anywhere_a_run_continues_to_the_same_results(
    trained: TrainedBunch, finished_run: FinishedRun, tmp_path: Path, moments: list[str]
) -> None:
    (tmp_path / "run.yaml").write_text(trained.config)
    script = Path(__file__).with_name("killed_at.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "run.yaml", *moments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout.split() == ["-9"] * len(moments) + ["0"], done.stderr
    assert results(tmp_path / "run") == results(finished_run.directory)
    for name in ("data/safety.jsonl", "data/expert-colours.jsonl", "recipe.yaml", "merged/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (finished_run.directory / name).read_bytes(), name
    assert sorted(mtimes(tmp_path / "run")) == sorted(mtimes(finished_run.directory)), "rubbish of killed processes"


def test_ctrl_c_and_a_second_process(trained: TrainedBunch, finished_run: FinishedRun, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(trained.config)
    with started("run", "run.yaml", cwd=tmp_path) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "generate: " in line:
                break
        first.send_signal(signal.SIGSTOP)  # it works as long as the second needs
        second = unspoiled("run", tmp_path / "run.yaml")
        assert second.code == 6
        assert f"is in use by process {first.pid}" in second.err
        first.send_signal(signal.SIGINT)
        first.send_signal(signal.SIGCONT)
        _, rest = first.communicate(timeout=60)
    assert first.returncode == 130
    assert rest.splitlines()[-1] == "Stopped. What is done is kept: run the same command again to continue."
    assert "Traceback" not in rest
    assert unspoiled("run", tmp_path / "run.yaml", "--quiet").code == 0
    assert results(tmp_path / "run") == results(finished_run.directory)


def test_a_changed_config_is_refused_with_the_difference(copied: FinishedRun) -> None:
    before = mtimes(copied.directory)
    refused = unspoiled("run", copied.config, "--set", "search.objective.alpha=0.7")
    assert refused.code == 6
    assert "-      alpha: 0.3" in refused.err
    assert "+      alpha: 0.7" in refused.err
    assert "--fresh" in refused.err
    assert mtimes(copied.directory) == before
    assert unspoiled("run", copied.config, "--quiet", "--set", "runtime.batch_size=7").code == 0, "of no consequence"
    fresh = unspoiled("generate", copied.config, "--set", "generate.safety_questions=4", "--fresh", "--quiet")
    assert fresh.code == 0, fresh.err
    assert not (copied.directory / "results.json").exists(), "results of the discarded run"
    assert unspoiled("generate", copied.config, "--set", "generate.safety_questions=4", "--quiet").code == 0


def test_a_changed_input_is_refused_by_name(trained: TrainedBunch, copied: FinishedRun, tmp_path: Path) -> None:
    mine = tmp_path / "unsafe.jsonl"
    shutil.copy(trained.root / "unsafe.jsonl", mine)
    config = copied.config
    config.write_text(trained.config.replace(str(trained.root / "unsafe.jsonl"), str(mine)))
    assert unspoiled("generate", config, "--fresh", "--quiet").code == 0
    mine.write_text(mine.read_text() + '{"prompt": "One more?"}\n')
    refused: Finished = unspoiled("generate", config)
    assert refused.code == 6
    assert "file unsafe: " in refused.err
    assert "--fresh" in refused.err
