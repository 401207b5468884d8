"""Measuring models on prompts that nothing else of a run touched, with the statistics that the numbers need."""

from unspoiled.evaluate._guard_agreement import (
    Agreement,
    GuardAgreement,
    LabelledRow,
    auroc,
    guard_agreement,
    read_labelled,
)
from unspoiled.evaluate._outcomes import (
    Outcome,
    TestSets,
    measure,
    paired_outcomes,
    read_outcomes,
    require_same_prompts,
    scores,
    write_outcomes,
)
from unspoiled.evaluate._results import Comparison, ModelScores, Rate, Results, compare
from unspoiled.evaluate._statistics import holm, mcnemar, smallest_resolvable_difference, wilson

__all__ = [
    "Agreement",
    "Comparison",
    "GuardAgreement",
    "LabelledRow",
    "ModelScores",
    "Outcome",
    "Rate",
    "Results",
    "TestSets",
    "auroc",
    "compare",
    "guard_agreement",
    "holm",
    "mcnemar",
    "measure",
    "paired_outcomes",
    "read_labelled",
    "read_outcomes",
    "require_same_prompts",
    "scores",
    "smallest_resolvable_difference",
    "wilson",
    "write_outcomes",
]
