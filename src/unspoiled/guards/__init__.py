"""Judges of (prompt, response) pairs, behind one `Guard` protocol."""

from unspoiled.guards._protocol import Guard, Label, Reading, Verdict, verdict_of
from unspoiled.guards._validity import Defect, find_defect
from unspoiled.guards.kept import KeptGuard, read_verdict
from unspoiled.guards.refusal import RefusalRules, find_refusal

__all__ = [
    "Defect",
    "Guard",
    "KeptGuard",
    "Label",
    "Reading",
    "RefusalRules",
    "Verdict",
    "find_defect",
    "find_refusal",
    "read_verdict",
    "verdict_of",
]
