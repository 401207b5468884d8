"""Losses that need no model, for searches whose outcome is known beforehand; and the loop that plays a search."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unspoiled.config import Recipe
from unspoiled.data import Row, Split
from unspoiled.objective import Losses, LossRows, Term
from unspoiled.search import Evaluation, Proposal, Range, SearchSpace, Strategy

WEIGHT = {"weight": Range(0.0, 1.5, 0.5)}


def space(experts: int = 2, **changes: object) -> SearchSpace:
    options: dict[str, object] = {
        "method": "task_arithmetic",
        "base": "models/base",
        "experts": {f"e{i}": f"models/e{i}" for i in range(experts)},
        "layers": 6,
        "ranges": WEIGHT,
    }
    return SearchSpace(**{**options, **changes})  # type: ignore[arg-type]


def losses(safety: float, expert: float = 0.5, benign: float | None = None, rows: tuple[int, int] = (3, 1)) -> Losses:
    return Losses(safety=safety, expert=expert, domains={"math": expert}, benign=benign, rows=rows)


def weights(recipe: Recipe) -> list[float]:
    """Return a recipe's weights as one list, model by model."""
    found: list[float] = []
    for entry in recipe.models:
        weight = entry.parameters["weight"]
        found += weight if isinstance(weight, list | tuple) else [weight]  # type: ignore[list-item]
    return found


def genome(proposal: Proposal) -> tuple[float, ...]:
    """Return the genome that a proposal of one of the moving strategies stands for."""
    return tuple(proposal.coefficients.values())


def row(term: Term, number: int, split: Split = "search", group: str | None = None) -> Row:
    own = group or {"safety": "harm", "expert": "math", "benign": "chat"}[term]
    return Row(f"{term}{number}", term, own, f"{term} question {number}", "answer", "e0", "e0", split)


def loss_rows(split: Split = "search", **counts: int) -> LossRows:
    """Return rows of each set: `loss_rows(safety=8, expert=8)`."""
    terms: Sequence[Term] = [term for term in ("safety", "expert", "benign") if term in counts]  # type: ignore[misc]
    return LossRows(tuple(row(term, i, split) for term in terms for i in range(counts[term])))


@dataclass
class Bowls:
    """Losses that are bowls: a row's CE is floor + ½ · Σ curvature · (genome − minimum − shift of the row)².

    The shifts of a set's rows are drawn with standard deviation `noise` for each coefficient and centred for each
    split, so that the loss on all rows of a split is a bowl about the set's own minimum.

    Args:
        minima: Each set's minimum.
        curvatures: Each set's curvature, one for all coefficients or one each; 1 by default.
        floor: Added to every CE.
        rows: Rows per set and split.
        noise: How far the rows of a set lie apart.
    """

    minima: Mapping[Term, Sequence[float]]
    curvatures: Mapping[Term, float | Sequence[float]] = field(default_factory=dict)
    floor: float = 0.1
    rows: int = 8
    noise: float = 0.0

    def __post_init__(self) -> None:
        self.data: dict[Split, LossRows] = {
            split: loss_rows(split, **dict.fromkeys(self.minima, self.rows)) for split in ("search", "selection")
        }
        self._centers: dict[str, np.ndarray] = {}
        rng = np.random.default_rng(7)
        for split, data in self.data.items():
            for term, minimum in self.minima.items():
                shifts = rng.normal(0, self.noise, (self.rows, len(minimum)))
                shifts -= shifts.mean(axis=0)
                own = [each for each in data.rows if each.set == term]
                for each, shift in zip(own, shifts, strict=True):
                    self._centers[f"{split}:{each.id}"] = np.array(minimum) + shift
        self.forward = 0  # rows scored, a gradient counting three times

    def cross_entropies(self, at: Sequence[float], split: Split, rows: Sequence[int]) -> tuple[float, ...]:
        return tuple(self._one(at, split, i)[0] for i in rows)

    def losses(self, at: Sequence[float], split: Split = "search") -> Losses:
        data = self.data[split]
        return data.losses(self.cross_entropies(at, split, range(len(data.rows))))

    def __call__(self, proposal: Proposal) -> Evaluation:
        """Evaluate a proposal as a worker would."""
        at, data = genome(proposal), self.data[proposal.split]
        rows = tuple(range(len(data.rows))) if proposal.rows is None else proposal.rows
        values = self.cross_entropies(at, proposal.split, rows)
        gradient = None
        if proposal.gradient is not None:
            slopes = [self._one(at, proposal.split, i)[1] for i in rows]
            shares = data.row_weights(rows, proposal.gradient.weights)
            gradient = tuple(map(float, sum(share * slope for share, slope in zip(shares, slopes, strict=True))))
        passes = 1 if gradient is None else 3
        self.forward += passes * len(rows)
        return Evaluation(data.losses(values, rows), rows, values, False, gradient, passes * len(rows), 0.0, 0.0)

    def _one(self, at: Sequence[float], split: Split, index: int) -> tuple[float, np.ndarray]:
        each = self.data[split].rows[index]
        away = np.asarray(at) - self._centers[f"{split}:{each.id}"]
        curvature = np.asarray(self.curvatures.get(each.set, 1.0))
        return self.floor + float(np.sum(curvature * away**2) / 2), curvature * away


def scored(proposal: Proposal, found: Losses) -> Evaluation:
    """Return an evaluation of which only the losses matter."""
    return Evaluation(found, (), (), False, None, 0, 0.0, 0.0)


Try = Callable[[Proposal], Evaluation | None]


def play(strategy: Strategy, evaluate: Try, *, workers: int = 1, seed: int = 0, most: int = 20_000) -> list[Proposal]:
    """Run a strategy to its end with so many workers, whose results come in a random order; return all it proposed."""
    made: list[Proposal] = []
    running: list[Proposal] = []
    order = random.Random(seed)
    while len(made) < most:
        while len(running) < workers and (proposal := strategy.ask()) is not None:
            assert proposal.number == len(made), "proposals are numbered from 0 as they are asked for"
            made.append(proposal)
            running.append(proposal)
        if not running:
            break
        done = running.pop(order.randrange(len(running)))
        strategy.tell(done, evaluate(done))
    assert strategy.ended
    assert strategy.ask() is None, "what has ended proposes nothing more"
    return made


def best(proposals: Sequence[Proposal], value: Callable[[Proposal], object]) -> Proposal:
    """Return the candidate of the lowest value."""
    return min((p for p in proposals if p.candidate), key=value)  # type: ignore[type-var, return-value]


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    return math.dist(one, other) / math.sqrt(len(one))
