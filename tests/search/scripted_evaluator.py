"""Evaluators, strategies and executors that need no model, whose outcome is known beforehand."""

import hashlib
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unspoiled.config import Recipe
from unspoiled.objective import Losses
from unspoiled.search import Evaluation, Evaluator, Proposal, Range, SearchSpace, Study, Trial

TERMS = ("safety", "expert", "benign")


def two_weights() -> SearchSpace:
    return SearchSpace("task_arithmetic", "base", {"a": "models/a", "b": "models/b"}, 4, {"weight": Range(0, 1, 0.5)})


def weights(recipe: Recipe) -> list[float]:
    return [entry.parameters["weight"] for entry in recipe.models]  # type: ignore[misc]


def evaluation(safety: float, expert: float = 1.0, **changes: object) -> Evaluation:
    found = Evaluation(
        losses=Losses(safety=safety, expert=expert, domains={"math": expert}, benign=0.1 + safety, rows=(2, 1)),
        rows=(0, 1, 2),
        cross_entropies=(safety, safety / 3, expert / 7),
        stopped=False,
        gradient=None,
        tokens=300,
        merge_seconds=0.25,
        loss_seconds=1.5,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


class Bowl:
    """Finds losses that grow with the distance of the two weights from a minimum; remembers what it tried."""

    def __init__(self) -> None:
        self.tried: list[Recipe] = []

    def evaluate(self, proposal: Proposal) -> Evaluation | None:
        self.tried.append(proposal.recipe)
        a, b = weights(proposal.recipe)
        rows = (0, 1, 2) if proposal.rows is None else proposal.rows
        gradient = (2 * (a - 0.9) / 3, 2 * (b - 0.2) / 3) if proposal.gradient else None
        found = evaluation((a - 0.9) ** 2 / 3 + (b - 0.2) ** 2, abs(a - b) / 7, rows=rows, gradient=gradient)
        return replace(found, cross_entropies=found.cross_entropies[: len(rows)])


class Wander:
    """Proposes genomes that depend on every loss told so far, to the last bit, and on the order of telling.

    Args:
        trials: The budget.
        ahead: Proposals that may be without a result.
    """

    def __init__(self, trials: int, *, seed: int = 0, ahead: int = 1, name: str = "wander", **options: object) -> None:
        self._space = two_weights()
        self._trials = trials
        self._ahead = ahead
        self._state = f"{seed}"
        self._options = options
        self._asked = 0
        self._open = 0
        self.name = name

    @property
    def ended(self) -> bool:
        return self._asked >= self._trials

    def ask(self) -> Proposal | None:
        if self.ended or self._open >= self._ahead:
            return None
        generator = random.Random(hashlib.sha256(f"{self._state}:{self._asked}".encode()).hexdigest())
        genome = [generator.random(), generator.random()]
        number = self._asked
        self._asked += 1
        self._open += 1
        return Proposal(number, self._space.recipe(genome), self._space.named(genome), **self._options)  # type: ignore[arg-type]

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        self._open -= 1
        losses = None if evaluation is None else (evaluation.losses, evaluation.cross_entropies)
        self._state = hashlib.sha256(f"{self._state}|{proposal.number}|{losses!r}".encode()).hexdigest()


class Listed:
    """Proposes what it is given, whatever comes of it."""

    name = "listed"

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        self._left = list(proposals)

    @classmethod
    def of_genomes(cls, genomes: Sequence[Sequence[float]], **options: object) -> "Listed":
        space = two_weights()
        return cls([Proposal(i, space.recipe(g), space.named(g), **options) for i, g in enumerate(genomes)])  # type: ignore[arg-type]

    @property
    def ended(self) -> bool:
        return not self._left

    def ask(self) -> Proposal | None:
        return self._left.pop(0) if self._left else None

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        pass


class OutOfOrder:
    """Works on several proposals at once, and ends them in an order that its seed shuffles.

    Args:
        dies_after: End with `Killed` instead of returning another result, after that many.
    """

    def __init__(self, evaluator: Evaluator, slots: int, *, seed: int = 0, dies_after: int | None = None) -> None:
        self.slots = slots
        self._evaluator = evaluator
        self._random = random.Random(seed)
        self._open: list[Proposal] = []
        self._left = dies_after

    def submit(self, proposal: Proposal) -> None:
        assert len(self._open) < self.slots, "the study submits no more than there are slots"
        self._open.append(proposal)

    def finished(self) -> tuple[Proposal, Evaluation | None]:
        if self._left == 0:
            raise Killed
        if self._left is not None:
            self._left -= 1
        proposal = self._open.pop(self._random.randrange(len(self._open)))
        return proposal, self._evaluator.evaluate(proposal)


class Killed(BaseException):
    """What a script does in place of SIGKILL, where a subprocess would only be slow."""


def study(url: str, name: str = "unspoiled", **objective: object) -> Study:
    return Study(url, name, terms=TERMS, objective={"goal": {"alpha": 0.3}, **objective})


def essence(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials without what clocks and chance decide: seconds, worker, and when they were asked for."""
    return [
        replace(
            trial,
            asked_after=0,
            number=0,
            evaluation=trial.evaluation and replace(trial.evaluation, merge_seconds=0.0, loss_seconds=0.0, worker=""),
        )
        for trial in trials
    ]


@dataclass(frozen=True)
class Slow:
    """Makes a `Bowl` that takes its time, and leaves a file per attempt: what a test waits for and counts.

    Args:
        folder: Where the files go: `PROPOSAL.RANDOM`, with the process's id and its environment's number of threads.
        seconds: How long an attempt takes.
        deadly: Proposals that kill the process that tries them, with the number of attempts that do.
        broken: A proposal that raises `ValueError`.
        together: No attempt goes on before there have been that many.
        gate: No attempt goes on before there is this file.
    """

    folder: Path
    seconds: float = 0.0
    deadly: Mapping[int, int] | None = None
    broken: int | None = None
    together: int = 1
    gate: Path | None = None

    def __call__(self) -> Evaluator:
        return _SlowBowl(self)


class _SlowBowl:
    def __init__(self, options: Slow) -> None:
        self._options = options
        self._bowl = Bowl()

    def evaluate(self, proposal: Proposal) -> Evaluation | None:
        options = self._options
        before = len(list(options.folder.glob(f"{proposal.number}.*")))
        mark = options.folder / f"{proposal.number}.{random.randrange(10**9)}"
        mark.write_text(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}")
        for _ in range(6000):  # five minutes at most
            alone = len(list(options.folder.iterdir())) < options.together
            if not alone and (options.gate is None or options.gate.exists()):
                break
            time.sleep(0.05)
        time.sleep(options.seconds)
        if before < (options.deadly or {}).get(proposal.number, 0):
            os._exit(9)
        if proposal.number == options.broken:
            raise ValueError("no such layer")
        return self._bowl.evaluate(proposal)
