"""Every figure of a report, drawn once, for the page and as files for a paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unspoiled.config import UNIFORM
from unspoiled.files import write_atomic
from unspoiled.report._audit_figures import changes_figure, layer_map
from unspoiled.report._axes import Figure
from unspoiled.report._drawing import as_file
from unspoiled.report._inputs import CoefficientTable, ReportInputs
from unspoiled.report._rate_figures import category_bars, rate_bars
from unspoiled.report._search_figures import coefficient_map, progress_figure, search_progress
from unspoiled.report._spoiler import audited
from unspoiled.report._trade_off_figure import trade_off

_PNG_SCALE = 3.0
"""Pixels of a PNG per pixel of the page: about 300 per inch at a paper's column width."""


@dataclass(frozen=True)
class Figures:
    """The figures by what they show; those of nothing measured are absent."""

    trade_offs: dict[str, Figure]
    """By the skill's measure."""
    rates: dict[str, Figure]
    """By measure."""
    categories: Figure | None
    norms: Figure | None
    changes: dict[str, Figure]
    """By audited merge."""
    attribution: dict[str, Figure]
    """By audited merge."""
    progress: Figure | None
    coefficients: dict[str, Figure]
    """By merge, the winner first."""

    def __iter__(self) -> Iterator[Figure]:
        for group in (self.trade_offs, self.changes, self.attribution, self.rates, self.coefficients):
            yield from group.values()
        yield from (figure for figure in (self.categories, self.norms, self.progress) if figure)


def draw_figures(inputs: ReportInputs) -> Figures:
    """Draw every figure that the inputs have something for."""
    models, winner, safety = inputs.results.models, inputs.winner, inputs.safety_measure
    skills = [
        measure
        for measure in inputs.results.rates
        if any(measure in of.skills and safety in of.rates for of in models.values())
    ]
    vectors = inputs.audit.task_vectors if inputs.audit else None
    progress = search_progress(inputs.trials)
    recipes = {name: table for name, table in _winner_first(inputs) if table.rows and table.columns}
    limit = max((abs(v) for table in recipes.values() for row in table.values for v in row), default=0.0)
    return Figures(
        trade_offs={
            skill: trade_off(models, skill, safety or "", winner, inputs.experts, f"trade-off-{i}")
            for i, skill in enumerate(skills)
        },
        rates={m: rate_bars(models, m, winner, f"rate-{i}") for i, m in enumerate(inputs.results.rates)},
        categories=category_bars(models, category_models(inputs), safety, winner, "categories")
        if safety and any(safety in rates for of in models.values() for rates in of.categories.values())
        else None,
        norms=layer_map(
            "Size of each expert's task vector by layer", vectors.layers, vectors.relative_norms, "norms",
            unit="of the base's weights there", signed=False,
        )
        if vectors and vectors.relative_norms
        else None,
        changes={
            name: changes_figure(f"{name} without an expert, or with it halved", audit, f"changes-{i}")
            for i, (name, audit) in enumerate(audited(inputs))
            if audit.without
        },
        attribution={
            name: layer_map(
                f"Where the harm enters {name}", audit.layers, audit.attribution, f"attribution-{i}",
                unit="nats of CE_safety: orange adds, blue takes away", signed=True,
            )
            for i, (name, audit) in enumerate(audited(inputs))
            if audit.attribution
        },
        progress=progress_figure(progress, winner, "progress") if progress else None,
        coefficients={
            name: coefficient_map(name, table, limit or 1.0, f"coefficients-{i}")
            for i, (name, table) in enumerate(recipes.items())
        },
    )  # fmt: skip


def category_models(inputs: ReportInputs) -> list[str]:
    """Return the models whose categories are shown: the parents, the uniform merge and the winner, else all."""
    chosen = [*inputs.parents, UNIFORM, *([inputs.winner] if inputs.winner else [])]
    names = list(inputs.results.models)
    return [name for name in names if name in chosen] if inputs.winner else names


def write_figures(inputs: ReportInputs, directory: Path) -> list[Path]:
    """Write every figure as SVG and PNG, light and on white, and return the paths; the directory is made.

    Raises:
        OSError: The directory can't be made or written.
    """
    import vl_convert

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in draw_figures(inputs):
        svg = as_file(figure.svg)
        for path, content in (
            (directory / f"{figure.name}.svg", svg),
            (directory / f"{figure.name}.png", vl_convert.svg_to_png(svg, scale=_PNG_SCALE)),
        ):
            write_atomic(path, content)
            written.append(path)
    return written


def _winner_first(inputs: ReportInputs) -> Sequence[tuple[str, CoefficientTable]]:
    return sorted(inputs.recipes.items(), key=lambda item: item[0] != inputs.winner)
