"""Rates whose responses come in families: how many independent responses they are worth, and a paired test of them.

Paraphrases of one prompt, or samples of one prompt's answer, are answered alike. To count them as independent makes
intervals too narrow and tests too sure; families of prompts are independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit


def family_sums(values: Sequence[float], families: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each family's sum of values and number of values, families in alphabetical order.

    Args:
        values: One number per response.
        families: The family of each, as many.

    Returns:
        Two arrays of shape `(number of families,)`.
    """
    _, of = np.unique(np.asarray(families, dtype=str), return_inverse=True)
    numbers = np.asarray(values, dtype=np.float64)
    return np.bincount(of, weights=numbers).astype(np.float64), np.bincount(of).astype(np.float64)


def squared_standard_error(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Return the squared standard error of the mean over all responses, from the spread between families.

    The mean is the ratio Σ sums / Σ sizes, as families may differ in size: with C families and r the mean, the answer
    is C/(C − 1) · Σ (sum − r·size)² / n².

    Args:
        sums: Shape `(C,)`, of `family_sums`; C at least 2.
        sizes: Shape `(C,)`, each at least 1.

    Source: W. G. Cochran, Sampling Techniques (3rd edition, 1977), chapter 6, for a large population.
    """
    count, n = len(sums), float(sizes.sum())
    residuals = sums - sums.sum() / n * sizes
    return float(count / (count - 1) * np.square(residuals).sum()) / n**2


def effective_size(values: Sequence[float], families: Sequence[str]) -> float:
    """Return how many independent responses these are worth for an interval, greater than 0 and at most their number.

    n* = n/deff · (t₍ₙ₋₁₎/t₍C₋₁₎)²: the design effect deff is the variance between families over the variance that
    independent responses would have, and the ratio of 97.5% points of Student's t, with C the number of families,
    pays for estimating that variance from few of them. n* is cut at n: families that happen to differ less than
    chance would make them are no reason for a narrower interval. If all values are equal there is no variance to
    compare, and n* is the number of families, since nothing speaks against families that always answer alike.

    Args:
        values: One number per response: 0 or 1 for a rate, −1, 0 or 1 for a paired difference of rates.
        families: The family of each, as many.

    Source: E. L. Korn and B. I. Graubard, Survey Methodology 24 (1998) 193-201; for the Wilson interval, N. Dean and
    M. Pagano, Journal of Survey Statistics and Methodology 3 (2015) 484-503.
    """
    n = len(values)
    sums, sizes = family_sums(values, families)
    count = len(sums)
    spread = np.asarray(values, dtype=np.float64)
    independent = float(spread.var(ddof=1)) / n if n > 1 else 0.0
    if count == n or count == 1 or independent == 0.0:
        return float(count)
    design_effect = squared_standard_error(sums, sizes) / independent
    few_families = float(stdtrit(n - 1, 0.975) / stdtrit(count - 1, 0.975)) ** 2
    return min(float(n), n * few_families / design_effect) if design_effect > 0.0 else n * few_families


def sign_flip(sums: Sequence[int]) -> float:
    """Return the two-sided p-value of the exact sign-flip test of paired outcomes in families.

    If the two models do not differ, a family's summed difference d has either sign with probability one half, whatever
    its size: p = P(|Σ ±d| ≥ |Σ d|) over all sign patterns. Where each family has one response it is exact McNemar.

    Args:
        sums: By family, how many responses are true for the first model alone minus those for the second alone.

    Source: R. A. Fisher, The Design of Experiments (1935), section 21; whole families flipped together: A. M. Winkler
    et al., NeuroImage 123 (2015) 253-268.
    """
    return float(_tail(sums)[abs(sum(sums))])


def smallest_resolvable_sum(sums: Sequence[int], alpha: float) -> int | None:
    """Return the smallest |Σ d| that `sign_flip` calls significant, families' differences being as large as they are.

    A family in which the models agree counts as one in which they would differ by one response, as long as there are
    too few families in disagreement for any significant result: at 5%, under 6.

    Args:
        sums: By family, as in `sign_flip`, zeros included.
        alpha: The level of the two-sided test, strictly between 0 and 1.

    Returns:
        The sum, at least 1, or None when there are too few families for any.

    Raises:
        ValueError: when `alpha` is out of range.

    Source: inversion of the exact test, see `sign_flip`.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be strictly between 0 and 1, got {alpha!r}")
    floor = 1
    while 2.0 ** (1 - floor) > alpha:
        floor += 1
    if floor > len(sums):
        return None
    magnitudes = [abs(d) for d in sums if d]
    tail = _tail(magnitudes + [1] * (floor - len(magnitudes)))
    beyond = np.append(tail[1:], 0.0)
    # Where a step adds nothing to the tail, no pattern of signs gives that sum.
    return int(np.flatnonzero((tail <= alpha) & (tail > beyond))[0])


def _tail(sums: Sequence[int]) -> NDArray[np.float64]:
    """Return P(|Σ ±d| ≥ s) for s = 0, 1, ..., Σ|d|: shape `(Σ|d| + 1,)`.

    The distribution is built family by family. Every entry is a sum of positive terms, so that rounding stays at the
    16th digit of each, however small.
    """
    magnitudes = [abs(d) for d in sums if d]
    total = sum(magnitudes)
    share = np.zeros(2 * total + 1)
    share[total] = 1.0
    for magnitude in magnitudes:
        half = share / 2
        share = np.zeros_like(half)
        share[magnitude:] += half[: len(half) - magnitude]
        share[: len(half) - magnitude] += half[magnitude:]
    # Both tails are alike; adding from the far end keeps the small ones exact.
    upper = np.cumsum(share[total:][::-1])[::-1]
    tail = np.minimum(1.0, 2 * upper)
    tail[0] = 1.0
    return tail
