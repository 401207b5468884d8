"""Which expert, and which layers, spoil the bunch."""

from unspoiled.audit._attribution import attribution, layer_labels, why_no_attribution
from unspoiled.audit._coalition_recipes import alone, coalition, experts_of, weighted
from unspoiled.audit._coalitions import Attribution, Coalitions, audit_merge
from unspoiled.audit._losses import AuditRows, MergeLosses
from unspoiled.audit._record import (
    Audit,
    Change,
    LayerOutlier,
    MergeAudit,
    ShapleyValue,
    TaskVectors,
    Term,
    TriggerRates,
)
from unspoiled.audit._shapley import MOST_EXACT, shapley
from unspoiled.audit._task_vectors import task_vectors
from unspoiled.audit._triggers import (
    TriggerOutcome,
    TriggerPair,
    gives_way,
    read_trigger_suite,
    trigger_rates,
    try_triggers,
)

__all__ = [
    "MOST_EXACT",
    "Attribution",
    "Audit",
    "AuditRows",
    "Change",
    "Coalitions",
    "LayerOutlier",
    "MergeAudit",
    "MergeLosses",
    "ShapleyValue",
    "TaskVectors",
    "Term",
    "TriggerOutcome",
    "TriggerPair",
    "TriggerRates",
    "alone",
    "attribution",
    "audit_merge",
    "coalition",
    "experts_of",
    "gives_way",
    "layer_labels",
    "read_trigger_suite",
    "shapley",
    "task_vectors",
    "trigger_rates",
    "try_triggers",
    "weighted",
    "why_no_attribution",
]
