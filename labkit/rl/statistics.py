"""What may be said about a handful of seeds: interquartile means, bootstrap over seeds, intervals of success rates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError

Strata = Sequence[NDArray[np.float64]]  # per stratum (environment) an array (..., seeds)
Statistic = Callable[[Strata], NDArray[np.float64]]  # one number from the strata, over the last dimensions


@dataclass(frozen=True)
class Interval:
    """An estimate and where the truth may lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def interquartile_mean(values: ArrayLike, dim: int = -1) -> Any:
    """Mean of the middle half along `dim`. The values at both edges count in part when n is not a multiple of 4."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=dim)
    n = ordered.shape[dim]
    if n == 0:
        raise InputError("the interquartile mean of nothing is not defined.")
    places = np.arange(n)
    weights = np.clip(np.minimum(places + 1, 0.75 * n) - np.maximum(places, 0.25 * n), 0, None)
    shape = [1] * ordered.ndim
    shape[dim] = n
    return (ordered * weights.reshape(shape)).sum(axis=dim) / weights.sum()


def pooled_iqm(strata: Strata) -> NDArray[np.float64]:
    """Interquartile mean over the seeds of all strata together."""
    return np.asarray(interquartile_mean(np.concatenate([np.asarray(s, dtype=np.float64) for s in strata], axis=-1)))


def mean_seed_deviation(strata: Strata) -> NDArray[np.float64]:
    """Standard deviation over seeds inside of each stratum (sample formula, n - 1), then the mean over strata."""
    return np.asarray(np.mean([np.std(s, axis=-1, ddof=1) for s in strata], axis=0))


def stratified_bootstrap(
    values: Sequence[ArrayLike], statistic: Statistic, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile bootstrap: seeds are drawn again inside of each stratum, since environments are not replicates.

    Args:
        values: per stratum, one number per seed.
        statistic: see `pooled_iqm`; gets arrays (draws, seeds).
    """
    strata = _checked(values, draws, level)
    generator = np.random.default_rng(seed)
    drawn = statistic([s[generator.integers(0, len(s), (draws, len(s)))] for s in strata])
    return Interval(float(statistic(strata)), *_percentiles(drawn, level))


def bootstrap_difference(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    statistic: Statistic,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    paired: bool = True,
) -> Interval:
    """Interval of statistic(first) - statistic(second).

    Args:
        paired: the same seeds are drawn for both, for methods that were run on the same seeds; else independently.

    Raises:
        InputError: paired, and the numbers of seeds differ.
    """
    one, two = _checked(first, draws, level), _checked(second, draws, level)
    if paired and [len(s) for s in one] != [len(s) for s in two]:
        raise InputError(f"pairs need equal numbers of seeds; got {[len(s) for s in one]} and {[len(s) for s in two]}.")
    generator = np.random.default_rng(seed)
    places = [generator.integers(0, len(s), (draws, len(s))) for s in one]
    others = places if paired else [generator.integers(0, len(s), (draws, len(s))) for s in two]
    drawn = statistic([s[p] for s, p in zip(one, places, strict=True)])
    drawn = drawn - statistic([s[p] for s, p in zip(two, others, strict=True)])
    return Interval(float(statistic(one)) - float(statistic(two)), *_percentiles(drawn, level))


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Interval of a success rate from `trials` independent trials; sensible at 0 and 1, too."""
    if not 0 <= successes <= trials or trials < 1:
        raise InputError(f"successes must lie between 0 and the trials (at least 1); got {successes} of {trials}.")
    from scipy import stats  # slow to import, and rarely needed

    z = float(stats.norm.ppf((1 + level) / 2))
    rate, scale = successes / trials, 1 + z**2 / trials
    middle = (rate + z**2 / (2 * trials)) / scale
    reach = z * np.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2)) / scale
    return Interval(rate, max(0.0, float(middle - reach)), min(1.0, float(middle + reach)))


def _checked(values: Sequence[ArrayLike], draws: int, level: float) -> list[NDArray[np.float64]]:
    strata = [np.asarray(v, dtype=np.float64) for v in values]
    if not strata or any(s.ndim != 1 or len(s) == 0 for s in strata):
        raise InputError("values must be a list of strata, each with one number per seed; one was empty or not flat.")
    if draws < 1 or not 0 < level < 1:
        raise InputError(f"draws must be at least 1 and level between 0 and 1; got {draws} and {level}.")
    return strata


def _percentiles(drawn: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
