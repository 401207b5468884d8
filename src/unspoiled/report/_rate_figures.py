"""Figures of measured rates: bars per measure, and refusal against accuracy.

Names of models enter as data under fixed field names, never as part of an expression: they are hostile text.
"""

from collections.abc import Collection, Mapping
from math import ceil, floor

from unspoiled.evaluate import REFUSAL, ModelScores
from unspoiled.report._figure_style import (
    ACCENT,
    INK,
    MUTED,
    QUIET,
    Frame,
    Margins,
    label_layers,
    label_width,
    percent_axis,
    styled,
    winner_colour,
)
from unspoiled.report._hostile_text import shortened, visible
from unspoiled.report._label_placement import Box, place_labels
from unspoiled.report._svg import draw
from unspoiled.report._wording import measure_name, percent

_LONGEST_LABEL = 24
_LONGEST_BAR_LABEL = 14
_SCATTER_MARGINS = Margins(left=58, top=10, right=34, bottom=44)


def rate_bars(models: Mapping[str, ModelScores], measure: str, winner: str, figure_id: str) -> str:
    """Draw one measure of every model as bars with 95% whiskers, the winner in the accent colour.

    Args:
        models: the scores by model; those without this measure are left out.
        measure: a name as in `ModelScores.rates`.
        winner: the model to stand out.
        figure_id: makes the ids in the figure unique on the page.
    """
    import altair as alt

    rows: list[dict[str, str | float]] = []
    for name, scores in models.items():
        rate = scores.rates.get(measure)
        if rate is not None:
            label: dict[str, str | float] = {
                "model": visible(name),
                "label": shortened(name, _LONGEST_BAR_LABEL),
                "text": percent(rate.rate, 0),
            }
            rows.append({**label, **rate.model_dump(), "row": len(rows), "winner": name == winner})
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("row:O", axis=None))
    scale = alt.Scale(domain=[0, 1])
    share = alt.X("rate:Q", scale=scale, axis=percent_axis([0, 0.5, 1]), title=None)
    layers = [
        base.mark_bar(height=11).encode(x=share, color=winner_colour(QUIET)),
        base.mark_rule(color=INK, strokeWidth=1.1).encode(x="low:Q", x2="high:Q"),
        base.mark_tick(color=INK, size=7, thickness=1.1).encode(x="low:Q"),
        base.mark_tick(color=INK, size=7, thickness=1.1).encode(x="high:Q"),
    ]
    for which, weight in (("datum.winner", "bold"), ("!datum.winner", "normal")):
        writing = base.transform_filter(which).mark_text(align="right", color=INK, fontSize=12, fontWeight=weight)
        layers.append(writing.encode(x=alt.value(-8), text="label:N"))
        layers.append(writing.encode(x=alt.value(202), text="text:N"))
    longest = max((len(str(row["label"])) for row in rows), default=0)
    margins = Margins(left=label_width(longest) + 12, top=4, right=46, bottom=22)
    said = "; ".join(f"{row['model']} {row['text']}" for row in rows)
    return draw(
        styled(alt.layer(*layers).properties(width=160, height=22 * len(rows)), margins),
        title=visible(f"{measure_name(measure)} by model"),
        description=f"Bars with 95% intervals. {said}.",
        figure_id=figure_id,
    )


def refusal_against_accuracy(
    models: Mapping[str, ModelScores], domain: str, winner: str, parents: Collection[str], figure_id: str
) -> str:
    """Draw refusal against accuracy in one domain, with 95% whiskers both ways; parents hollow, merges
    filled.

    Args:
        models: the scores by model; those not measured in this domain are left out.
        domain: the domain's name.
        winner: the model to stand out.
        parents: the base and the experts.
        figure_id: makes the ids in the figure unique on the page.
    """
    import altair as alt

    shown = {name: scores for name, scores in models.items() if domain in scores.domains and REFUSAL in scores.rates}
    left = floor(10 * min(scores.domains[domain].low for scores in shown.values())) / 10
    right = max(ceil(10 * max(scores.domains[domain].high for scores in shown.values())) / 10, left + 0.1)
    frame = Frame(left, right, 0.0, 1.0, width=390.0, height=300.0)
    rows, whiskers = [], []
    for name, scores in shown.items():
        x, y = scores.domains[domain], scores.rates[REFUSAL]
        row = {"x": x.rate, "x_low": x.low, "x_high": x.high, "y": y.rate, "y_low": y.low, "y_high": y.high}
        rows.append({**row, "winner": name == winner, "parent": name in parents})
        whiskers += [frame.box(x.low, x.high, y.rate, y.rate), frame.box(x.rate, x.rate, y.low, y.high)]
    names = [shortened(name, _LONGEST_LABEL) for name in shown]
    centres = [frame.pixel(scores.domains[domain].rate, scores.rates[REFUSAL].rate) for scores in shown.values()]
    placed = place_labels(centres, names, Box(0, 0, frame.width, frame.height), whiskers)
    across = alt.X(
        "x:Q",
        scale=alt.Scale(domain=[left, right]),
        axis=percent_axis(),
        title=f"accuracy in {shortened(domain, 40)}",
    )
    up = alt.Y(
        "y:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=percent_axis([0, 0.25, 0.5, 0.75, 1]),
        title="refusal of unsafe prompts",
    )
    data = alt.Chart(alt.Data(values=rows))
    whisker = data.mark_rule(strokeWidth=1.1).encode(color=winner_colour(QUIET))
    parent = data.transform_filter("datum.parent").mark_point(filled=False, size=48, strokeWidth=1.7, color=MUTED)
    merge = data.transform_filter("!datum.parent").mark_point(filled=True, size=80, opacity=1, shape="diamond")
    colours = [ACCENT if name == winner else INK for name in shown]
    layers = [
        whisker.encode(x="x_low:Q", x2="x_high:Q", y=up),
        whisker.encode(x=across, y="y_low:Q", y2="y_high:Q"),
        parent.encode(x=across, y=up),
        merge.encode(x=across, y=up, color=winner_colour(MUTED)),
        *label_layers(frame, names, placed, colours, across, up),
    ]
    said = "; ".join(
        f"{visible(name)}: accuracy {percent(scores.domains[domain].rate, 0)}, "
        f"refusal {percent(scores.rates[REFUSAL].rate, 0)}"
        for name, scores in shown.items()
    )
    return draw(
        styled(alt.layer(*layers).properties(width=frame.width, height=frame.height), _SCATTER_MARGINS),
        title=visible(f"Refusal against accuracy in {domain}"),
        description=f"Points with 95% intervals on both axes. {said}.",
        figure_id=figure_id,
    )
