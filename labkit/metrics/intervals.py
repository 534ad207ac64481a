"""What may be said from a few replicates: the house's one interval, its bootstrap, and the exact forms beside it."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError

Statistic = Callable[..., Any]  # samples (..., n), one positional argument each, and `axis`: reduces that axis


class Interval(NamedTuple):
    """A value between the ends of its 95 % interval (or of the level asked for).

    replicates: independent ones behind it, in the largest stratum.
    """

    value: float
    low: float
    high: float
    replicates: int

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def bootstrap(
    samples: Sequence[ArrayLike],
    statistic: Statistic = np.mean,
    *,
    level: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap: replicates are drawn again inside of each sample.

        bootstrap([ours - theirs])                                                   # a paired difference of means
        bootstrap([ours, theirs], lambda a, b, axis: a.mean(axis) - b.mean(axis))    # an unpaired one
        bootstrap(layouts, lambda *layouts, axis: ...)                               # strata: environments, layouts

    Args:
        samples: per stratum an array (n) or (columns, n); columns are what was measured on the same replicates, and
            are drawn together. All have the same number of columns.
        statistic: from such arrays, with any dimensions before the last one, to the effect, called with
            `axis`. Draws on which it is not defined (NaN) are left out.

    Returns:
        The interval; with one replicate in every sample nothing is known of the spread, and its ends are NaN.

    Raises:
        InputError: nothing to draw from, or a level outside of 0 to 1.
    """
    arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
    if not arrays or any(array.ndim == 0 or array.shape[-1] == 0 for array in arrays):
        raise InputError("a bootstrap needs one replicate or more in every sample; one was empty.")
    low, high = _ends(level)
    if draws < 1:
        raise InputError(f"draws must be at least 1; got {draws}.")
    value, replicates = float(statistic(*arrays, axis=-1)), max(array.shape[-1] for array in arrays)
    if replicates == 1:
        return Interval(value, math.nan, math.nan, 1)
    drawn = _distribution(arrays, statistic, draws, seed)
    defined = drawn[~np.isnan(drawn)]
    ends = np.quantile(defined, [low, high]) if len(defined) else (math.nan, math.nan)
    return Interval(value, float(ends[0]), float(ends[1]), replicates)


def bootstrap_band(curves: ArrayLike, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """Lower and upper end (2, k) of the mean of `curves` (n, k), point by point: the band of a success plot."""
    columns = np.asarray(curves, dtype=np.float64).T
    if columns.ndim != 2 or columns.shape[1] == 0:
        raise InputError("a band needs curves of shape (n, k), and at least one of them.")
    if columns.shape[1] == 1:
        return np.repeat(columns.T, 2, axis=0)
    return np.quantile(_distribution([columns], np.mean, draws, seed), _ends(level), axis=-1)


def bootstrap_of(
    measure: Callable[[list[Any]], float], items: Sequence[Any], *, level: float = 0.95, draws: int = 500, seed: int = 0
) -> Interval:
    """The same for things that are no numbers, e.g. an expected overlap over runs: measured anew on each draw."""

    def statistic(drawn: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        rows = drawn.reshape(-1, drawn.shape[axis]).astype(int)
        values = [measure([items[index] for index in row]) for row in rows]
        return np.array(values, dtype=np.float64).reshape(drawn.shape[:-1])

    return bootstrap([np.arange(len(items))], statistic, level=level, draws=draws, seed=seed)


def _distribution(
    arrays: list[NDArray[np.float64]], statistic: Statistic, draws: int, seed: int
) -> NDArray[np.float64]:
    """The statistic on `draws` draws, last axis.

    Draw for draw those of `scipy.stats.bootstrap` (tested), which takes a third of a second to import. It draws from
    two replicates or more; a single one is drawn twice.
    """
    rng = np.random.default_rng(seed)

    def drawn(array: NDArray[np.float64]) -> NDArray[np.float64]:
        size = max(2, array.shape[-1])
        return array[..., rng.integers(0, size, (draws, size)) % array.shape[-1]]

    return np.asarray(statistic(*map(drawn, arrays), axis=-1))


def student(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and Student's interval of it, for a handful of runs; the ends are NaN for a single value.

    Raises:
        InputError: no values.
    """
    if not values:
        raise InputError("an interval needs one value or more.")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan, 1)
    reach = _student(_ends(level)[1], len(values) - 1) * _deviation(values, mean) / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach, len(values))


def prediction(values: Sequence[float], level: float = 0.99) -> tuple[float, float]:
    """Where one more value from the same source lies with probability `level`; everywhere, after a single value."""
    if len(values) < 2:
        return -math.inf, math.inf
    mean = math.fsum(values) / len(values)
    reach = _student(_ends(level)[1], len(values) - 1) * _deviation(values, mean) * math.sqrt(1 + 1 / len(values))
    return mean - reach, mean + reach


def wilson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Interval of a success rate from `trials` independent trials (Wilson 1927); sensible at 0 and 1, too."""
    if not 0 <= successes <= trials or trials < 1:
        raise InputError(f"successes must lie between 0 and the trials (at least 1); got {successes} of {trials}.")
    from scipy import stats

    estimate = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(estimate.low), float(estimate.high), trials)


def _ends(level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1; got {level}.")
    return (1 - level) / 2, (1 + level) / 2


def _deviation(values: Sequence[float], mean: float) -> float:
    """Standard deviation by the sample formula, n - 1."""
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _student(probability: float, freedom: int) -> float:
    """Quantile of Student's distribution, what `scipy.stats.t.ppf` calls: to import that takes a second."""
    from scipy import special

    return float(special.stdtrit(freedom, probability))
