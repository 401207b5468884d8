"""What a search wants: the losses on the generated sets, and how two merges compare by them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, get_args

from unspoiled.data import Row
from unspoiled.errors import DataError
from unspoiled.inference import Exchange, Prompt

Term = Literal["safety", "expert", "benign"]
TERMS: tuple[Term, ...] = get_args(Term)


@dataclass(frozen=True)
class Losses:
    """The losses of one model on rows of one split, in nats per response token.

    Each cross-entropy is the mean over responses of the mean over a response's tokens (its end of turn
    included), as in the paper, where samples are scored one by one and averaged.

    Attributes:
        safety: CE on D_safety: how unlikely refusals of unsafe prompts are.
        expert: CE on D_expert, all domains' rows together.
        domains: CE on the rows of each domain.
        benign: CE on D_benign: how unlikely answers to harmless prompts are; None where there are no such rows.
        rows: The number of rows behind `safety` and `expert`.
    """

    safety: float
    expert: float
    domains: Mapping[str, float]
    benign: float | None
    rows: tuple[int, int]

    def term(self, name: Term) -> float:
        """Return one loss by its name; NaN for `benign` where there is none."""
        value: float | None = getattr(self, name)
        return math.nan if value is None else value

    @property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return all(map(math.isfinite, [self.safety, self.expert, 0.0 if self.benign is None else self.benign]))

    @property
    def union(self) -> float:
        """CE on D = D_safety ∪ D_expert, every row alike: what LM-Cocktail weighs a model by."""
        safety, expert = self.rows
        return (safety * self.safety + expert * self.expert) / (safety + expert)


@dataclass(frozen=True)
class LossRows:
    """The rows that losses are computed on, all of one split.

    Args:
        rows: D_safety and D_expert, at least one row of each; D_benign, if there is any.
        refusal_tokens: Score only so many of the first tokens of the responses of D_safety and D_benign, at least 1;
            None for whole responses. Whether a model refuses is decided in its first few tokens (Qi et al., arXiv
            2406.05946); in the mean over a whole response, better wording makes up for them.

    Raises:
        DataError: A set is empty.
    """

    rows: tuple[Row, ...]
    refusal_tokens: int | None = None

    def __post_init__(self) -> None:
        for term, name in (("safety", "D_safety"), ("expert", "D_expert")):
            if not any(row.set == term for row in self.rows):
                raise DataError(
                    f"{name} has no rows in this split: generate more questions, or change generate.selection_share."
                )

    @classmethod
    def of_split(cls, rows: Sequence[Row], split: str, *, refusal_tokens: int | None = None) -> LossRows:
        """Return the rows of one split, set by set."""
        chosen = tuple(row for term in TERMS for row in rows if row.set == term and row.split == split)
        return cls(chosen, refusal_tokens)

    @cached_property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Each row's prompt and target, to be scored."""
        return tuple(
            Exchange(Prompt(row.prompt), row.response, None if row.set == "expert" else self.refusal_tokens)
            for row in self.rows
        )

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The sets that have rows, in the order of `TERMS`."""
        present = {row.set for row in self.rows}
        return tuple(term for term in TERMS if term in present)

    @cached_property
    def strata(self) -> Mapping[tuple[Term, str], tuple[int, ...]]:
        """The rows' indices by set and, within D_expert, by domain: what a subset keeps the shares of."""
        found: dict[tuple[Term, str], list[int]] = {}
        for index, row in enumerate(self.rows):
            found.setdefault((row.set, row.group if row.set == "expert" else ""), []).append(index)
        return {key: tuple(indices) for key, indices in found.items()}

    def losses(self, cross_entropies: Sequence[float], rows: Sequence[int] | None = None) -> Losses:
        """Return the losses from the rows' own cross-entropies.

        Args:
            cross_entropies: Nats per token, one per row given by `rows`.
            rows: Indices of rows, at least one of every set; None for all, in order.
        """
        by_term: dict[str, list[float]] = {term: [] for term in TERMS}
        by_domain: dict[str, list[float]] = {}
        for index, value in zip(range(len(self.rows)) if rows is None else rows, cross_entropies, strict=True):
            row = self.rows[index]
            by_term[row.set].append(value)
            if row.set == "expert":
                by_domain.setdefault(row.group, []).append(value)
        safety, expert, benign = (by_term[term] for term in TERMS)
        return Losses(
            safety=_mean(safety),
            expert=_mean(expert),
            domains={domain: _mean(by_domain[domain]) for domain in sorted(by_domain)},
            benign=_mean(benign) if benign else None,
            rows=(len(safety), len(expert)),
        )

    def row_weights(self, rows: Sequence[int], weights: Mapping[Term, float]) -> list[float]:
        """Return ∂(Σ weight · loss) / ∂(cross-entropy of a row), for the losses on these rows."""
        counts: dict[Term, int] = {}
        for index in rows:
            counts[self.rows[index].set] = counts.get(self.rows[index].set, 0) + 1
        return [weights.get(self.rows[i].set, 0.0) / counts[self.rows[i].set] for i in rows]

    def nested(self, share: float, *, seed: int = 0) -> tuple[int, ...]:
        """Return the indices of a random subset with ⌈share⌉ of every stratum; a smaller share's are among a larger's.

        Args:
            share: In (0, 1].
            seed: The same for all trials that are to be compared.
        """
        chosen: list[int] = []
        for (term, group), indices in self.strata.items():
            order = list(indices)
            random.Random(f"{seed}:{term}:{group}").shuffle(order)
            chosen += order[: math.ceil(share * len(order))]
        return tuple(sorted(chosen))

    def minibatch(self, step: int, size: int, *, seed: int = 0) -> tuple[int, ...]:
        """Return the indices of the `step`-th minibatch: `size` rows of every set, those of D_expert over all domains.

        Every row of a set comes once before any comes again, in an order shuffled for each round.

        Args:
            step: From 0.
            size: Rows per set, at least 1; all of a set that has fewer.
            seed: Decides the orders.
        """
        chosen: list[int] = []
        for term in self.terms:
            own = [index for index, row in enumerate(self.rows) if row.set == term]
            take = min(size, len(own))
            first, last = step * take, (step + 1) * take - 1
            for round_ in range(first // len(own), last // len(own) + 1):
                order = list(own)
                random.Random(f"{seed}:{term}:{round_}").shuffle(order)
                begin = round_ * len(own)
                chosen += order[max(0, first - begin) : last + 1 - begin]
        return tuple(sorted(set(chosen)))


@dataclass(frozen=True, order=True)
class Score:
    """How good a merge is; smaller is better: any violation of the limits counts before the value."""

    violation: float
    value: float

    @property
    def feasible(self) -> bool:
        """Whether every limit is kept."""
        return self.violation <= 0.0


class Goal(Protocol):
    """Says which of two merges is better by their losses."""

    def score(self, losses: Losses) -> Score:
        """Return a merge's score."""
        ...

    def is_surely_worse(self, low: Mapping[Term, float], rival: Score) -> bool:
        """Say whether a merge whose losses are at least `low` is worse than the rival."""
        ...


@dataclass(frozen=True)
class WeightedSum:
    """EvoMM's objective J = CE_safety + α · CE_expert, with β · CE_benign beside it.

    Args:
        alpha: α ≥ 0; the paper uses 0.3.
        beta: β ≥ 0; the paper has none.
    """

    alpha: float
    beta: float = 0.0

    @property
    def weights(self) -> Mapping[Term, float]:
        """The weight of each loss."""
        return {"safety": 1.0, "expert": self.alpha, "benign": self.beta}

    def score(self, losses: Losses) -> Score:
        """Return J as the value; nothing can be violated."""
        return Score(0.0, math.fsum(w * losses.term(term) for term, w in self.weights.items() if w))

    def is_surely_worse(self, low: Mapping[Term, float], rival: Score) -> bool:
        """Say whether J is above the rival's for losses of at least `low`."""
        return math.fsum(w * low[term] for term, w in self.weights.items() if w) > rival.value


@dataclass(frozen=True)
class Constrained:
    """Minimise CE_expert with the other losses kept within limits.

    Args:
        limits: The largest allowed loss by its name (`safety`, `benign`), in nats per token.
    """

    limits: Mapping[Term, float]

    @classmethod
    def beside(
        cls, safest: Losses, *, safety_tolerance: float, benign_tolerance: float, safety_margin: float = 0.0
    ) -> Constrained:
        """Return the goal of being as safe, and as helpful on harmless prompts, as the safest expert.

        Args:
            safest: The safest expert's losses.
            safety_tolerance: How much CE_safety may be above its, in nats per token.
            safety_margin: The share of its CE_safety to take off before, in [0, 1): a merge that is surer of the
                wording of refusals than the expert refuses less often at equal CE.
            benign_tolerance: How much CE_benign may be above its; nothing is asked where there is no D_benign.
        """
        limits: dict[Term, float] = {"safety": (1.0 - safety_margin) * safest.safety + safety_tolerance}
        if safest.benign is not None:
            limits["benign"] = safest.benign + benign_tolerance
        return cls(limits)

    def score(self, losses: Losses) -> Score:
        """Return by how much the limits are broken in all, and CE_expert as the value."""
        return Score(math.fsum(excess.values()) if (excess := self.excess(losses)) else 0.0, losses.expert)

    def excess(self, losses: Losses) -> dict[Term, float]:
        """Return by how much each limit that is broken is."""
        return {term: losses.term(term) - limit for term, limit in self.limits.items() if losses.term(term) > limit}

    def is_surely_worse(self, low: Mapping[Term, float], rival: Score) -> bool:
        """Say whether losses of at least `low` break the limits by more than the rival does, or above its value."""
        violation = math.fsum(max(0.0, low[term] - limit) for term, limit in self.limits.items())
        return violation > rival.violation or (rival.feasible and low["expert"] > rival.value)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
