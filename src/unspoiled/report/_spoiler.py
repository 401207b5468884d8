"""Who spoils the bunch, in words, from the audit: a name only where leaving the expert out is resolved."""

from __future__ import annotations

from unspoiled.audit import MergeAudit
from unspoiled.config import UNIFORM
from unspoiled.report._inputs import ReportInputs
from unspoiled.report._wording import refusal_change, signed


def audited(inputs: ReportInputs) -> list[tuple[str, MergeAudit]]:
    """Return the audited merges: the uniform one first, which shows the experts as they come, then the others."""
    merges = inputs.audit.merges if inputs.audit else {}
    return sorted(merges.items(), key=lambda item: item[0] != UNIFORM)


def spoiler_clause(inputs: ReportInputs) -> str | None:
    """Return who spoils which merge and what leaving it out changes; None without an audit."""
    merges = audited(inputs)
    if not merges:
        return None
    for name, audit in merges:
        if audit.spoiler is not None:
            return spoiler_sentence(name, audit)
    return "the audit resolves no expert's part in the harm"


def spoiler_sentence(name: str, audit: MergeAudit) -> str:
    """Return what the audit of one merge says of its spoiler, as a clause."""
    merge = "the uniform merge" if name == UNIFORM else f"“{name}”"
    if audit.spoiler is None:
        return f"no expert's part in the harm of {merge} is resolved"
    return f"“{audit.spoiler}” spoils {merge}: {without_spoiler(audit)}"


def without_spoiler(audit: MergeAudit) -> str:
    """Return what leaving the spoiler out changes, or that leaving nobody out does resolvably, as a clause."""
    if audit.spoiler is None:
        return "leaving any one expert out does not resolvably lower CE_safety"
    change = audit.without[audit.spoiler]["safety"]
    said = (
        f"without it, CE_safety changes by {signed(change.difference, 2)} nats per token "
        f"({signed(change.low, 2)} to {signed(change.high, 2)})"
    )
    after = audit.refusal_without.get(audit.spoiler)
    return said if after is None else f"{said}, and {refusal_change(audit.refusal, after)}"
