"""The report in short, as Markdown for a README: results with intervals, and the audit in a few lines."""

from __future__ import annotations

from collections.abc import Sequence

from unspoiled.evaluate import ModelScores
from unspoiled.report._glance import glance
from unspoiled.report._inputs import ReportInputs
from unspoiled.report._markdown_text import code_block, plain, table
from unspoiled.report._spoiler import audited, spoiler_sentence
from unspoiled.report._verdict import guard_note, splits_line, verdict
from unspoiled.report._wording import (
    count,
    mean_interval,
    means_legend,
    measure_name,
    number,
    rate_with_interval,
    signed,
    term_name,
)


def render_markdown(inputs: ReportInputs) -> str:
    """Return the report in short: the verdict, what it is beside, the results, the audit, how to get them again.

    Every text from elsewhere is escaped, so that it shows as it is.
    """
    notes = [note for note in (guard_note(inputs), splits_line(inputs)) if note]
    parts = [
        f"## {plain(inputs.title)}",
        *(plain(sentence) for sentence in verdict(inputs)),
        _glance(inputs),
        _results(inputs),
        *(plain(note) for note in notes),
        *_audits(inputs),
        f"To get these numbers again:\n\n{code_block(inputs.command)}" if inputs.command else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _glance(inputs: ReportInputs) -> str:
    rows = []
    for row in glance(inputs):
        for place, gap in enumerate(row.gaps):
            answer = f"**{plain(row.answer)}** ({row.detail})"
            first = [plain(row.question), answer] if place == 0 else ["", ""]
            rows.append([*first, plain(f"{gap.other}, {gap.rate}"), gap.difference, gap.interval, gap.outcome])
        if not row.gaps:
            rows.append([plain(row.question), f"**{plain(row.answer)}**", plain(row.detail), "", "", ""])
    header = ["question", "answer", "beside", "difference", "95% interval", "outcome"]
    return table(header, rows, left=3) if rows else ""


def _results(inputs: ReportInputs) -> str:
    rates, means = inputs.results.rates, inputs.results.means
    rows = [
        [f"**{plain(name)}**" if name == inputs.winner else plain(name), *(_cell(scores, m) for m in [*rates, *means])]
        for name, scores in inputs.results.models.items()
    ]
    sizes = [_size(list(inputs.results.models.values()), measure) for measure in [*rates, *means]]
    header = ["model", *(plain(measure_name(measure)) for measure in [*rates, *means])]
    legend = "; ".join(filter(None, ["Shares of responses, with 95% Wilson intervals", means_legend(means)]))
    return f"{table(header, [*rows, ['responses', *sizes]])}\n\n{legend}."


def _cell(scores: ModelScores, measure: str) -> str:
    if measure in scores.rates:
        return rate_with_interval(scores.rates[measure])
    if measure in scores.means:
        mean = scores.means[measure]
        return f"{number(mean.mean, 3)} ({mean_interval(mean)})"
    return "–"


def _size(models: Sequence[ModelScores], measure: str) -> str:
    values = (of.rates.get(measure) or of.means.get(measure) for of in models)
    return next(count(value) for value in values if value is not None)


def _audits(inputs: ReportInputs) -> list[str]:
    parts = []
    for name, audit in audited(inputs):
        said = spoiler_sentence(name, audit)
        rows = [
            [
                plain(expert),
                *(
                    f"{signed(c.difference, 2)} ({signed(c.low, 2)} to {signed(c.high, 2)})" if c else "–"
                    for c in (changes.get(term) for term in audit.terms)
                ),
            ]
            for expert, changes in audit.without.items()
        ]
        header = ["without", *(plain(term_name(term)) for term in audit.terms)]
        parts += [plain(f"Audit: {said}."), table(header, rows)]
    return [*parts, "Changes of the losses, nats per token, with 95% intervals."] if parts else []
