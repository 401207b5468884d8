"""How numbers and names of measures are written, the same in the page, the card and the terminal."""

from collections.abc import Iterable

from unspoiled.evaluate import (
    ADVICE_PREFIX,
    AGREEMENT_PREFIX,
    DOMAIN_PREFIX,
    LOSS_PREFIX,
    SAFE_PREFIX,
    TASK_PREFIX,
    Comparison,
    Mean,
    Rate,
)

MARKS = {"better": "▲", "worse": "▼", "not resolved": "≈"}
"""One sign per verdict; always printed with the word, so that neither colour nor shape is needed."""


def percent(share: float, digits: int = 1) -> str:
    """Write a share in [0, 1] as a percentage: 91.4%."""
    return f"{100 * share:.{digits}f}%"


def interval(rate: Rate, digits: int = 1) -> str:
    """Write a rate's 95% interval in per cent, without the sign: 87.6–94.1."""
    return f"{100 * rate.low:.{digits}f}–{100 * rate.high:.{digits}f}"


def rate_with_interval(rate: Rate, digits: int = 1) -> str:
    """Write a rate with its 95% interval: 91.4% (87.6–94.1)."""
    return f"{percent(rate.rate, digits)} ({interval(rate, digits)})"


def refusal_change(before: Rate, after: Rate, digits: int = 1) -> str:
    """Write how refusal of the selection split's unsafe prompts changes, with both intervals."""
    asked = responses_to(before, "unsafe prompts of the selection split")
    ends = [rate_with_interval(rate, digits) for rate in (before, after)]
    return f"refusal on {asked} goes from {ends[0]} to {ends[1]}"


def points(difference: float) -> str:
    """Write a difference of two shares in percentage points, with its sign: +2.0, −11.3, 0.0."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def points_range(low: float, high: float) -> str:
    """Write an interval of differences of shares, in percentage points: −15.4 to +1.0."""
    return f"{points(low)} to {points(high)}"


def change(row: Comparison) -> str:
    """Write a difference with its unit: +2.0 points, or of means +0.12."""
    return f"{points(row.difference)} points" if row.only_model is not None else signed(row.difference, 3)


def change_range(row: Comparison) -> str:
    """Write the interval of a difference, in the same unit."""
    if row.only_model is not None:
        return points_range(row.low, row.high)
    return f"{signed(row.low, 3)} to {signed(row.high, 3)}"


def signed(value: float, digits: int) -> str:
    """Write a number with its sign, a true minus, and no sign on zero."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def mean_interval(mean: Mean) -> str:
    """Write a mean's 95% interval: 0.412–0.538."""
    return f"{number(mean.low, 3)}–{number(mean.high, 3)}"


def count(value: Rate | Mean) -> str:
    """Write how many responses are behind a value, and how many families of prompts where they are fewer."""
    return f"{value.n}" if value.families == value.n else f"{value.n} in {value.families} families"


def responses_to(value: Rate | Mean, prompts: str) -> str:
    """Write what a value was measured on: 100 unsafe prompts, or 30 responses to 10 families of unsafe prompts.

    Args:
        value: What was measured. Several responses to a family may be to one prompt or to several like it: which it
            was is not in the record, and isn't said.
        prompts: What the prompts are, in the plural.
    """
    if value.families == value.n:
        return f"{value.n} {prompts}"
    return f"{value.n} responses to {value.families} families of {prompts}"


def means_legend(measures: Iterable[str]) -> str:
    """Write what the means of these measures are, and whether high or low is wanted; nothing for other measures."""
    shown = list(measures)
    kinds = {
        LOSS_PREFIX: "losses in nats per token (low is wanted)",
        TASK_PREFIX: "scores in tasks (high is wanted)",
    }
    said = [of for prefix, of in kinds.items() if any(measure.startswith(prefix) for measure in shown)]
    return f"means of {listing(said)}, with 95% bootstrap intervals" if said else ""


def term_name(term: str) -> str:
    """Write a loss of an audit for a reader: CE_safety, CE_benign, CE_expert (colours)."""
    kind, _, domain = term.partition(":")
    return f"CE_{kind} ({domain})" if domain else f"CE_{kind}"


def number(value: float, digits: int) -> str:
    """Write a number with so many decimals and a true minus sign; nothing is written as minus zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def p_value(p: float) -> str:
    """Write a p-value with two significant digits, and nothing finer than .001."""
    return "< .001" if p < 0.001 else f"{p:.3f}"[1:] if p < 0.9995 else "1"


def measure_name(measure: str) -> str:
    """Write a measure for a reader: refusal, safe (GUARD), over-refusal, loss (NAME), or the domain's own name."""
    for prefix in (SAFE_PREFIX, ADVICE_PREFIX, LOSS_PREFIX, AGREEMENT_PREFIX):
        if measure.startswith(prefix):
            return f"{prefix.rstrip(':')} ({measure.removeprefix(prefix)})"
    for prefix in (DOMAIN_PREFIX, TASK_PREFIX):
        if measure.startswith(prefix):
            return measure.removeprefix(prefix)
    return measure.replace("_", "-")


def seconds(duration: float) -> str:
    """Write a duration given in seconds: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if duration < 10:
        return f"{duration:.1f} s"
    whole = round(duration)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listing(items: list[str]) -> str:
    """Join names as a sentence does: a, b and c."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def resolvable(comparison: Comparison) -> str:
    """Write the smallest gap that a comparison could have resolved, in its unit, or that there is none."""
    if comparison.resolvable is None:
        return "none at this n and this many comparisons"
    is_rate = comparison.only_model is not None
    return f"{100 * comparison.resolvable:.1f}" if is_rate else number(comparison.resolvable, 3)
