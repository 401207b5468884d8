"""Trackers of experiments (TensorBoard, W&B, MLflow) that a run tells its numbers, through accelerate's classes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unspoiled.config import TrackerName
from unspoiled.errors import ConfigError
from unspoiled.evaluate import Results
from unspoiled.search import Trial

_FOLDER = "trackers"
_WANDB_AXIS = "trial"
"""W&B drops what is logged at an earlier step than its last, and trials end in any order: it gets their numbers so."""


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Check that the packages of the trackers are installed.

    Raises:
        ConfigError: One is missing; the message has the command that installs it.
    """
    missing = [package for package in dict.fromkeys(["accelerate", *names]) if find_spec(package) is None]
    if names and missing:
        packages = " ".join(name for name in missing if name != "accelerate")
        command = f"pip install 'unspoiled[trackers]' {packages}".strip()
        raise ConfigError(f"runtime.trackers: {', '.join(missing)} not installed: {command}")


class Trackers:
    """Tells the trackers of a run its numbers, and no text that a model wrote; nothing where there are none.

    They are opened by the first number, so that a run with nothing left to do leaves no trace in them.

    Args:
        names: The trackers' names, none twice.
        run: The run directory: TensorBoard and MLflow write below `trackers/` in it, and its name is the project's.
    """

    def __init__(self, names: Sequence[TrackerName], run: Path) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._run = run
        self._open: dict[TrackerName, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self._open.values():
            tracker.finish()
        self._open = {}

    def trial(self, trial: Trial) -> None:
        """Tell the losses of a trial, in nats per response token, by the trial's number in the study.

        They stand under `STRATEGY/SPLIT/`, or `STRATEGY/SPLIT partial/` where not all rows of the split were scored.
        """
        if trial.losses is None:
            return
        of = trial.losses
        where = f"{trial.strategy}/{trial.split}" + ("" if trial.whole else " partial")
        losses = {"CE_safety": of.safety, "CE_expert": of.expert, "CE_benign": of.benign}
        self._log({f"{where}/{name}": value for name, value in losses.items() if value is not None}, trial.number)

    def results(self, results: Results) -> None:
        """Tell every rate and mean with the ends of its 95% interval, under `results/MODEL/MEASURE`.

        They are of the run and of no trial: W&B gets them in the run's summary, the others at step 0.
        """
        values: dict[str, float] = {}
        for model, scores in results.models.items():
            numbers = {name: (rate.rate, rate.low, rate.high) for name, rate in scores.rates.items()}
            numbers |= {name: (mean.mean, mean.low, mean.high) for name, mean in scores.means.items()}
            for measure, found in numbers.items():
                path = f"results/{model}/{measure.replace(':', '/')}"
                values |= {f"{path}{end}": value for end, value in zip(("", "/low", "/high"), found, strict=True)}
        self._log(values, None)

    def _log(self, values: Mapping[str, float], trial: int | None) -> None:
        """Log values of a trial, or of the run where it is None."""
        finite = {_tag(name): float(value) for name, value in values.items() if math.isfinite(value)}
        if not self._names or not finite:
            return
        if not self._open:
            (self._run / _FOLDER).mkdir(parents=True, exist_ok=True)
            self._open = {name: self._start(name) for name in self._names}
        for name, tracker in self._open.items():
            if name != "wandb":
                tracker.log(finite, step=trial or 0)
            elif trial is None:
                tracker.tracker.summary.update(finite)
            else:
                tracker.log({_WANDB_AXIS: trial, **finite})

    def _start(self, name: TrackerName) -> Any:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # which its classes ask whether they are the process that logs
        folder, project = self._run / _FOLDER, self._run.name
        make: dict[TrackerName, Callable[..., Any]] = LOGGER_TYPE_TO_CLASS
        if name == "tensorboard":
            tracker = make[name](project, folder)
        elif name == "wandb":
            tracker = make[name](project, dir=str(folder))
        else:
            # Beside the run unless the user has a server; MLflow's own default is the working directory.
            os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
            tracker = make[name](project, logging_dir=(folder / "mlflow").resolve().as_uri())
        if hasattr(tracker, "start"):  # older versions of accelerate start it when it is made
            tracker.start()
        if name == "wandb":
            tracker.tracker.define_metric(_WANDB_AXIS)
            tracker.tracker.define_metric("*", step_metric=_WANDB_AXIS)
        return tracker


def _tag(name: str) -> str:
    """Return a name that every tracker takes."""
    return re.sub(r"[^\w\-. /]", "_", name)
