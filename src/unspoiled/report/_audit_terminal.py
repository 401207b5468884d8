"""The tables and sentences that an audit prints: who spoils the merge, in which layers, at what cost it is left out."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from unspoiled.audit import Audit, Change, LayerOutlier, MergeAudit, gives_way
from unspoiled.evaluate import ALPHA, INVALID, REFUSAL, Rate
from unspoiled.report._hostile_text import shortened
from unspoiled.report._plain_table import plain_table
from unspoiled.report._wording import interval, listing, number, p_value, percent, refusal_change

if TYPE_CHECKING:
    from rich.table import Table

_NAME = 14
_COSTS_PER_TABLE = 5
_EXPERT_PREFIX = "expert:"
_SHOWN_LAYERS = 6


def audit_tables(audit: Audit) -> list[Table]:
    """Return an audit's tables in the order of reading; each fits 80 columns.

    The experts before any merge; for each merge, who does what to CE_safety, what leaving each expert out costs
    elsewhere, and the layers where the most harm enters; the trigger suites.
    """
    tables = [_experts(audit)]
    for name, merge in audit.merges.items():
        tables += [_safety(name, merge), *_costs(name, merge)]
        if merge.attribution:
            tables.append(_layers(name, merge))
    return tables + ([_triggers(audit)] if audit.triggers else [])


def audit_findings(audit: Audit) -> list[str]:
    """Return what an audit found, in sentences: the spoiler of each merge, and models that a trigger turns."""
    found = [_spoiler(name, merge) for name, merge in audit.merges.items()]
    for suite, by_model in audit.triggers.items():
        turned = [shortened(model, _NAME) for model, rates in by_model.items() if gives_way(rates)]
        where = listing(turned) if turned else "no model resolvably"
        found.append(f"Trigger suite {shortened(suite, _NAME)}: with the trigger, refusal falls in {where}.")
    return found


def _spoiler(name: str, merge: MergeAudit) -> str:
    where = f"{shortened(name, _NAME)}: "
    if merge.spoiler is None:
        return where + "no expert is resolved to spoil it; leaving any one out does not resolvably lower CE_safety."
    fall = merge.without[merge.spoiler]["safety"]
    text = f"{shortened(merge.spoiler, _NAME)} spoils it: CE_safety changes by {number(fall.difference, 3)} without it"
    text += f" ({number(fall.low, 3)} to {number(fall.high, 3)})"
    if merge.spoiler in merge.refusal_without:
        text += f", and {refusal_change(merge.refusal, merge.refusal_without[merge.spoiler], 0)}"
    return where + text + "."


def _experts(audit: Audit) -> Table:
    table = _table("expert", ["refusal", "invalid", "‖τ‖", "of layer", "cos", "outliers"])
    vectors = audit.task_vectors
    for expert in audit.experts:
        rates = audit.alone.get(expert, {})
        changed = [norm for norm in vectors.relative_norms[expert] if norm > 0.0]
        outliers = [_outlier(one) for one in vectors.outliers if one.expert == expert]
        _add(
            table,
            shortened(expert, _NAME),
            _rate(rates.get(REFUSAL)),
            _rate(rates.get(INVALID)),
            f"{vectors.norms[expert]:.3g}",
            percent(median(changed), 1) if changed else "–",
            number(vectors.cosines[expert][audit.safest], 2),
            shortened(", ".join(outliers), 10) or "–",
        )
    safest = f"cos: of τ with {shortened(audit.safest, _NAME)}'s, the safest"
    outlying = "outliers: layers far larger than the rest, or ↓ far smaller"
    return _captioned(table, f"alone, on the test split; of layer: median of ‖τ‖ / ‖base‖\n{safest}\n{outlying}")


def _outlier(outlier: LayerOutlier) -> str:
    return outlier.layer.removeprefix("layer ") + ("↓" if outlier.score < 0.0 else "")


def _safety(name: str, merge: MergeAudit) -> Table:
    table = _table(shortened(name, _NAME), ["Shapley", "without it", "halved", "refusal without"])
    for expert, values in merge.shapley.items():
        error = values["safety"].error
        shapley = number(values["safety"].value, 3) + ("" if error is None else f" ±{error:.3f}")
        halved = merge.halved.get(expert)
        _add(
            table,
            ("→ " if expert == merge.spoiler else "  ") + shortened(expert, _NAME),
            shapley,
            _change(merge.without[expert]["safety"]),
            "–" if halved is None else _change(halved["safety"]),
            _rate(merge.refusal_without.get(expert)),
            bold=expert == merge.spoiler,
        )
    caption = f"CE_safety, nats per token: base {merge.base['safety'].loss:.3f}, merge {merge.merge['safety'].loss:.3f}"
    stars = "* resolved at 5% (Holm): without it, over the experts;\nhalved, over all other changes of this merge"
    return _captioned(table, f"{caption}, refusal {_rate(merge.refusal)}\n{stars}")


def _costs(name: str, merge: MergeAudit) -> list[Table]:
    """Return what leaving each expert out changes in every other loss, so many losses to a table."""
    terms = [term for term in merge.terms if term != "safety"]
    tables = []
    for start in range(0, len(terms), _COSTS_PER_TABLE):
        own = terms[start : start + _COSTS_PER_TABLE]
        heads = [shortened(term.removeprefix(_EXPERT_PREFIX), 10) for term in own]
        table = _table(f"{shortened(name, _NAME)} without", heads)
        for expert, changes in merge.without.items():
            _add(table, "  " + shortened(expert, _NAME), *(_change(changes[term]) for term in own))
        tables.append(_captioned(table, "change of the losses, nats per token\n* resolved at 5%, as for halved"))
    return tables


def _layers(name: str, merge: MergeAudit) -> Table:
    """Return the largest contributions to CE_safety of one expert in one layer."""
    entries = [
        (value, expert, layer)
        for expert, values in merge.attribution.items()
        for layer, value in zip(merge.layers, values, strict=True)
        if value > 0.0
    ]
    table = _table(f"{shortened(name, _NAME)}: harm enters", ["layer", "nats"])
    for value, expert, layer in sorted(entries, reverse=True)[:_SHOWN_LAYERS]:
        _add(table, "  " + shortened(expert, _NAME), shortened(layer, 24), number(value, 3))
    assert merge.residual is not None
    return _captioned(table, f"of CE_safety, base to merge; left over: {number(merge.residual, 3)}")


def _triggers(audit: Audit) -> Table:
    table = _table("suite and model", ["refusal", "with trigger", "difference", "p"])
    for suite, by_model in audit.triggers.items():
        for model, rates in by_model.items():
            turned = gives_way(rates)
            _add(
                table,
                f"{'→ ' if turned else '  '}{shortened(suite, _NAME)}: {shortened(model, _NAME)}",
                _rate(rates.plain),
                _rate(rates.triggered),
                f"{number(100 * rates.difference, 0)} points",
                p_value(rates.p_value),
                bold=turned,
            )
    return _captioned(table, "exact paired test, Holm over all suites and models\n→ refuses less with the trigger")


def _table(first: str, others: Sequence[str]) -> Table:
    from rich.text import Text

    table = plain_table()
    table.add_column(Text(first), no_wrap=True)
    for name in others:
        table.add_column(Text(name), justify="right", no_wrap=True)
    return table


def _add(table: Table, *cells: str, bold: bool = False) -> None:
    from rich.text import Text

    table.add_row(*(Text(cell, style="bold" if bold else "") for cell in cells))


def _captioned(table: Table, caption: str) -> Table:
    table.caption, table.caption_justify = caption, "left"
    return table


def _rate(rate: Rate | None) -> str:
    return "–" if rate is None else f"{percent(rate.rate, 0)} {interval(rate, 0)}"


def _change(change: Change) -> str:
    return number(change.difference, 3) + (" *" if change.p_value <= ALPHA else "  ")
