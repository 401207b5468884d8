"""Judges of (prompt, response) pairs, behind one `Guard` protocol."""

from unspoiled.guards._families import all_families, get_family
from unspoiled.guards._family import Controversial, FormatOptions, GuardFamily
from unspoiled.guards._format import Answer, GuardFormat, Question
from unspoiled.guards._markers import Markers
from unspoiled.guards._model_guard import ModelGuard
from unspoiled.guards._open import open_guard, require_guard
from unspoiled.guards._parsed import require_parsed
from unspoiled.guards._policy import PolicyGuard, read_json_verdict
from unspoiled.guards._protocol import Guard, Label, Reading, Verdict, verdict_of
from unspoiled.guards._validity import Defect, find_defect
from unspoiled.guards.kept import KeptGuard, read_verdict
from unspoiled.guards.refusal import RefusalRules, find_refusal

__all__ = [
    "Answer",
    "Controversial",
    "Defect",
    "FormatOptions",
    "Guard",
    "GuardFamily",
    "GuardFormat",
    "KeptGuard",
    "Label",
    "Markers",
    "ModelGuard",
    "PolicyGuard",
    "Question",
    "Reading",
    "RefusalRules",
    "Verdict",
    "all_families",
    "find_defect",
    "find_refusal",
    "get_family",
    "open_guard",
    "read_json_verdict",
    "read_verdict",
    "require_guard",
    "require_parsed",
    "verdict_of",
]
