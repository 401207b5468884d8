"""The report: one HTML file that needs no network, runs no script, and trusts no text in it."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from unspoiled.evaluate import Comparison, higher_is_better
from unspoiled.files import write_atomic
from unspoiled.report import _wording
from unspoiled.report._hostile_text import visible
from unspoiled.report._inputs import CoefficientTable, ReportInputs
from unspoiled.report._rate_figures import rate_bars, refusal_against_accuracy
from unspoiled.report._responses import side_by_side
from unspoiled.report._search_figures import coefficient_map, progress_figure, search_progress
from unspoiled.report._verdict import UNIFORM, guard_note, verdict


def render_report(inputs: ReportInputs) -> str:
    """Return the report as one self-contained HTML page.

    Every text from a model or a config is escaped, and what could hide or move text is made visible. The
    page's Content-Security-Policy allows its own style sheet and nothing else. Same inputs, same page, byte
    for byte.
    """
    import jinja2

    style = _resource("style.css")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_made_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(_wording, name) for name in _WORDING})
    environment.tests["wanted_high"] = higher_is_better
    template = environment.from_string(_resource("template.html.j2"))
    return template.render(
        inputs=inputs,
        results=inputs.results,
        measures=inputs.results.rates,
        domains=inputs.results.domains,
        marks=_wording.MARKS,
        marked_against=_marked_against(inputs),
        verdict=verdict(inputs),
        guard_note=guard_note(inputs),
        figures=_figures(inputs),
        progress=search_progress(inputs.trials),
        responses=side_by_side(inputs.responses),
        counts=list(dict.fromkeys(name for counts in inputs.yields.values() for name in counts)),
        style=_Trusted(style),
        style_hash=b64encode(sha256(style.encode()).digest()).decode(),
    )


def write_report(inputs: ReportInputs, path: Path) -> None:
    """Render the report and put it in place at once: a reader sees the old page or the new one, never a part.

    Raises:
        OSError: when the directory is missing or can't be written.
    """
    write_atomic(path, render_report(inputs))


_WORDING = ("percent", "interval", "points", "number", "p_value", "measure_name", "seconds", "resolvable")


@dataclass(frozen=True)
class _Trusted:
    """Markup of our own making, which the template prints as it is; jinja2 asks for `__html__`."""

    markup: str

    def __html__(self) -> str:
        return self.markup


@dataclass(frozen=True)
class _Figures:
    rates: Mapping[str, _Trusted]
    domains: Mapping[str, _Trusted]
    progress: _Trusted | None
    coefficients: Mapping[str, _Trusted]


def _figures(inputs: ReportInputs) -> _Figures:
    models, winner = inputs.results.models, inputs.winner
    parents = {"base", *inputs.experts}
    progress = search_progress(inputs.trials)
    recipes = {name: table for name, table in _winner_first(inputs) if table.rows and table.columns}
    limit = max((abs(v) for table in recipes.values() for row in table.values for v in row), default=0.0)
    return _Figures(
        rates={
            measure: _Trusted(rate_bars(models, measure, winner, f"rate-{index}"))
            for index, measure in enumerate(inputs.results.rates)
        },
        domains={
            domain: _Trusted(refusal_against_accuracy(models, domain, winner, parents, f"domain-{index}"))
            for index, domain in enumerate(inputs.results.domains)
        },
        progress=_Trusted(progress_figure(progress, winner, "progress")) if progress else None,
        coefficients={
            name: _Trusted(coefficient_map(name, table, limit or 1.0, f"coefficients-{index}"))
            for index, (name, table) in enumerate(recipes.items())
        },
    )


def _winner_first(inputs: ReportInputs) -> Iterator[tuple[str, CoefficientTable]]:
    yield from sorted(inputs.recipes.items(), key=lambda item: item[0] != inputs.winner)


def _marked_against(inputs: ReportInputs) -> Mapping[tuple[str, str], Comparison]:
    """Return the comparisons with the uniform merge, by model and measure: the marks in the results table."""
    rows = inputs.results.comparisons
    return {(row.model, row.measure): row for row in rows if row.baseline == UNIFORM}


def _made_visible(value: Any) -> Any:
    return visible(value) if type(value) is str else value


def _resource(name: str) -> str:
    return files("unspoiled.report").joinpath(name).read_text(encoding="utf-8")
