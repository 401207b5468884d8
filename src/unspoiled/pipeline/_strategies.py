"""The strategies that a config names, with their budgets, which `--continue` raises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unspoiled.config import SearchConfig
from unspoiled.errors import SearchError
from unspoiled.files import write_json_atomic
from unspoiled.objective import Goal, LossRows
from unspoiled.search import (
    Cocktail,
    Evolve,
    Gradient,
    Grid,
    Parents,
    Pareto,
    Random,
    SearchSpace,
    Strategy,
    Sweep,
    Trial,
    cocktail_start,
    population_size,
    steps_begun,
    uniform,
)

_BY_TRIALS = frozenset({"random", "evolve", "pareto"})
_STEPS_PER_POINT = 10  # of a sweep


@dataclass(frozen=True)
class Plan:
    """What a study has been granted: kept beside it, as it is no part of the config.

    Attributes:
        budgets: Trials (of `gradient` steps, of `sweep` points) of every strategy that takes a budget.
        shards: Minibatches per step of a descent, as many as the study had workers when it began: the steps of a
            search that is continued by more workers, or by fewer, stay what they were.
        granted: What `--continue` was asked for by the search that is under way; 0 once it has ended. The same command
            typed again after Ctrl-C then finishes that search, and adds nothing on top.
    """

    budgets: dict[str, int]
    shards: int
    granted: int = 0

    @classmethod
    def begun(cls, config: SearchConfig, workers: int) -> Plan:
        """Return a new study's."""
        budgets: dict[str, int] = {name: config.trials for name in config.strategies if name in _BY_TRIALS}
        if "gradient" in config.strategies:
            budgets["gradient"] = config.steps
        if "sweep" in config.strategies:
            budgets["sweep"] = 1 + config.steps // _STEPS_PER_POINT
        return cls(budgets, max(1, workers))

    @classmethod
    def read(cls, path: Path) -> Plan | None:
        """Return what `write` wrote; None if there is none."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write(self, path: Path) -> None:
        """Write it, all or nothing."""
        write_json_atomic(path, asdict(self))

    def raised(self, trials: Sequence[Trial], more: int, rows: LossRows, config: SearchConfig) -> Plan:
        """Return the plan with every budget `more` trials or steps above what the study has, and none lowered.

        Args:
            trials: The study's.
            more: How many to add.
            rows: The rows of the search split, whose number limits the minibatches of a step.
            config: The search section.

        Raises:
            SearchError: No strategy of the study takes a budget.
        """
        if not self.budgets:
            raise SearchError(
                "no strategy of this search can go on: grid and cocktail have all of their trials. Add evolve, "
                "gradient, random, pareto or sweep to search.strategies."
            )
        raised = dict(self.budgets)
        for name, budget in self.budgets.items():
            added = -(-more // _STEPS_PER_POINT) if name == "sweep" else more
            raised[name] = max(budget, self._spent(name, trials, rows, config) + added)
        return Plan(raised, self.shards, granted=more)

    def ended(self) -> Plan:
        """Return the plan of a search that has ended: what is granted next comes on top."""
        return replace(self, granted=0)

    def _spent(self, name: str, trials: Sequence[Trial], rows: LossRows, config: SearchConfig) -> int:
        own = [trial for trial in trials if trial.strategy == name]
        if name == "gradient":
            gradients = sum(trial.gradient_weights is not None for trial in own)
            return steps_begun(rows, gradients, config.batch, self.shards, seed=config.seed)
        return sum(trial.candidate for trial in own) if name == "sweep" else len(own)


@dataclass(frozen=True)
class Circumstances:
    """What strategies are made from.

    Attributes:
        config: The search section.
        space: What moves.
        all_experts: A space of weights that names all experts, for LM-Cocktail.
        rows: The rows of the search split.
        parents: Every model's losses.
        safest: The name of the safest expert among them.
        goal: The goal on the search split.
        selection_goal: The goal on the selection split.
        plan: The budgets.
    """

    config: SearchConfig
    space: SearchSpace
    all_experts: SearchSpace
    rows: LossRows
    parents: Parents
    safest: str
    goal: Goal
    selection_goal: Goal
    plan: Plan


def why_nothing_was_added(name: str, given: Circumstances) -> str:
    """Return why a strategy that was granted more has made no trial of it."""
    config = given.config
    match name:
        case "evolve":
            least = population_size(given.space.size)
            larger = " (twice as many after each restart)" if config.restarts else ""
            return f"evolve added nothing: it makes whole generations, of {least} trials{larger}; continue by that many"
        case "gradient":
            return (
                f"gradient added nothing: it had ended, as {config.patience} checks in a row found nothing better "
                "(search.patience) or three steps in a row failed"
            )
        case _:
            return f"{name} added nothing: it had ended"


def make_strategy(name: str, given: Circumstances) -> Strategy:
    """Return a fresh strategy by its name in configs, or `uniform`; those that learn start from LM-Cocktail's merge."""
    config, space, plan = given.config, given.space, given.plan
    losses = given.parents.losses("search")

    def start() -> tuple[float, ...]:
        if "weight" not in space.ranges:
            return space.start
        return cocktail_start(space, losses, temperature=config.temperature)

    def descent() -> dict[str, Any]:
        return {
            "batch": config.batch, "learning_rate": config.learning_rate, "prior": config.prior, "seed": config.seed,
            "start": start(), "shards": plan.shards,
        }  # fmt: skip

    match name:
        case "uniform":
            return uniform(space)
        case "grid":
            return Grid(space)
        case "cocktail":
            return Cocktail(given.all_experts, losses, temperature=config.temperature)
        case "random":
            return Random(space, trials=plan.budgets[name], seed=config.seed)
        case "evolve":
            return Evolve(
                space, given.goal, trials=plan.budgets[name], seed=config.seed, step=config.step,
                restarts=config.restarts, race=config.race, start=start(),
            )  # fmt: skip
        case "pareto":
            return Pareto(space, trials=plan.budgets[name], seed=config.seed, terms=given.rows.terms)
        case "sweep":
            return Sweep(space, given.rows, steps=_STEPS_PER_POINT, points=plan.budgets[name], **descent())
        case "gradient":
            return Gradient(
                space, given.goal, given.rows, steps=plan.budgets[name], patience=config.patience,
                selection_goal=given.selection_goal,
                reference=given.parents.cross_entropies("search")[given.safest], **descent(),
            )  # fmt: skip
        case _:
            raise SearchError(f"there is no strategy {name!r}")
