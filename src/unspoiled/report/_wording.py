"""How numbers and names of measures are written, the same in the page, the card and the terminal."""

from unspoiled.evaluate import (
    ADVICE_PREFIX,
    AGREEMENT_PREFIX,
    DOMAIN_PREFIX,
    LOSS_PREFIX,
    SAFE_PREFIX,
    TASK_PREFIX,
    Comparison,
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


def points(difference: float) -> str:
    """Write a difference of two shares in percentage points, with its sign: +2.0, −11.3, 0.0."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def difference_of(comparison: Comparison) -> tuple[str, str]:
    """Write a comparison's gap and its 95% interval: in points for rates, in its own unit for means."""
    shares = (comparison.difference, comparison.low, comparison.high)
    if comparison.only_model is None:
        gap, low, high = (f"{value:+.3f}".replace("-", "−") for value in shares)
    else:
        gap, low, high = map(points, shares)
    return gap, f"{low} to {high}"


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
    """Write the smallest gap that a comparison could have resolved, in points, or that there is none."""
    return "none at this n" if comparison.resolvable is None else f"{100 * comparison.resolvable:.1f}"
