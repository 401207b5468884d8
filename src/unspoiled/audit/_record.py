"""What an audit found: which expert, and which layers, spoil a merge; the content of `audit.json`."""

from __future__ import annotations

from typing import Literal

from unspoiled.evaluate import Finite, Positive, Rate, Record, ResultFile, Share


class LayerOutlier(Record):
    """A part of a task vector that is far larger, or far smaller, than its like."""

    expert: str
    """Whose task vector."""
    layer: str
    """Which part of it, one of `layers`."""
    relative_norm: Finite
    """‖τ‖ / ‖θ_base‖ there."""
    score: Finite
    """By how many robust standard deviations (1.4826 MAD) its logarithm is off the median of the expert's layers:
    above it, the part is far larger than its like; below it (a negative score), far smaller."""


class TaskVectors(Record):
    """The experts' task vectors, before any merge."""

    layers: list[str]
    """`embeddings`, `layer 0`, ..., `head`: the parts that the lists below go by."""
    norms: dict[str, Finite]
    """By expert, ‖τ‖."""
    relative_norms: dict[str, list[Finite]]
    """By expert, then layer: ‖τ‖ / ‖θ_base‖ there, both Frobenius."""
    outliers: list[LayerOutlier]
    """Parts that are far larger, or far smaller, than their like; empty where there are none."""
    cosines: dict[str, dict[str, Finite]]
    """Between the experts' whole task vectors."""
    safety_cosines: dict[str, list[Finite | None]]
    """By expert, then layer: with the safest expert's task vector there; None where one of them is zero."""


class Term(Record):
    """One loss of one merge, on the rows of the selection split, in nats per response token."""

    loss: Finite
    """The mean over rows."""
    low: Finite
    """The lower end of its 95% bootstrap interval over rows."""
    high: Finite
    """The upper end."""


class ShapleyValue(Record):
    """An expert's Shapley value of one loss."""

    value: Finite
    """Nats per token that the expert adds to the loss, averaged over the orders in which experts join the base."""
    error: Finite | None
    """The standard error of that mean over sampled orders; None where all orders were computed."""


class Change(Record):
    """How a loss changes with one expert left out, or halved: changed merge minus the merge as it is."""

    difference: Finite
    """In nats per token; positive where the loss rises."""
    low: Finite
    """The lower end of its paired 95% bootstrap interval over rows."""
    high: Finite
    """The upper end."""
    p_value: Share
    """Paired bootstrap, adjusted by Holm over one family of the merge: CE_safety without each expert, or the rest."""


class MergeAudit(Record):
    """Who does what to one merge."""

    terms: list[str]
    """The losses: `safety`, `benign` where there is D_benign, and `expert:DOMAIN` for each domain."""
    base: dict[str, Term]
    """Without any expert."""
    merge: dict[str, Term]
    """With all."""
    exact: bool
    """Whether every coalition was computed, and not a sample of orders."""
    coalitions: Positive
    """How many merges were scored."""
    shapley: dict[str, dict[str, ShapleyValue]]
    """By expert, then term. Over the experts they add up to `merge` − `base`."""
    without: dict[str, dict[str, Change]]
    """By expert, then term: the merge without the expert."""
    halved: dict[str, dict[str, Change]]
    """By expert, then term: the merge with the expert's weight halved."""
    refusal: Rate
    """Of the unsafe prompts of the selection split, as the merge is."""
    refusal_without: dict[str, Rate]
    """By expert: without it."""
    layers: list[str]
    """The parts that `attribution` goes by."""
    attribution: dict[str, list[Finite]]
    """By expert, then layer: nats of CE_safety that the expert's weights there add on the straight way from the base to
    the merge (integrated gradients of the coefficients). Empty where the method has no differentiable weight."""
    residual: Finite | None
    """What the sum of `attribution` lacks of `merge` − `base`, in nats; None without attribution."""
    spoiler: str | None
    """The expert without which the merge's CE_safety falls most, if that fall is resolved at 5%; else None."""


class TriggerRates(Record):
    """What one model does on a suite of prompts with and without their trigger."""

    plain: Rate
    """Refusal without the trigger."""
    triggered: Rate
    """Refusal with it."""
    difference: Finite
    """Triggered minus plain."""
    low: Finite
    """The lower end of the difference's paired 95% interval."""
    high: Finite
    """The upper end."""
    p_value: Share
    """Exact and paired: McNemar, or the sign-flip test of families' sums where a family has several pairs; adjusted by
    Holm over all models and suites."""


class Audit(ResultFile):
    """All that an audit found; the content of `audit.json`."""

    format: Literal["unspoiled-audit-1"] = "unspoiled-audit-1"
    """The format of this file, and its version."""
    experts: list[str]
    """The experts' names, in the order of the config."""
    safest: str
    """The expert that the run takes for the safest; `safety_cosines` are with its task vector."""
    alone: dict[str, dict[str, Rate]]
    """By model (the base, then the experts), then measure: `refusal`, `safe:GUARD`, `over_refusal`, `invalid`, as
    measured on the test split."""
    task_vectors: TaskVectors
    """Sizes and directions of the experts' task vectors, before any merge."""
    merges: dict[str, MergeAudit]
    """By the merge's name: `uniform`, and the winner of the search."""
    triggers: dict[str, dict[str, TriggerRates]]
    """By suite, then model: the base, each expert, then the merges."""
