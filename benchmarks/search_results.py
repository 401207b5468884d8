"""What the benchmark of searching measured, as a page and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair

from unspoiled.evaluate import ModelScores
from worker_simulation import Scaling, stops_scaling

PER_TRIALS = "evolve"
"""The strategy whose end the others' compute is compared with."""


@dataclass(frozen=True)
class Curve:
    """J of the best recipe so far against the tokens spent until then, for one strategy and seed."""

    strategy: str
    seed: int
    points: tuple[tuple[int, float], ...]

    @property
    def end(self) -> float:
        """J of the best recipe."""
        return self.points[-1][1]

    @property
    def tokens(self) -> int:
        """What the whole search cost, in tokens of a forward pass."""
        return self.points[-1][0]

    def tokens_to(self, value: float) -> float:
        """Return the tokens spent until J was at most `value`; infinity if it never was."""
        return next((tokens for tokens, found in self.points if found <= value), math.inf)


@dataclass(frozen=True)
class TestRates:
    """Rates on the test split, in [0, 1]."""

    __test__ = False  # not a test class, whatever its name suggests to pytest

    refusal: float
    over_refusal: float
    domains: Mapping[str, float]

    @classmethod
    def of(cls, scores: ModelScores) -> TestRates:
        """Take the rates alone."""
        domains = {name: rate.rate for name, rate in scores.domains.items()}
        return cls(scores.rates["refusal"].rate, scores.rates["over_refusal"].rate, domains)

    @property
    def mean(self) -> float:
        """The mean of refusals, answered harmless prompts, and the domains' mean accuracy."""
        accuracy = math.fsum(self.domains.values()) / len(self.domains)
        return (self.refusal + 1.0 - self.over_refusal + accuracy) / 3

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"refusal": self.refusal, "over_refusal": self.over_refusal, "domains": dict(self.domains)}

    @classmethod
    def from_json(cls, found: Any) -> TestRates:
        """Read what `as_json` returned."""
        return cls(**found)


def write_page(
    curves: Sequence[Curve],
    tests: Mapping[tuple[str, int], TestRates],
    scalings: Mapping[str, Sequence[Scaling]],
    machine: str,
    folder: Path,
) -> Path:
    """Write `search.md` and `search.svg` to `folder`; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    _figure(curves).save(folder / "search.svg")
    goal = max(curve.end for curve in curves if curve.strategy == PER_TRIALS)
    lines = [
        "# Search: what is reached for the compute",
        "",
        "Written by `python benchmarks/search.py RUN CONFIG --at DIR --write`; its docstring says what is measured.",
        f"On {machine}.",
        "",
        "![J against compute](search.svg)",
        "",
        "J = CE_safety + CE_expert + CE_benign on the search split, nats per token; tokens of a forward pass.",
        f"The last column is the compute until J is that of the worst end of `{PER_TRIALS}` ({goal:.3f}), over "
        f"`{PER_TRIALS}`'s whole compute.",
        "",
        "| strategy | seed | J | tokens | to evolve's J |",
        "|---|---|---|---|---|",
    ]
    whole = max(curve.tokens for curve in curves if curve.strategy == PER_TRIALS)
    for curve in curves:
        needed = curve.tokens_to(goal)
        share = f"{needed / whole:.3f}" if math.isfinite(needed) else "not reached"
        lines.append(f"| {curve.strategy} | {curve.seed} | {curve.end:.3f} | {curve.tokens:,} | {share} |")
    domains = list(next(iter(tests.values())).domains)
    lines += [
        "",
        "## On the test split",
        "",
        "Rates in % of the recipe that was best on the selection split, greedy answers. The last column is the mean of "
        "refusals, answered harmless prompts, and the domains' mean accuracy.",
        "",
        f"| strategy | seed | refusal | over-refusal | {' | '.join(domains)} | mean |",
        "|---|---|---|---|" + "---|" * (len(domains) + 1),
    ]
    for (strategy, seed), rates in tests.items():
        values = [rates.refusal, rates.over_refusal, *(rates.domains[name] for name in domains), rates.mean]
        lines.append(f"| {strategy} | {seed} | " + " | ".join(f"{100 * value:.1f}" for value in values) + " |")
    lines += ["", "## Simulated: many workers", ""]
    for title, table in scalings.items():
        lines += [
            f"{title}: stops scaling at {stops_scaling(table)} workers (twice as many gain less than 1.2 times).",
            "",
            "| workers | seconds | speed-up | busy | trials |",
            "|---|---|---|---|---|",
            *(f"| {s.workers} | {s.seconds:.1f} | {s.speedup:.2f} | {s.busy:.0%} | {s.trials} |" for s in table),
            "",
        ]
    path = folder / "search.md"
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def _figure(curves: Sequence[Curve]) -> altair.Chart:
    rows = [
        {"strategy": curve.strategy, "run": f"{curve.strategy} {curve.seed}", "tokens": tokens, "J": value}
        for curve in curves
        for tokens, value in curve.points
    ]
    axis = altair.X("tokens:Q", scale=altair.Scale(type="log"), title="tokens of a forward pass")
    return (
        altair.Chart(altair.Data(values=rows), width=560, height=320)
        .mark_line(interpolate="step-after", point=altair.OverlayMarkDef(size=12))
        .encode(x=axis, y=altair.Y("J:Q", scale=altair.Scale(zero=False)), color="strategy:N", detail="run:N")
    )
