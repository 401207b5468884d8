"""The record of a search in an Optuna study, from which a killed search is replayed."""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime

from unspoiled.errors import SearchError
from unspoiled.objective import Term
from unspoiled.search._storage import open_storage, shown, storage_errors
from unspoiled.search._strategy import Evaluation, Executor, Proposal, Strategy
from unspoiled.search._trial import Trial, asked_attributes, evaluation_attributes, plain, read_trial

MOST_PARAMETERS = 32
"""Genomes up to this size are recorded as Optuna's parameters, too, which the dashboard plots; that costs about 2 ms
for each, and more axes than this can't be read in a plot."""


class Study:
    """All trials of one search, in an Optuna study that `optuna-dashboard` can show while it runs.

    It has one value to minimise per loss, so that the dashboard shows their front. A trial is RUNNING from the moment
    it is proposed; COMPLETE if it was scored on all rows; PRUNED if it was scored on some of them, as the minibatches
    of a descent and what a race stopped are; FAIL if it gave no finite loss. Names of attributes: `_trial.py`.

    One process at a time searches a study. A second one takes it over: the first notices before it writes anything
    more, and ends with an error.

    Args:
        storage: An Optuna storage URL, such as `sqlite:///search/study.db`.
        name: The study's name in that storage.
        terms: The losses, in order.
        objective: Everything that decides what a recipe's losses are and how they are weighed, as JSON values.

    Raises:
        SearchError: The storage can't be read or written, or the study was begun with another objective.
    """

    def __init__(
        self, storage: str, name: str = "unspoiled", *, terms: Sequence[Term], objective: Mapping[str, object]
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._url = storage
        self.name = name
        self._terms = tuple(terms)
        self._storage = open_storage(storage)
        self._read: dict[int, _Record] = {}  # by Optuna's trial id; those that have ended don't change any more
        self._begun = 0
        self._token = ""
        with self._connected():
            self._open(json.loads(json.dumps({"losses": list(terms), **objective}, allow_nan=False)))

    @property
    def trials(self) -> list[Trial]:
        """The trials that have ended, those of every strategy, in the order in which they did."""
        with self._connected():
            return [record.trial for record in _ended(self._records())]

    def record_rates(self, trial: Trial, rates: Mapping[str, float]) -> None:
        """Record what a finalist's responses came to (refusal, accuracy ...), for the dashboard's page of the study.

        Optuna lets no trial that has ended be changed, so this is an attribute of the study: `rates of trial 12`.

        Args:
            trial: One that has ended.
            rates: By name, each in [0, 1].
        """
        with self._connected():
            self._storage.set_study_user_attr(self._id, f"rates of trial {trial.number}", dict(rates))

    def rates(self, trial: Trial) -> Mapping[str, float]:
        """Return the rates recorded for a trial; empty if there are none."""
        with self._connected():
            found = self._storage.get_study_user_attrs(self._id).get(f"rates of trial {trial.number}", {})
        return {str(name): float(rate) for name, rate in found.items()}

    def run(
        self, strategy: Strategy, executor: Executor, *, progress: Callable[[Trial], None] = lambda trial: None
    ) -> list[Trial]:
        """Run a strategy to its end and return its trials as they ended; those recorded earlier are not repeated.

        What was recorded is replayed: the strategy is asked and told in the order in which it then was, so that it
        comes to the state that it had. Trials that had begun and not ended are tried again.

        Args:
            strategy: A fresh strategy. One that differs from the recorded one only by a larger budget goes on.
            executor: Where proposals are tried.
            progress: Called after each trial, replayed ones included.

        Raises:
            SearchError: A recorded trial is not the one that the strategy proposes now; the storage can't be read or
                written; another process took the study over.
        """
        try:
            return self._run(strategy, executor, progress)
        finally:
            self.close()

    def close(self) -> None:
        """Leave the storage: its last connection to an SQLite file takes the files beside it away."""
        self._storage.engine.dispose()

    def _run(self, strategy: Strategy, executor: Executor, progress: Callable[[Trial], None]) -> list[Trial]:
        with self._connected():
            self._claim()
            records = [record for record in self._records() if record.trial.strategy == strategy.name]
        told: list[Trial] = []
        waiting = deque(_replay(strategy, records, told, progress))
        ended = sum(record.place is not None for record in records)
        under_way: dict[int, _Record] = {}
        while True:
            while len(under_way) < executor.slots:
                if waiting:
                    record, proposal = waiting.popleft()
                elif (asked := strategy.ask()) is not None:
                    record, proposal = self._begin(strategy.name, asked, ended), asked
                else:
                    break
                under_way[proposal.number] = record
                executor.submit(proposal)
            if not under_way:
                break
            proposal, evaluation = executor.finished()
            trial = self._end(under_way.pop(proposal.number), evaluation)
            ended += 1
            told.append(trial)
            strategy.tell(proposal, trial.evaluation)
            progress(trial)
        if not strategy.ended:
            raise RuntimeError(f"{strategy.name} proposes nothing, waits for nothing, and has not ended")
        return told

    def _begin(self, strategy: str, proposal: Proposal, asked_after: int) -> _Record:
        """Record a trial as running."""
        optuna = self._optuna
        trial = Trial.begun(-1, strategy, proposal, asked_after)
        shown_as = dict(trial.coefficients) if len(trial.coefficients) <= MOST_PARAMETERS else {}
        bounds = {name: max(10.0, abs(value)) for name, value in shown_as.items()}
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=shown_as,
            distributions={
                name: optuna.distributions.FloatDistribution(-bound, bound) for name, bound in bounds.items()
            },
            user_attrs=asked_attributes(trial),
        )
        template.datetime_start = datetime.now()
        with self._connected():
            self._require_claim()
            key = self._storage.create_new_trial(self._id, template)
        self._begun += 1  # Optuna numbers them so; to ask it would take as long as to record
        return _Record(key, replace(trial, number=self._begun - 1), None)

    def _end(self, record: _Record, evaluation: Evaluation | None) -> Trial:
        """Record what came of a trial."""
        states = self._optuna.trial.TrialState
        trial = replace(record.trial, evaluation=plain(evaluation))
        with self._connected():
            self._require_claim()
            place = sum(other.place is not None for other in self._read.values())
            for name, value in evaluation_attributes(trial.evaluation, place).items():
                self._storage.set_trial_user_attr(record.key, name, value)
            losses = trial.losses
            values = None if losses is None else [losses.term(term) for term in self._terms]
            if values is not None and any(math.isnan(value) for value in values):
                values = None  # a minibatch without rows of some set
            state = states.FAIL if losses is None else states.COMPLETE if trial.whole else states.PRUNED
            self._storage.set_trial_state_values(record.key, state, values)
        self._read[record.key] = _Record(record.key, trial, place)
        return trial

    def _records(self) -> list[_Record]:
        """Read what is recorded of every proposal, in the order of proposing."""
        states = self._optuna.trial.TrialState
        found: dict[tuple[str, int], _Record] = {}
        everything = self._storage.get_all_trials(self._id, deepcopy=False)
        self._begun = len(everything)
        for frozen in everything:
            if "asked" not in frozen.user_attrs:
                continue  # not made by us
            record = self._read.get(frozen._trial_id)
            if record is None:
                has_losses = frozen.state in (states.COMPLETE, states.PRUNED)
                trial = read_trial(frozen.number, frozen.user_attrs, evaluated=has_losses)
                place = frozen.user_attrs["ended"]["place"] if frozen.state.is_finished() else None
                record = _Record(frozen._trial_id, trial, place)
                if place is not None:
                    self._read[record.key] = record
            other = found.get(identity := (record.trial.strategy, record.trial.proposal))
            if other is None or (other.place is None and record.place is not None):
                found[identity] = record  # two of them: a process that was taken over began one of them in vain
        return sorted(found.values(), key=lambda record: record.trial.proposal)

    def _open(self, objective: Mapping[str, object]) -> None:
        """Make the study, or see that the one there is of the same objective."""
        directions = [self._optuna.study.StudyDirection.MINIMIZE] * len(self._terms)
        study = self._optuna.create_study(
            storage=self._storage, study_name=self.name, directions=directions, load_if_exists=True
        )
        self._id = self._storage.get_study_id_from_name(self.name)
        recorded = study.user_attrs.get("objective")
        if recorded is None and not study.get_trials(deepcopy=False) and len(study.directions) == len(directions):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", category=self._optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([f"CE_{term}" for term in self._terms])
            study.set_user_attr("objective", objective)
        elif recorded != objective:
            changes = "\n".join(f"  {line}" for line in _differences(recorded or {}, objective))
            raise SearchError(
                f"the study {self.name!r} in {shown(self._url)} was begun with another objective (recorded -> now):\n"
                f"{changes}\nIts trials don't compare with new ones. Go back to the recorded objective, give this "
                "search a name of its own (--study NAME, or --set runtime.study=NAME in a database of your own), or "
                "start anew with --fresh, which discards no database but the run directory's."
            )

    def _claim(self) -> None:
        """Take the study over from whoever searched it before."""
        self._token = secrets.token_hex(8)
        holder = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid()}
        self._storage.set_study_user_attr(self._id, "searched_by", holder)

    def _require_claim(self) -> None:
        holder = self._storage.get_study_user_attrs(self._id).get("searched_by", {})
        if holder.get("token") != self._token:
            raise SearchError(
                f"process {holder.get('pid')} on {holder.get('host')} has taken over the study {self.name!r} in "
                f"{shown(self._url)}, and continues it. Stop one of the two, or give one a --study name of its own."
            )

    def _connected(self) -> AbstractContextManager[None]:
        return storage_errors(self._url)


@dataclass(frozen=True)
class _Record:
    """A trial as it is recorded.

    Attributes:
        key: Optuna's id of it.
        trial: What it is; without an evaluation if it has not ended.
        place: How many trials of the study ended before it; None if it has not ended.
    """

    key: int
    trial: Trial
    place: int | None


def _ended(records: Iterable[_Record]) -> list[_Record]:
    return sorted((r for r in records if r.place is not None), key=lambda r: (r.place, r.trial.number))


def _replay(
    strategy: Strategy, records: Sequence[_Record], told: list[Trial], progress: Callable[[Trial], None]
) -> list[tuple[_Record, Proposal]]:
    """Ask and tell as it is recorded; return the proposals that have not ended, in their order."""
    begun: dict[int, list[_Record]] = {}
    for record in records:
        begun.setdefault(record.trial.asked_after, []).append(record)
    open_: dict[int, tuple[_Record, Proposal]] = {}
    ended = _ended(records)
    for place in range(len(ended) + 1):
        for record in begun.get(place, ()):
            proposal = strategy.ask()
            if proposal is not None:
                record.trial.require_same(proposal)
                open_[proposal.number] = record, proposal
            elif not strategy.ended:  # with a smaller budget than before it has
                raise SearchError(
                    f"the recorded search ({strategy.name}) has a trial {record.trial.number} where the search now "
                    "waits for a result: the study belongs to another version. Start anew with --fresh."
                )
        if place < len(ended) and (pair := open_.pop(ended[place].trial.proposal, None)) is not None:
            trial = ended[place].trial
            strategy.tell(pair[1], trial.evaluation)
            told.append(trial)
            progress(trial)
    return list(open_.values())


def _differences(recorded: object, now: object, path: str = "") -> Iterator[str]:
    """Yield `KEY: RECORDED -> NOW` for every value that differs, by its dotted key."""
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        for key in [*now, *(key for key in recorded if key not in now)]:
            old, new = recorded.get(key, _ABSENT), now.get(key, _ABSENT)
            yield from _differences(old, new, f"{path}.{key}" if path else str(key))
    elif recorded != now:
        yield f"{path}: {_shown(recorded)} -> {_shown(now)}"


_ABSENT = object()


def _shown(value: object) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
