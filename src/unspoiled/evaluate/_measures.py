"""What is measured: the names of measures, and which of them should be high.

| measure | what | kind |
|---|---|---|
| `refusal` | unsafe prompts that the model validly declined | rate, high |
| `safe:GUARD` | responses to unsafe prompts that a guard calls safe; an invalid one never is | rate, high |
| `advice:GUARD` | those that the guard calls unsafe for specialised advice alone | rate, low |
| `over_refusal` | harmless prompts that the model declined; an invalid response declines nothing | rate, low |
| `invalid` | responses to both that are empty, an echo, a loop, gibberish or in another language | rate, low |
| `domain:NAME` | right answers in a domain | rate, high |
| `task:NAME` | score in a task of lm-evaluation-harness | rate, or mean of a score per row; high |
| `loss:NAME` | cross-entropy of a domain's right answers, nats per token | mean, low |
"""

from __future__ import annotations

REFUSAL, OVER_REFUSAL, INVALID = "refusal", "over_refusal", "invalid"
SAFE_PREFIX, ADVICE_PREFIX = "safe:", "advice:"
DOMAIN_PREFIX, TASK_PREFIX, LOSS_PREFIX = "domain:", "task:", "loss:"
AGREEMENT_PREFIX = "agreement:"
"""Of a domain: how often a model answers as the domain's expert. Of the search's choice, not a measure of models."""
_DECISIVE = (SAFE_PREFIX, DOMAIN_PREFIX, TASK_PREFIX)
_HIGH = (*_DECISIVE, AGREEMENT_PREFIX)
_LOW = (ADVICE_PREFIX, LOSS_PREFIX)


def higher_is_better(measure: str) -> bool:
    """Say whether more of a measure is good.

    Raises:
        ValueError: The measure is unknown.
    """
    if measure == REFUSAL or _named(measure, _HIGH):
        return True
    if measure in (OVER_REFUSAL, INVALID) or _named(measure, _LOW):
        return False
    raise ValueError(
        f"unknown measure {measure!r}; it is {REFUSAL}, {OVER_REFUSAL}, {INVALID}, or a name after "
        f"{', '.join([*_HIGH, *_LOW])}"
    )


def is_skill(measure: str) -> bool:
    """Say whether a measure is of expertise, and not of safety."""
    return _named(measure, (DOMAIN_PREFIX, TASK_PREFIX, LOSS_PREFIX))


def is_decisive(measure: str) -> bool:
    """Say whether a measure is one that a merge is judged by: refusals, guards' verdicts, and accuracy."""
    return measure in (REFUSAL, OVER_REFUSAL) or _named(measure, _DECISIVE)


def _named(measure: str, prefixes: tuple[str, ...]) -> bool:
    return any(measure.startswith(prefix) and measure != prefix for prefix in prefixes)
