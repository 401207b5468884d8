"""What trackers are told: TensorBoard's event files are read back; W&B's and MLflow's classes are stood in for."""

import inspect
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from command import unspoiled
from trained import FinishedRun
from unspoiled.config import Recipe, parse_recipe
from unspoiled.errors import ConfigError
from unspoiled.evaluate import Mean, ModelScores, Rate, Results
from unspoiled.objective import Losses
from unspoiled.pipeline import _trackers
from unspoiled.pipeline._trackers import Trackers, require_trackers
from unspoiled.search import Evaluation, Trial

RECIPE: Recipe = parse_recipe("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1.0}}]\n", "test")


def trial(number: int, safety: float, *, rows: tuple[int, ...] | None = None, failed: bool = False) -> Trial:
    losses = Losses(safety=safety, expert=2.0, domains={"x": 2.0}, benign=None, rows=(4, 4))
    evaluation = Evaluation(losses, (0,), (safety,), False, None, 9, 0.1, 0.2)
    return Trial(
        number=number, strategy="evolve", proposal=number, recipe=RECIPE, coefficients={}, split="search", rows=rows,
        candidate=True, gradient_weights=None, asked_after=0, evaluation=None if failed else evaluation,
    )  # fmt: skip


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard would draw: (step, value) by tag, of all event files below a folder."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        read = EventAccumulator(str(file)).Reload()
        for tag in read.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in read.Scalars(tag))
    return found


def test_tensorboard_has_the_losses_by_trial_and_the_rates(tmp_path: Path) -> None:
    rate, mean = Rate.of([True, True, False, True]), Mean.of([1.0, 2.0, 4.0, 3.0, 2.0])
    results = Results(
        models={"evolve": ModelScores(rates={"safe:my guard!": rate}, means={"loss:x": mean})},
        comparisons=[],
        provenance={},
    )
    with Trackers(["tensorboard", "tensorboard"], tmp_path / "run") as trackers:
        trackers.trial(trial(3, 1.5))
        trackers.trial(trial(4, 1.25))
        trackers.trial(trial(5, 0.0, failed=True))
        trackers.trial(trial(6, float("inf")))
        trackers.trial(trial(7, 0.75, rows=(0, 1)))
        trackers.results(results)
    assert events(tmp_path / "run" / "trackers" / "run") == {
        "evolve/search/CE_safety": [(3, 1.5), (4, 1.25)],
        "evolve/search/CE_expert": [(3, 2.0), (4, 2.0), (6, 2.0)],
        "evolve/search partial/CE_safety": [(7, 0.75)],
        "evolve/search partial/CE_expert": [(7, 2.0)],
        "results/evolve/safe/my guard_": [(0, rate.rate)],
        "results/evolve/safe/my guard_/low": [(0, pytest.approx(rate.low))],
        "results/evolve/safe/my guard_/high": [(0, pytest.approx(rate.high))],
        "results/evolve/loss/x": [(0, pytest.approx(mean.mean))],
        "results/evolve/loss/x/low": [(0, pytest.approx(mean.low))],
        "results/evolve/loss/x/high": [(0, pytest.approx(mean.high))],
    }


def test_without_trackers_or_numbers_nothing_is_opened(tmp_path: Path) -> None:
    with Trackers([], tmp_path / "run") as none:
        none.trial(trial(0, 1.0))
    with Trackers(["tensorboard"], tmp_path / "run") as unused:
        unused.trial(trial(0, 1.0, failed=True))
    assert not (tmp_path / "run").exists()


@dataclass
class StandIn:
    """What a tracker whose package isn't installed here was told."""

    made: dict[str, Any] = field(default_factory=dict)
    state: list[str] = field(default_factory=list)
    logged: list[tuple[dict[str, float], int | None]] = field(default_factory=list)
    axes: dict[str, str | None] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put a recorder in the place of accelerate's class, which checks arguments against the real class's signatures.

    Like the real one, that of W&B drops what is logged at an earlier step than its last.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    real, told = LOGGER_TYPE_TO_CLASS[name], StandIn()
    assert {"log", "finish", "tracker"} <= set(dir(real))

    class Run:
        """The part of `wandb.Run` that is used."""

        summary = told.summary

        def define_metric(self, name: str, step_metric: str | None = None) -> None:
            told.axes[name] = step_metric

    class Recorder:
        tracker = Run()

        def __init__(self, *arguments: Any, **options: Any) -> None:
            told.made = {**inspect.signature(real).bind(*arguments, **options).arguments, **options}

        def start(self) -> None:
            told.state.append("start")

        def log(self, values: dict[str, float], step: int | None = None) -> None:
            inspect.signature(real.log).bind(self, values, step=step)
            last = max((at for _, at in told.logged if at is not None), default=0)
            if name == "mlflow" or step is None or step >= last:
                told.logged.append((values, step))

        def finish(self) -> None:
            told.state.append("finish")

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, name, Recorder)
    return told


def test_wandb_drops_no_trial_that_ends_late_and_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, rate = stand_in("wandb", monkeypatch), Rate.of([True, True, False, True])
    scores = ModelScores(rates={"refusal": rate})
    with Trackers(["wandb"], tmp_path / "run") as trackers:
        trackers.trial(trial(4, 1.25))
        trackers.trial(trial(3, 1.5))
        trackers.results(Results(models={"evolve": scores}, comparisons=[], provenance={}))
    assert (told.made["run_name"], told.made["dir"]) == ("run", str(tmp_path / "run" / "trackers"))
    assert told.axes == {"trial": None, "*": "trial"}
    assert [values for values, _ in told.logged] == [
        {"trial": 4, "evolve/search/CE_safety": 1.25, "evolve/search/CE_expert": 2.0},
        {"trial": 3, "evolve/search/CE_safety": 1.5, "evolve/search/CE_expert": 2.0},
    ]
    assert told.summary == {
        "results/evolve/refusal": rate.rate,
        "results/evolve/refusal/low": rate.low,
        "results/evolve/refusal/high": rate.high,
    }
    assert told.state == ["start", "finish"]


def test_mlflow_has_trials_by_step_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = stand_in("mlflow", monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with Trackers(["mlflow"], tmp_path / "run") as trackers:
        trackers.trial(trial(3, 1.5))
    assert told.made["experiment_name"] == "run"
    assert str(tmp_path / "run" / "trackers") in told.made["logging_dir"]
    assert told.logged == [({"evolve/search/CE_safety": 1.5, "evolve/search/CE_expert": 2.0}, 3)]
    assert told.state == ["start", "finish"]


def test_a_missing_package_is_found_before_any_work(finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    known = _trackers.find_spec
    monkeypatch.setattr(_trackers, "find_spec", lambda name: None if name == "wandb" else known(name))
    require_trackers(["tensorboard"])
    require_trackers([])
    with pytest.raises(ConfigError, match=r"wandb not installed: pip install 'unspoiled\[trackers\]' wandb"):
        require_trackers(["tensorboard", "wandb"])
    done = unspoiled("check", finished_run.config, "--set", "runtime.trackers=[wandb]")
    assert (done.code, "pip install 'unspoiled[trackers]' wandb" in done.err) == (4, True)


def test_a_run_tells_its_trials_and_its_rates_once(finished_run: FinishedRun, tmp_path: Path) -> None:
    """The trials that --continue adds, and the rates of the measurement after it; nothing where nothing is done."""
    shutil.copytree(finished_run.directory, tmp_path / "run")
    shutil.copy(finished_run.config, tmp_path / "run.yaml")
    config, tracked = tmp_path / "run.yaml", ("--set", "runtime.trackers=[tensorboard]")

    def numbers() -> set[int]:
        with closing(sqlite3.connect(tmp_path / "run" / "search" / "study.db")) as study:
            return {number for (number,) in study.execute("select number from trials")}

    done = unspoiled("run", config, *tracked)
    assert done.code == 0, done.err
    assert not (tmp_path / "run" / "trackers").exists(), "there was nothing to do"
    before = numbers()
    assert unspoiled("search", config, "--continue", "9", *tracked).code == 0
    found = events(tmp_path / "run" / "trackers")
    assert {step for tag in found for step, _ in found[tag]} == numbers() - before
    assert any(re.fullmatch(r"evolve/search( partial)?/CE_safety", tag) for tag in found)
    assert not any(tag.startswith("results/") for tag in found)
    assert unspoiled("run", config, *tracked).code == 0
    found = events(tmp_path / "run" / "trackers")
    results = Results.read(tmp_path / "run" / "results.json")
    for model, scores in results.models.items():
        assert found[f"results/{model}/refusal"] == [(0, pytest.approx(scores.rates["refusal"].rate))]
    again = unspoiled("run", config, *tracked)
    assert again.code == 0
    assert events(tmp_path / "run" / "trackers") == found
