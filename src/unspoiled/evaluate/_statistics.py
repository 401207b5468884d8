"""Statistics of counts that a comparison of models needs: intervals, paired tests, families of tests.

Everything here is exact or closed-form arithmetic on counts, so it needs nothing beyond the standard library.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import sqrt
from statistics import NormalDist


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, as two shares in [0, 1].

    Unlike the textbook interval it keeps its coverage near 0 and 1, where refusal rates live, and never
    leaves [0, 1].

    Args:
        successes: how many of the trials succeeded, 0 to `n`.
        n: how many trials there were, at least 1.
        confidence: the coverage aimed at, strictly between 0 and 1.

    Raises:
        ValueError: when `n` is not positive, or `successes` or `confidence` is out of range.

    Source: E. B. Wilson, JASA 22 (1927) 209-212; Brown, Cai and DasGupta, Statistical Science 16 (2001)
    101-133.
    """
    if n < 1:
        raise ValueError(f"a rate needs at least one trial, got n = {n!r}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be between 0 and n = {n}, got {successes!r}")
    return score_interval(successes / n, n, confidence)


def score_interval(share: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share that `n` independent trials gave.

    Args:
        share: The share of successes, in [0, 1].
        n: How many independent trials it is worth, above 0; not a whole number where responses depend on each other.
        confidence: As in `wilson`.

    Raises:
        ValueError: when an argument is out of range.

    Source: see `wilson`.
    """
    if not (0.0 <= share <= 1.0 and n > 0.0):
        raise ValueError(f"a share must be between 0 and 1 and of n > 0 trials, got {share!r} of {n!r}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be strictly between 0 and 1, got {confidence!r}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 / (1 + z * z / n)
    centre = shrink * (share + z * z / (2 * n))
    half = shrink * z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the bound equals the rate in exact arithmetic; rounding must not push it past.
    low = 0.0 if share == 0.0 else min(share, max(0.0, centre - half))
    high = 1.0 if share == 1.0 else max(share, min(1.0, centre + half))
    return low, high


def paired_interval(
    both: int, only_a: int, only_b: int, neither: int, *, effective: float | None = None
) -> tuple[float, float]:
    """Return the 95% interval of the difference of two rates of the same prompts, a minus b, in [−1, 1].

    Args:
        both: Prompts on which both succeeded, at least 0, as the others.
        only_a: Those on which only the first did.
        only_b: Those on which only the second did.
        neither: Those on which none did. At least one of the four is above 0.
        effective: How many independent prompts these are worth, above 0; default: as many as there are.

    Raises:
        ValueError: when there is no prompt, or a count is negative.

    Source: R. G. Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10: the correlation φ of the two
    outcomes is corrected for continuity if positive.
    """
    n = both + only_a + only_b + neither
    if min(both, only_a, only_b, neither) < 0 or n == 0:
        raise ValueError(f"a comparison needs counts of prompts, got {(both, only_a, only_b, neither)!r}")
    size = n if effective is None else effective
    share_a, share_b = (both + only_a) / n, (both + only_b) / n
    association: float = both * neither - only_a * only_b
    if association > 0:
        # Half a prompt of n, of as many as they are worth.
        association = max(0.0, association - n * n / (2 * size))
    margins = share_a * (1 - share_a) * share_b * (1 - share_b)
    correlation = association / (n * n * sqrt(margins)) if margins > 0 else 0.0
    return combined_interval(
        (share_a, *score_interval(share_a, size)), (share_b, *score_interval(share_b, size)), correlation
    )


def combined_interval(
    a: tuple[float, float, float], b: tuple[float, float, float], correlation: float = 0.0
) -> tuple[float, float]:
    """Return the interval of a − b from the two intervals: what is on the side of each end adds up in squares.

    Args:
        a: The first estimate, its lower and its upper bound.
        b: The second.
        correlation: Of the two estimates, from −1 to 1.

    Source: G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008) 1693-1702, of which Newcombe's method 10 is the
    case of score intervals.
    """
    (rate_a, low_a, high_a), (rate_b, low_b, high_b) = a, b

    def reach(of_a: float, of_b: float) -> float:
        return sqrt(max(0.0, of_a**2 - 2 * correlation * of_a * of_b + of_b**2))

    # In exact arithmetic the ends lie in [-1, 1]; rounding must not push them past.
    return (
        max(-1.0, rate_a - rate_b - reach(rate_a - low_a, high_b - rate_b)),
        min(1.0, rate_a - rate_b + reach(high_a - rate_a, rate_b - low_b)),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of the exact McNemar test for two models on the same prompts.

    Under the hypothesis of no difference, each prompt on which the two disagree falls on either side with
    probability one half, so p = min(1, 2·P[Binomial(m, ½) ≤ min(only_first, only_second)]), with m their sum.

    Args:
        only_first: prompts on which only the first model succeeded, at least 0.
        only_second: prompts on which only the second did, at least 0.

    Raises:
        ValueError: when a count is negative.

    Source: Q. McNemar, Psychometrika 12 (1947) 153-157; the exact conditional form as in Fagerland,
    Lydersen and Laake, BMC Medical Research Methodology 13:91 (2013).
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts of prompts can't be negative, got {only_first!r} and {only_second!r}")
    discordant = only_first + only_second
    term = tail = 1
    for i in range(min(only_first, only_second)):
        term = term * (discordant - i) // (i + 1)
        tail += term
    return min(1.0, float(Fraction(2 * tail, 2**discordant)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    Comparing each with 5% keeps the chance of any false difference in the whole family at 5%, whatever the
    dependence between the tests.

    Args:
        p_values: the family's unadjusted p-values, each in [0, 1]; an empty family gives an empty list.

    Raises:
        ValueError: when a p-value is outside [0, 1] or not a number.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    _require_p_values(p_values)
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def holm_level(p_values: Sequence[float], index: int, alpha: float = 0.05) -> float:
    """Return the unadjusted p-value at or below which member `index` would be significant in its family.

    With the other members fixed, Holm's procedure rejects this one exactly when p ≤ α/(m − r): m is the
    size of the family, r how many of the others pass step by step at α/m, α/(m − 1), ... It is what turns
    "5% over the family" into a threshold for one comparison, and so into the smallest gap that it could
    resolve.

    Args:
        p_values: the family's unadjusted p-values, each in [0, 1].
        index: which member.
        alpha: the error rate of the whole family, strictly between 0 and 1.

    Raises:
        ValueError: when a p-value is outside [0, 1] or not a number.
        IndexError: when the family has no such member.

    Source: follows from Holm (1979), see `holm`.
    """
    _require_p_values(p_values)
    size = len(p_values)
    if not 0 <= index < size:
        raise IndexError(f"the family has {size} members, got index {index!r}")
    others = sorted(p for i, p in enumerate(p_values) if i != index)
    passed = 0
    while passed < len(others) and others[passed] <= alpha / (size - passed):
        passed += 1
    return alpha / (size - passed)


def smallest_resolvable_difference(
    n: int, discordant_share: float | None = None, *, alpha: float = 0.05
) -> float | None:
    """Return the smallest paired gap between two rates that exact McNemar could resolve with `n` prompts.

    With m discordant prompts, of which k favour one model, the gap is (2k − m)/n; the answer takes the
    smallest k with 2·P[Binomial(m, ½) ≥ k] ≤ α. Fewer discordant prompts resolve smaller gaps, down to the
    floor of m = k = ⌈log₂(2/α)⌉ (6 at 5%), all on one side: no gap below 6/n can ever be significant at 5%.

    Args:
        n: how many prompts both models answered, at least 1.
        discordant_share: the share of prompts on which the two disagree, in [0, 1]; m is this share of n,
            rounded. None, or an m below the floor, gives the floor.
        alpha: the level of the two-sided test, strictly between 0 and 1.

    Returns:
        The gap as a share in (0, 1], or None when `n` is too small to resolve even a gap of 1.

    Raises:
        ValueError: when an argument is out of range.

    Source: inversion of the exact test, see `mcnemar`.
    """
    if n < 1:
        raise ValueError(f"a comparison needs at least one prompt, got n = {n!r}")
    if discordant_share is not None and not 0.0 <= discordant_share <= 1.0:
        raise ValueError(f"discordant_share must be between 0 and 1, got {discordant_share!r}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be strictly between 0 and 1, got {alpha!r}")
    floor = 1
    while Fraction(2, 2**floor) > Fraction(alpha):
        floor += 1
    if floor > n:
        return None
    discordant = max(floor, round((discordant_share or 0.0) * n))
    # Walk up the lower tail; the last i that still passes leaves k = m - i on the winning side.
    allowed = Fraction(alpha) * 2**discordant / 2
    term = tail = 1
    minority = 0
    while tail + (term := term * (discordant - minority) // (minority + 1)) <= allowed:
        tail += term
        minority += 1
    return (discordant - 2 * minority) / n


def _require_p_values(p_values: Sequence[float]) -> None:
    for p in p_values:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"a p-value must be between 0 and 1, got {p!r}")
