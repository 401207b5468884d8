"""The record of a search in an Optuna study, from which a killed search is replayed."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unspoiled.config import Recipe, parse_recipe
from unspoiled.errors import SearchError
from unspoiled.objective import Losses
from unspoiled.search._strategy import Proposal, Strategy


@dataclass(frozen=True)
class Trial:
    """One evaluated recipe.

    Args:
        number: Its number in the study, from 0.
        strategy: The strategy that proposed it.
        recipe: What was merged.
        coefficients: The recipe's coefficients by name.
        losses: Its losses on the search split; None if they were not finite, or memory ran out.
        candidate: Whether it may be chosen.
        merge_seconds: Time to merge in memory.
        loss_seconds: Time to compute the losses.
    """

    number: int
    strategy: str
    recipe: Recipe
    coefficients: dict[str, float]
    losses: Losses | None
    candidate: bool
    merge_seconds: float
    loss_seconds: float


class Study:
    """All trials of one search, in an Optuna study that `optuna-dashboard` can show while it runs.

    Args:
        storage: An Optuna storage URL, such as `sqlite:///search/study.db`.
        name: The study's name in that storage.

    Raises:
        SearchError: The storage can't be read or written.
    """

    def __init__(self, storage: str, name: str = "unspoiled") -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._storage = storage
        with self._storage_errors():
            self._study = optuna.create_study(
                storage=storage, study_name=name, direction="minimize", load_if_exists=True
            )

    @property
    def trials(self) -> list[Trial]:
        """Every recorded trial, in order."""
        return [_read(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def run(
        self,
        strategy: Strategy,
        merge: Callable[[Recipe], None],
        loss: Callable[[], Losses],
        *,
        progress: Callable[[Trial], None] = lambda trial: None,
    ) -> list[Trial]:
        """Run a strategy to its end and return its trials; those recorded earlier are replayed, not repeated.

        Args:
            strategy: A fresh strategy.
            merge: Puts a recipe's weights into the model.
            loss: Computes the losses of the model as it is.
            progress: Called after each trial, replayed ones included.

        Raises:
            SearchError: A recorded trial is not the one that the strategy proposes now.
        """
        recorded = [trial for trial in self.trials if trial.strategy == strategy.name]
        done: list[Trial] = []
        while proposals := strategy.ask():
            for proposal in proposals:
                if len(done) < len(recorded):
                    trial = recorded[len(done)]
                    _require_same(trial, proposal)
                else:
                    trial = self._evaluate(strategy.name, proposal, merge, loss)
                done.append(trial)
                progress(trial)
            strategy.tell([trial.losses for trial in done[-len(proposals) :]])
        return done

    def _evaluate(
        self, strategy: str, proposal: Proposal, merge: Callable[[Recipe], None], loss: Callable[[], Losses]
    ) -> Trial:
        losses: Losses | None = None
        start = merged = time.perf_counter()
        try:
            merge(proposal.recipe)
            merged = time.perf_counter()
            losses = loss()
        except torch.OutOfMemoryError:  # not even one sequence fitted: the trial failed, its loss isn't 0
            pass
        ended = time.perf_counter()
        finite = losses is not None and math.isfinite(losses.total)
        trial = Trial(
            number=len(self._study.get_trials(deepcopy=False)),
            strategy=strategy,
            recipe=proposal.recipe,
            coefficients=proposal.coefficients,
            losses=losses if finite else None,
            candidate=proposal.candidate,
            merge_seconds=merged - start,
            loss_seconds=ended - merged,
        )
        self._record(trial)
        return trial

    def _record(self, trial: Trial) -> None:
        optuna = self._optuna
        bounds = {name: max(10.0, abs(value)) for name, value in trial.coefficients.items()}
        with warnings.catch_warnings(), self._storage_errors():
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.COMPLETE if trial.losses else optuna.trial.TrialState.FAIL,
                    value=trial.losses.total if trial.losses else None,
                    params=trial.coefficients,
                    distributions={
                        name: optuna.distributions.FloatDistribution(-bound, bound) for name, bound in bounds.items()
                    },
                    user_attrs={
                        "strategy": trial.strategy,
                        "recipe": trial.recipe.to_yaml(),
                        "losses": json.dumps(asdict(trial.losses)) if trial.losses else None,
                        "candidate": trial.candidate,
                        "merge_seconds": trial.merge_seconds,
                        "loss_seconds": trial.loss_seconds,
                    },
                )
            )

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Say in our words that the storage can't be read or written."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, self._optuna.exceptions.StorageInternalError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise SearchError(
                f"the study in {self._storage} can't be read or written ({reason}). Free some space if the disk is "
                "full. Remove the file if it is damaged: its trials are then made again."
            ) from error


def sqlite_url(path: Path) -> str:
    """Return the storage URL of an SQLite file, whatever is in its path.

    SQLAlchemy reads `?` and `%` in a URL as signs of its own, and Optuna takes `{...}` for a gap to fill.
    """
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(path.absolute())).render_as_string()
    return url.replace("{", "{{").replace("}", "}}")


def best_trials(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Return the `count` candidates of the lowest J, best first; equal ones in their order."""
    finished = [(trial.losses.total, trial) for trial in trials if trial.candidate and trial.losses]
    if not finished:
        raise SearchError(
            "every trial of the search failed: no recipe gave a finite loss. Narrow search.bounds, or check the "
            "experts with `unspoiled check`."
        )
    return [trial for _, trial in sorted(finished, key=lambda pair: pair[0])[:count]]


def _read(frozen: Any) -> Trial:
    attributes = frozen.user_attrs
    losses = None
    if attributes["losses"] is not None:
        fields = json.loads(attributes["losses"])
        losses = Losses(**{**fields, "rows": tuple(fields["rows"])})
    return Trial(
        number=frozen.number,
        strategy=attributes["strategy"],
        recipe=parse_recipe(attributes["recipe"], f"trial {frozen.number}"),
        coefficients=dict(frozen.params),
        losses=losses,
        candidate=attributes["candidate"],
        merge_seconds=attributes["merge_seconds"],
        loss_seconds=attributes["loss_seconds"],
    )


def _require_same(trial: Trial, proposal: Proposal) -> None:
    if trial.recipe != proposal.recipe:
        raise SearchError(
            f"trial {trial.number} of the recorded search used {trial.coefficients}, but the search now proposes "
            f"{proposal.coefficients}: the study belongs to other data or another version. Start anew with --fresh."
        )
