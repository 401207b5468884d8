"""`unspoiled search --continue`: more trials in the same study, and everything behind it made anew."""

import json
import pickle
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Finished, unspoiled, unspoiled_process
from trained import FinishedRun, TrainedBunch
from unspoiled.config import SearchConfig, read_recipe, read_run_config
from unspoiled.data import read_rows
from unspoiled.objective import LossRows, WeightedSum
from unspoiled.pipeline import Unwatched, generate, open_bunch, open_run, plan_push, search, write_merged
from unspoiled.pipeline._executors import open_evaluator
from unspoiled.pipeline._strategies import why_nothing_was_added
from unspoiled.search import Proposal, Study, sqlite_url


@pytest.fixture
def copied(finished_run: FinishedRun, tmp_path: Path) -> FinishedRun:
    shutil.copytree(finished_run.directory, tmp_path / "run")
    shutil.copy(finished_run.config, tmp_path / "run.yaml")
    return FinishedRun(tmp_path / "run", tmp_path / "run.yaml", finished_run.command)


def count(directory: Path) -> int:
    with sqlite3.connect(directory / "search" / "study.db") as study:
        (trials,) = study.execute("select count(*) from trials").fetchone()
    study.close()
    return int(trials)


def nothing_to_do(done: Finished, stage: str) -> bool:
    return any(line.split() == [stage, "nothing", "to", "do"] for line in done.err.splitlines())


def test_a_continued_search_adds_trials_and_a_later_run_keeps_them(copied: FinishedRun) -> None:
    before = count(copied.directory)
    more = unspoiled("search", copied.config, "--continue", "9")
    assert more.code == 0, more.err
    after = count(copied.directory)
    assert after >= before + 9, "a generation of evolve; a gradient that has lost patience adds none"
    assert nothing_to_do(more, "generate")
    assert not nothing_to_do(more, "search")
    again = unspoiled("search", copied.config)
    assert again.code == 0, again.err
    assert nothing_to_do(again, "search")
    assert again.out == more.out
    assert count(copied.directory) == after
    whole = unspoiled("run", copied.config)
    assert whole.code == 0, whole.err
    assert nothing_to_do(whole, "search")
    assert not nothing_to_do(whole, "report"), "it shows the search"


def test_another_winner_takes_the_old_ones_results_away_before_it_is_written(copied: FinishedRun) -> None:
    """Nobody sees an old report beside a new merge, also where the process is killed before it is measured."""
    measured = ["results.json", "report.html", "results.csv", "comparisons.csv"]
    before = {name: (copied.directory / name).read_bytes() for name in measured[:1]}
    assert plan_push(copied.directory, "me/merge").files["results.json"] == copied.directory / "results.json"
    bunch = open_bunch(read_run_config(copied.config))
    with open_run(bunch) as opened:
        rows = generate(bunch, opened, Unwatched())
        found = search(bunch, opened, rows, Unwatched())
        other = next(name for name in found.recipes if found.recipes[name] != found.recipes[found.winner])
        write_merged(bunch, opened, found, Unwatched())
        assert all((copied.directory / name).exists() for name in measured), "the same winner"
        write_merged(bunch, opened, replace(found, winner=other), Unwatched())
    assert not [name for name in measured if (copied.directory / name).exists()]
    again = unspoiled("run", copied.config)
    assert again.code == 0, again.err
    assert {name: (copied.directory / name).read_bytes() for name in before} == before
    assert all((copied.directory / name).exists() for name in measured)


def test_typing_it_again_after_a_kill_finishes_what_was_asked_for(copied: FinishedRun) -> None:
    plan = copied.directory / "search" / "plan.json"
    before = count(copied.directory)
    assert unspoiled("search", copied.config, "--continue", "9").code == 0
    after = count(copied.directory)
    assert json.loads(plan.read_text())["granted"] == 0
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"granted": 9}))  # as a killed one leaves it
    again = unspoiled("search", copied.config, "--continue", "9")
    assert again.code == 0, again.err
    assert count(copied.directory) == after > before
    assert unspoiled("search", copied.config, "--continue", "9").code == 0
    assert count(copied.directory) > after, "the next one is another wish"


def test_a_continued_search_that_can_add_nothing_says_why(copied: FinishedRun) -> None:
    more = unspoiled("search", copied.config, "--continue", "1")
    assert more.code == 0, more.err
    assert "evolve added nothing: it makes whole generations, of 9 trials" in more.err
    assert "gradient added nothing" not in more.err
    of_gradient = why_nothing_was_added("gradient", SimpleNamespace(config=SearchConfig(patience=7)))  # type: ignore[arg-type]
    assert of_gradient.startswith("gradient added nothing: it had ended, as 7 checks in a row")


def test_a_changed_objective_is_refused_with_the_difference(copied: FinishedRun) -> None:
    (copied.directory / "run.json").write_text(
        (copied.directory / "run.json").read_text().replace('"safety_tolerance": 0.0', '"safety_tolerance": 0.5')
    )  # as if the run had begun so, and its study otherwise
    done = unspoiled("search", copied.config, "--set", "search.objective.safety_tolerance=0.5", "--continue", "9")
    assert done.code == 8, done.err
    assert "objective.safety_tolerance: 0.0 -> 0.5" in done.err
    assert "--study" in done.err


def test_another_study_is_searched_beside_the_first(copied: FinishedRun, tmp_path: Path) -> None:
    first = count(copied.directory)
    other = unspoiled("search", copied.config, "--study", "second")
    assert other.code == 0, other.err
    assert count(copied.directory) == 2 * first
    assert other.out.partition("\n")[2] == (copied.directory / "recipe.yaml").read_text()
    apart = unspoiled("search", copied.config, "--study", f"sqlite:///{tmp_path}/elsewhere.db")
    assert apart.code == 0, apart.err
    assert (tmp_path / "elsewhere.db").exists()
    assert apart.out == other.out, "the same search"


def test_only_what_has_a_budget_can_go_on(trained: TrainedBunch, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(trained.config.replace("[cocktail, evolve, gradient]", "[grid]"))
    assert unspoiled("search", tmp_path / "run.yaml", "--quiet").code == 0
    done = unspoiled("search", tmp_path / "run.yaml", "--continue", "5")
    assert done.code == 8, done.err
    assert "grid and cocktail have all of their trials" in done.err


def test_a_worker_opens_the_bunch_by_itself(finished_run: FinishedRun) -> None:
    folder = finished_run.directory / "data"
    files = ("safety.jsonl", "expert-colours.jsonl", "expert-sounds.jsonl", "benign.jsonl")
    rows = [row for name in files for row in read_rows(folder / name)]
    config = pickle.loads(pickle.dumps(read_run_config(finished_run.config)))  # as it travels to a worker
    data = LossRows.of_split(rows, "search", refusal_tokens=config.search.objective.refusal_tokens)
    evaluator = open_evaluator(config, {"search": data}, WeightedSum(1.0))
    found = evaluator.evaluate(Proposal(0, read_recipe(finished_run.directory / "search" / "uniform.yaml"), {}))
    assert found is not None
    study = Study(
        sqlite_url(finished_run.directory / "search" / "study.db"), terms=data.terms, objective=recorded(finished_run)
    )
    (trial,) = [trial for trial in study.trials if trial.strategy == "uniform"]
    study.close()
    assert trial.losses is not None
    assert found.losses.expert == pytest.approx(trial.losses.expert, rel=1e-5)


@pytest.mark.slow
def test_workers_of_a_cluster_find_what_this_process_finds(trained: TrainedBunch, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "run.yaml").write_text(trained.config.replace("[cocktail, evolve, gradient]", "[grid, cocktail]"))
    alone = unspoiled("search", tmp_path / "run.yaml", "--quiet")
    assert alone.code == 0, alone.err
    done = unspoiled_process("search", "run.yaml", "--fresh", "--workers", "2", "--quiet", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out == alone.out


def recorded(run: FinishedRun) -> dict[str, object]:
    """Return the objective that the run's study was begun with."""
    with sqlite3.connect(run.directory / "search" / "study.db") as study:
        (text,) = study.execute("select value_json from study_user_attributes where key = 'objective'").fetchone()
    study.close()
    found: dict[str, object] = json.loads(text)
    return found
