"""The report: one HTML file that needs no network and trusts no text in it; its one script only filters rows."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from unspoiled.config import UNIFORM
from unspoiled.evaluate import Comparison, Results, higher_is_better, is_skill
from unspoiled.files import write_atomic
from unspoiled.report import _wording
from unspoiled.report._figures import category_models, draw_figures
from unspoiled.report._glance import glance
from unspoiled.report._hostile_text import visible
from unspoiled.report._inputs import ReportInputs
from unspoiled.report._responses import side_by_side
from unspoiled.report._search_figures import search_progress
from unspoiled.report._spoiler import audited, spoiler_sentence
from unspoiled.report._verdict import guard_note, splits_line, verdict

_MOST_BYTES = 2_850_000
"""Of the page: under 3 MB, with room for what is estimated."""
_LICENSE = "license "
"""What the keys of licences in the provenance begin with."""


def render_report(inputs: ReportInputs) -> str:
    """Return the report as one self-contained HTML page.

    Every text from a model or a config is escaped, and what could hide or move text is made visible. The
    page's Content-Security-Policy allows its own style sheet and script and nothing else. Same inputs, same page, byte
    for byte. The responses take what the rest leaves of 3 MB.
    """
    shown = {
        "inputs": inputs,
        "results": inputs.results,
        "tables": measure_tables(inputs.results),
        "marked_against": _marked_against(inputs.results),
        "verdict": verdict(inputs),
        "glance": glance(inputs),
        "guard_note": guard_note(inputs),
        "splits_line": splits_line(inputs),
        "comparisons": _own_first(inputs),
        "figures": draw_figures(inputs),
        "category_models": category_models(inputs),
        "categories": list(dict.fromkeys(c for of in inputs.results.models.values() for c in of.categories)),
        "audited": audited(inputs),
        "spoils": {name: spoiler_sentence(name, audit) for name, audit in audited(inputs)},
        "progress": search_progress(inputs.trials),
        "counts": list(dict.fromkeys(name for counts in inputs.yields.values() for name in counts)),
        "licences": {k.removeprefix(_LICENSE): v for k, v in _licensed(inputs.results.provenance, of=True).items()},
        "provenance": _licensed(inputs.results.provenance, of=False),
    }
    without = render("report.html.j2", **shown, browser=side_by_side([], 0))
    room = max(0, _MOST_BYTES - len(without.encode()))
    if not inputs.responses:
        return without
    return render("report.html.j2", **shown, browser=side_by_side(inputs.responses, room))


def write_report(inputs: ReportInputs, path: Path) -> None:
    """Render the report and put it in place at once: a reader sees the old page or the new one, never a part.

    Raises:
        OSError: when the directory is missing or can't be written.
    """
    write_atomic(path, render_report(inputs))


@dataclass(frozen=True)
class MeasureTable:
    """The columns of one table of results: measures of safety, or of skill.

    Args:
        title: What stands above it.
        shares: What the rates are shares of.
        rates: The measures that are rates.
        means: Those that are means.
    """

    title: str
    shares: str
    rates: list[str]
    means: list[str]

    @property
    def legend(self) -> str:
        """What the numbers of the table are, each kind that is there, without a full stop."""
        rates = f"shares of {self.shares}, with 95% Wilson intervals" if self.rates else ""
        said = "; ".join(filter(None, [rates, _wording.means_legend(self.means)]))
        return f"{said[:1].upper()}{said[1:]}"


def measure_tables(results: Results) -> list[MeasureTable]:
    """Split what was measured into a table of safety and one of skill; an empty one is left out."""
    tables = [
        MeasureTable(title, shares, [m for m in results.rates if is_skill(m) == skill],
                     [m for m in results.means if is_skill(m) == skill])
        for title, shares, skill in (("Safety", "responses", False), ("Skill", "right answers", True))
    ]  # fmt: skip
    return [table for table in tables if table.rates or table.means]


def render(template: str, **shown: Any) -> str:
    """Return a page from one of our templates, with our style sheet and script and a policy that allows only them."""
    import jinja2

    style, script = _resource("style.css"), _resource("browse.js")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _resource(f"templates/{name}")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_made_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(_wording, name) for name in _WORDING})
    environment.filters["figure"] = lambda figure: _Trusted(figure.svg)
    environment.tests["wanted_high"] = higher_is_better
    return environment.get_template(template).render(
        **shown,
        marks=_wording.MARKS,
        uniform=UNIFORM,
        style=_Trusted(style),
        style_hash=_policy_hash(style),
        script=_Trusted(script),
        script_hash=_policy_hash(script),
    )


_WORDING = (
    "percent", "interval", "mean_interval", "points", "points_range", "number", "signed", "p_value", "measure_name",
    "seconds", "resolvable", "change", "change_range", "count", "term_name",
)  # fmt: skip


@dataclass(frozen=True)
class _Trusted:
    """Markup of our own making, which the template prints as it is; jinja2 asks for `__html__`."""

    markup: str

    def __html__(self) -> str:
        return self.markup


def _policy_hash(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def _own_first(inputs: ReportInputs) -> list[tuple[str, list[Comparison]]]:
    """Return the comparisons of the winner, and those of other models, with a title for each."""
    rows = inputs.results.comparisons
    own = [row for row in rows if inputs.winner in (row.model, row.baseline)]
    if inputs.winner is None or not own:
        return [("Paired comparisons", rows)] if rows else []
    other = [row for row in rows if row not in own]
    return [(f"Comparisons of {inputs.winner}", own), *([("Other comparisons", other)] if other else [])]


def _marked_against(results: Results) -> Mapping[tuple[str, str], Comparison]:
    """Return the comparisons with the uniform merge, by model and measure: the marks in the results table."""
    return {(row.model, row.measure): row for row in results.comparisons if row.baseline == UNIFORM}


def _licensed(provenance: Mapping[str, str], *, of: bool) -> dict[str, str]:
    return {key: value for key, value in provenance.items() if key.startswith(_LICENSE) == of}


def _made_visible(value: Any) -> Any:
    return visible(value) if type(value) is str else value


def _resource(name: str) -> str:
    return files("unspoiled.report").joinpath(name).read_text(encoding="utf-8")
