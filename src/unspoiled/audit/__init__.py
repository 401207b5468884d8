"""Which expert, and which layers, spoil the bunch."""

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

__all__ = [
    "Audit",
    "Change",
    "LayerOutlier",
    "MergeAudit",
    "ShapleyValue",
    "TaskVectors",
    "Term",
    "TriggerRates",
]
