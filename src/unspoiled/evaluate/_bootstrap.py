"""Means compared by resampling: of a loss in nats per token, or a task's score, over families of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from unspoiled.evaluate._clustered import family_sums, squared_standard_error

RESAMPLES = 9_999
"""Resamples of the families; with the data as they are that makes 10,000, and p-values in steps of 1/10,000.

Below the last step, where no resample is as extreme, Student's t says how much further out the data are: a family of
hundreds of comparisons asks for smaller p-values than resamples can give.
"""
_SEED = 2024
_FEWEST = 8
"""Families from which on they are resampled: fewer give resamples whose spread is 0 by chance, and t* without end."""
_BLOCK = 2_000_000
_KEPT = 4_000_000  # draws of up to this size are kept for the next comparison of as many families


@dataclass(frozen=True)
class Bootstrap:
    """A mean and its studentised bootstrap distribution, from `bootstrap`.

    A resample draws as many families as there are, with replacement, and gives t* = (its mean − the mean) / its
    standard error. Dividing by the resample's own standard error, and not only by the one of all data, is what keeps
    the promised 95% for skewed losses and few families, where intervals of the plain percentiles fall short.

    Args:
        mean: Over all values.
        error: The mean's standard error, from the spread between families; 0 where they do not differ.
        families: How many families.
        sizes: Shape `(9999,)`: |t*|, ascending; infinite where a resample has no spread. Of fewer than 8 families,
            Student's t of as many in place of it.

    Source: P. Hall, The Annals of Statistics 16 (1988) 927-953, the symmetric percentile-t interval; resampling of
    whole families: A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
    """

    mean: float
    error: float
    families: int
    sizes: NDArray[np.float64]

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the interval of the mean, symmetric about it, in the values' unit.

        Families without any difference between them give the mean itself, since resampling cannot see what was not
        drawn. Where too many resamples have no spread, as when nearly all values are equal, Student's t of the families
        takes their place. One family alone says nothing about how families vary; what remains is the interval that
        holds the centre of any unimodal distribution for one draw of it: mean ± (2/α − 1)·|mean|, 39 times at 95%.

        Args:
            confidence: Strictly between 0 and 1.

        Source: see the class; for one family, D. Edelman, The American Statistician 44 (1990) 285-287.
        """
        if self.families == 1:
            half = (2 / (1 - confidence) - 1) * abs(self.mean)
        elif self.error == 0.0:
            half = 0.0
        else:
            critical = self._critical(1 - confidence)
            if not np.isfinite(critical):
                critical = float(stdtrit(self.families - 1, (1 + confidence) / 2))
            half = critical * self.error
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """The two-sided p-value of a mean of 0: (1 + resamples with |t*| ≥ |mean/error|) / 10,000.

        Where there are none, Student's t of C − 1 degrees of freedom, if that is less. Never below 2^(1 − C) with C
        families, what a sign-flip test of them could reach: so few families are no proof, even if they agree to the
        last digit.
        """
        if self.mean == 0.0:
            return 1.0
        least = 2.0 ** (1 - self.families)
        if self.error == 0.0:
            return least
        size = abs(self.mean) / self.error
        extreme = len(self.sizes) - int(np.searchsorted(self.sizes, size, side="left"))
        value = (1 + extreme) / (1 + len(self.sizes))
        if extreme == 0:
            value = min(value, 2 * float(stdtr(self.families - 1, -size)))
        return min(1.0, max(value, least))

    def resolvable(self, alpha: float) -> float | None:
        """Return the mean above which `p_value` would be at most `alpha`, families varying as they do; in their unit.

        None where no mean could be resolved: too few families, or too many of nearly one value. None also where the
        families do not vary and the mean is 0, which leaves nothing to go by; where they do not vary and it is not 0,
        the mean itself.

        Args:
            alpha: The level of the two-sided test, strictly between 0 and 1.
        """
        if 2.0 ** (1 - self.families) > alpha:
            return None
        if self.error == 0.0:
            return abs(self.mean) or None
        critical = self._critical(alpha)
        return float(critical * self.error) if 0.0 < critical < np.inf else None

    def _critical(self, alpha: float) -> float:
        """Return the |t*| that at most `alpha` of all 10,000 exceed; below their last step, by Student's t."""
        exceeding = int(np.floor(alpha * (1 + len(self.sizes)) * (1 + 1e-12))) - 1
        if exceeding >= 0:
            return float(self.sizes[-1 - exceeding])
        return max(float(self.sizes[-1]), -float(stdtrit(self.families - 1, alpha / 2)))


def bootstrap(values: Sequence[float], families: Sequence[str] | None = None) -> Bootstrap:
    """Return the mean of values and how it varies with the families drawn; the same numbers in give the same out.

    For a paired comparison of two models give the differences of their values, row by row.

    Args:
        values: One finite number per response, at least one.
        families: The family of each, as many; families are resampled whole. Default: each response is its own.

    Raises:
        ValueError: There is no value, one isn't finite, or there is not one family for each.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError(f"a mean needs finite values, at least one, got {list(values)[:3]}")
    if families is not None and len(families) != len(numbers):
        raise ValueError(f"{len(numbers)} values and {len(families)} families: give one for each.")
    sums, sizes = (numbers, np.ones_like(numbers)) if families is None else family_sums(values, families)
    count = len(sums)
    # Differences in the last digits of a float are no spread, and a mean of them is 0.
    rounding = 1e-12 * float(np.abs(numbers).max())
    mean = float(numbers[0]) if numbers.min() == numbers.max() else float(numbers.mean())
    mean = 0.0 if abs(mean) <= rounding else mean
    error = squared_standard_error(sums, sizes) ** 0.5 if count > 1 else 0.0
    if error <= rounding:
        return Bootstrap(mean, 0.0, count, np.zeros(RESAMPLES))
    if count < _FEWEST:
        ranks = np.arange(1, RESAMPLES + 1) / (RESAMPLES + 1)
        return Bootstrap(mean, error, count, stdtrit(count - 1, (1 + ranks) / 2))
    # Residuals are what resampling moves; about the mean, they lose no digits to it.
    rest = sums - mean * sizes
    moments = np.stack([rest, sizes, rest**2, rest * sizes, sizes**2], axis=1)
    blocks = [_kept_draws(count)] if count * RESAMPLES <= _KEPT else _draws(count)
    totals = np.concatenate([weights @ moments for weights in blocks])
    moved, n, squares, mixed, squared_sizes = totals.T
    shift = moved / n
    variance = squares - 2 * shift * mixed + shift**2 * squared_sizes
    # Rounding leaves about 1e-16 of the squares where a resample has no spread at all.
    variance[variance <= 1e-12 * squares] = 0.0
    spread = np.sqrt(count / (count - 1) * variance) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes_of_t = np.abs(shift) / spread
    # A resample that has neither spread nor shift says nothing; it counts against a difference.
    sizes_of_t[np.isnan(sizes_of_t)] = np.inf
    return Bootstrap(mean, error, count, np.sort(sizes_of_t))


@lru_cache(maxsize=4)
def _kept_draws(count: int) -> NDArray[np.float64]:
    return np.concatenate(list(_draws(count)))


def _draws(count: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each of `count` families is drawn in each resample: blocks of shape `(some resamples, count)`."""
    random = np.random.default_rng(_SEED)
    rows = max(1, _BLOCK // count)
    for start in range(0, RESAMPLES, rows):
        here = min(rows, RESAMPLES - start)
        drawn = random.integers(0, count, (here, count)) + np.arange(here)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=here * count).reshape(here, count).astype(np.float64)
