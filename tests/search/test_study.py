"""A study is the search's memory: killed anywhere, the search goes on as if nothing had happened."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from landscapes import Bowl, losses, space, weights

from unspoiled.errors import SearchError
from unspoiled.objective import Losses
from unspoiled.search import Cocktail, Evolve, Grid, Study, Trial, best_trials, sqlite_url, uniform


def storage(directory: Path) -> str:
    return f"sqlite:///{directory / 'study.db'}"


def essence(trials: list[Trial]) -> list[Trial]:
    """Return the trials without what a clock decides."""
    return [replace(trial, merge_seconds=0.0, loss_seconds=0.0) for trial in trials]


def search(url: str, bowl: Bowl, *, seed: int = 3) -> list[Trial]:
    return Study(url).run(Evolve(space(), trials=24, seed=seed), bowl.merge, bowl.loss)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    return search(storage(tmp_path_factory.mktemp("whole")), Bowl([0.9, 0.2]))


# "before": trial 7 merges; "during": its loss is computed, and nothing is written; 11 and 12: the generation's end
@pytest.mark.parametrize(("trial", "when"), [(7, "before"), (7, "during"), (12, "before")])
def test_a_killed_search_continues_with_the_trial_it_would_have_made(
    tmp_path: Path, uninterrupted: list[Trial], trial: int, when: str
) -> None:
    script = Path(__file__).with_name("search_until_killed.py")
    path = os.pathsep.join([str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    killed = subprocess.run(
        [sys.executable, script, storage(tmp_path), str(trial), when],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    recorded = Study(storage(tmp_path)).trials
    finished = trial - 1 if when == "during" else trial
    assert essence(recorded) == essence(uninterrupted[:finished])
    bowl = Bowl([0.9, 0.2])
    assert essence(search(storage(tmp_path), bowl)) == essence(uninterrupted)
    assert bowl.evaluations == 24 - finished, "a recorded trial was evaluated again"


def test_a_finished_search_is_replayed_without_touching_the_model(tmp_path: Path) -> None:
    first = search(storage(tmp_path), Bowl([0.9, 0.2]))
    bowl = Bowl([0.9, 0.2])
    seen: list[int] = []
    again = Study(storage(tmp_path)).run(
        Evolve(space(), trials=24, seed=3), bowl.merge, bowl.loss, progress=lambda trial: seen.append(trial.number)
    )
    assert again == first
    assert bowl.evaluations == 0
    assert seen == list(range(24)), "replayed trials count as progress"


def test_strategies_share_a_study_and_find_their_own_trials_again(tmp_path: Path) -> None:
    bowl = Bowl([0.9, 0.2])

    def everything() -> list[list[Trial]]:
        study = Study(storage(tmp_path))
        made = [uniform(space()), Cocktail(space()), Evolve(space(granularity="group", groups=2), trials=8, seed=1)]
        return [study.run(strategy, bowl.merge, bowl_loss) for strategy in made]

    def bowl_loss() -> Losses:
        bowl.evaluations += 1
        return losses(sum(bowl.weights))

    first = everything()
    evaluations = bowl.evaluations
    assert everything() == first
    assert bowl.evaluations == evaluations
    assert [trial.number for trials in first for trial in trials] == list(range(evaluations))


@pytest.mark.parametrize("change", [{"seed": 4}, {"seed": 3, "bounds": (0.0, 1.0)}])
def test_a_study_of_another_search_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    search(storage(tmp_path), Bowl([0.9, 0.2]))
    seed = change.pop("seed")
    strategy = Evolve(space(**change), trials=24, seed=seed)  # type: ignore[arg-type]
    bowl = Bowl([0.9, 0.2])
    with pytest.raises(SearchError, match=r"trial 0 of the recorded search used .* Start anew with --fresh"):
        Study(storage(tmp_path)).run(strategy, bowl.merge, bowl.loss)
    assert bowl.evaluations == 0


def test_a_trial_without_a_finite_loss_failed_and_is_never_zero(tmp_path: Path) -> None:
    told = iter([losses(2.0), losses(math.nan), losses(math.inf), losses(1.0), losses(-math.inf)])
    trials = Study(storage(tmp_path)).run(Grid(space()), lambda recipe: None, lambda: next(told))
    assert [trial.losses is None for trial in trials] == [False, True, True, False, True]
    assert [trial.number for trial in best_trials(trials, 5)] == [3, 0]
    stored = optuna.load_study(study_name="unspoiled", storage=storage(tmp_path)).trials
    assert [t.state.name for t in stored] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "FAIL"]
    assert [t.value for t in stored] == [2.0, None, None, 1.0, None]
    assert Study(storage(tmp_path)).trials == trials, "a failure is still one after a restart"


def test_a_search_in_which_all_failed_has_no_best(tmp_path: Path) -> None:
    trials = Study(storage(tmp_path)).run(Grid(space()), lambda recipe: None, lambda: losses(math.nan))
    with pytest.raises(SearchError, match=r"every trial of the search failed"):
        best_trials(trials, 1)


def test_a_probe_is_recorded_and_never_chosen(tmp_path: Path) -> None:
    told = iter([losses(0.0), losses(1.0), losses(5.0)])
    trials = Study(storage(tmp_path)).run(Cocktail(space()), lambda recipe: None, lambda: next(told))
    assert [trial.number for trial in best_trials(trials, 3)] == [2]
    assert [trial.candidate for trial in Study(storage(tmp_path)).trials] == [False, False, True]


def test_equal_trials_keep_their_order() -> None:
    strategy = Grid(space())
    trials = [
        Trial(n, "grid", p.recipe, p.coefficients, losses(1.0), True, 0.0, 0.0) for n, p in enumerate(strategy.ask())
    ]
    assert [trial.number for trial in best_trials(trials, 3)] == [0, 1, 2]


def test_optuna_and_its_dashboard_can_read_the_study(tmp_path: Path) -> None:
    trials = search(storage(tmp_path), Bowl([0.9, 0.2]))
    study = optuna.load_study(study_name="unspoiled", storage=storage(tmp_path))
    assert study.direction.name == "MINIMIZE"
    for ours, theirs in zip(trials, study.trials, strict=True):
        assert ours.losses is not None
        assert theirs.number == ours.number
        assert theirs.value == ours.losses.total
        assert theirs.params == ours.coefficients == dict(zip(["e0", "e1"], weights(ours.recipe), strict=True))
        assert theirs.user_attrs["strategy"] == "evolve"
        assert theirs.user_attrs["recipe"] == ours.recipe.to_yaml()
        assert theirs.user_attrs["merge_seconds"] >= 0
    assert study.best_trial.number == best_trials(trials, 1)[0].number


@pytest.mark.parametrize("name", ["a {gap}", "what?x=1", "100%20", "a#b", "c@d:e", "ü 日本"])
def test_a_study_lies_in_the_directory_named_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    bowl = Bowl([0.9, 0.2])
    Study(sqlite_url(folder / "study.db")).run(uniform(space()), bowl.merge, bowl.loss)
    assert (folder / "study.db").is_file()
    assert len(Study(sqlite_url(folder / "study.db")).trials) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("where", ["merge", "loss"])
def test_a_trial_that_does_not_fit_in_memory_failed(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bowl = Bowl([0.9, 0.2])
    real = getattr(bowl, where)

    def narrow(*arguments: object) -> object:
        if len(study.trials) == 1:
            raise torch.OutOfMemoryError("no room")
        return real(*arguments)

    monkeypatch.setattr(bowl, where, narrow)
    study = Study(storage(tmp_path))
    trials = study.run(Grid(space()), bowl.merge, bowl.loss)
    assert [trial.losses is None for trial in trials] == [False, True, False, False, False]
    assert trials[1] not in best_trials(trials, 5)
