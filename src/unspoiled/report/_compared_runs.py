"""Several runs on one page: their chosen merges beside their parents, and whether the numbers can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unspoiled.config import BASE, UNIFORM
from unspoiled.evaluate import DOMAIN_PREFIX, REFUSAL, SAFE_PREFIX, Results
from unspoiled.report._axes import Figure
from unspoiled.report._page import measure_tables, render
from unspoiled.report._trade_off_figure import RunPoints, overlay


@dataclass(frozen=True)
class ComparedRun:
    """One run, as the page of several shows it.

    Args:
        name: What the page calls it.
        results: What was measured.
        config: The run's config as plain values; empty where nothing but results is there.
    """

    name: str
    results: Results
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def winner(self) -> str | None:
        """The chosen merge, if one was chosen and measured."""
        named = self.results.provenance.get("winner")
        return named if named in self.results.models else None

    @property
    def experts(self) -> list[str]:
        """The experts that were measured; none if the config doesn't name them."""
        bunch = self.config.get("bunch")
        named = bunch.get("experts", {}) if isinstance(bunch, dict) else {}
        return [name for name in self.results.models if name in named]

    @property
    def shown(self) -> list[str]:
        """The models of the page: the winner, its parents and the uniform merge; all where nothing was chosen."""
        models = list(self.results.models)
        if self.winner is None:
            return models
        return [self.winner, *(n for n in models if n != self.winner and n in (BASE, UNIFORM, *self.experts))]


def render_runs(runs: Sequence[ComparedRun]) -> str:
    """Return one self-contained page on several runs, escaped and without network as the report is.

    Raises:
        ValueError: There are fewer than two, or two have one name.
    """
    if len(runs) < 2:
        raise ValueError(f"a comparison needs two runs or more, got {len(runs)}")
    if len({run.name for run in runs}) < len(runs):
        raise ValueError(f"two runs have one name: {[run.name for run in runs]}")
    measures = {m: None for run in runs for m in (*run.results.rates, *run.results.means)}
    return render(
        "runs.html.j2",
        runs=runs,
        title=f"{len(runs)} runs side by side",
        tables=measure_tables(_all_models(runs)),
        figures=_figures(runs, list(measures)),
        incomparable=incomparable(runs),
        config_differences=config_differences(runs),
    )


def incomparable(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Return, by what differs of guards and test sets, each run's value: with these the numbers can't be compared."""
    return _differing([_measured_by(run.results) for run in runs])


def _measured_by(results: Results) -> dict[str, str]:
    """Return of the provenance what the numbers depend on beside the models: judges, test sets, settings.

    Guards that only filtered data, the taxonomy of the data, and the audit's trigger suites are no part of it.
    """
    keys = {"guard", "file unsafe", "file harmless"}
    keys |= {f"guard {m.removeprefix(SAFE_PREFIX)}" for m in results.rates if m.startswith(SAFE_PREFIX)}
    keys |= {f"file {m.removeprefix(DOMAIN_PREFIX)} test" for m in results.rates if m.startswith(DOMAIN_PREFIX)}
    return {k: v for k, v in results.provenance.items() if k in keys or k.startswith(("task ", "measured: "))}


def config_differences(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Return, by dotted key, each run's value of what differs between the configs."""
    return _differing([_flat(run.config) for run in runs])


def _differing(values: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    keys = list(dict.fromkeys(key for own in values for key in own))
    rows = {key: [own.get(key, "–") for own in values] for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    """Return a config's leaves by dotted key; lists are leaves."""
    if not isinstance(value, Mapping):
        return {prefix: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
    leaves: dict[str, str] = {}
    for name, inner in value.items():
        leaves |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return leaves


def _all_models(runs: Sequence[ComparedRun]) -> Results:
    models = {f"{run.name}/{name}": run.results.models[name] for run in runs for name in run.shown}
    return Results(models=models, comparisons=[], provenance={})


def _figures(runs: Sequence[ComparedRun], measures: Sequence[str]) -> dict[str, Figure]:
    safety = next((m for m in measures if m == REFUSAL or m.startswith(SAFE_PREFIX)), None)
    points = {run.name: RunPoints(run.results.models, run.winner, [BASE, *run.experts]) for run in runs}
    skills = [
        m
        for m in measures
        if any(m in of.skills and safety in of.rates for own in points.values() for of in own.models.values())
    ]
    return {skill: overlay(points, skill, safety or "", f"runs-{i}") for i, skill in enumerate(skills)}
