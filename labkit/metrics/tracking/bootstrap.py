"""Intervals by resampling sequences: a benchmark is a sample of the videos one could have filmed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from labkit.errors import InputError


class Interval(NamedTuple):
    """A value between the ends of its 95 % interval (or of the level asked for)."""

    value: float
    low: float
    high: float


def resamples(count: int, rounds: int, seed: int) -> np.ndarray:
    """Indices (rounds, count) of bootstrap samples.

    Raises InputError when there is nothing to draw from.
    """
    if count < 1 or rounds < 1:
        raise InputError(f"resampling needs 1 sequence and 1 round or more; got {count} and {rounds}.")
    return np.random.default_rng(seed).integers(count, size=(rounds, count))


def interval_of_mean(
    values: Float64[np.ndarray, " n"], *, level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> Interval:
    """Mean over sequences and its percentile interval. For a paired comparison, pass the differences."""
    means = values[resamples(len(values), rounds, seed)].mean(1)
    low, high = np.quantile(means, _ends(level))
    return Interval(float(values.mean()), float(low), float(high))


def curve_band(
    curves: Float64[np.ndarray, "n k"], *, level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> Float64[np.ndarray, "2 k"]:
    """Lower and upper end of the mean curve, point by point: the band of a success plot."""
    counts = np.stack([np.bincount(row, minlength=len(curves)) for row in resamples(len(curves), rounds, seed)])
    return np.quantile(counts @ curves / len(curves), _ends(level), axis=0)


def interval_of(
    measure: Callable[[list[Any]], float], items: list[Any], *, level: float = 0.95, rounds: int = 500, seed: int = 0
) -> Interval:
    """For measures that are no means, e.g. an expected overlap over all runs: computed anew on every sample.

    Samples in which the measure is undefined (NaN) are left out; all three values are NaN when it never is defined.
    """
    drawn = resamples(len(items), rounds, seed)
    samples = np.array([measure([items[index] for index in row]) for row in drawn], dtype=np.float64)
    defined = samples[np.isfinite(samples)]
    low, high = np.quantile(defined, _ends(level)) if len(defined) else (np.nan, np.nan)
    return Interval(float(measure(items)), float(low), float(high))


def _ends(level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1; got {level}.")
    return (1 - level) / 2, (1 + level) / 2
