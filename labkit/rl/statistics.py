"""Statistics of a handful of seeds: interquartile means, and the deviation over seeds inside of strata."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError

Strata = Sequence[NDArray[np.float64]]  # per stratum (environment) an array (..., seeds)
Statistic = Callable[[Strata], NDArray[np.float64]]  # one number from the strata, over the last dimensions


def interquartile_mean(values: ArrayLike) -> Any:
    """Mean of the middle half, last dimension. Values at both edges count in part when n is not a multiple of 4."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    n = ordered.shape[-1]
    if n == 0:
        raise InputError("the interquartile mean of nothing is not defined.")
    rank = np.arange(n)
    weights = np.clip(np.minimum(rank + 1, 0.75 * n) - np.maximum(rank, 0.25 * n), 0, None)
    return (ordered * weights).sum(axis=-1) / weights.sum()


def pooled_iqm(strata: Strata) -> NDArray[np.float64]:
    """Interquartile mean over the seeds of all strata together."""
    return np.asarray(interquartile_mean(np.concatenate([np.asarray(s, dtype=np.float64) for s in strata], axis=-1)))


def mean_seed_deviation(strata: Strata) -> NDArray[np.float64]:
    """Standard deviation over seeds inside of each stratum (sample formula, n - 1), then the mean over strata."""
    return np.asarray(np.mean([np.std(s, axis=-1, ddof=1) for s in strata], axis=0))
