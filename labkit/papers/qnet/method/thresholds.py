"""Where a soft quantiser starts: the input scale beta and the thresholds b, from samples of what it will quantise.

Thresholds lie midway between neighbouring centroids of a one-dimensional k-means: the samples' Lloyd-Max quantiser.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.qnet.method.levels import check_levels, is_binary

Init = Literal["range", "trimmed", "mse"]

OUTLIERS = 0.0027  # share of the values beyond three sigma of a Gaussian  [peer code]
MAX_SAMPLES = 20_000


def initialize(
    samples: Float[Tensor, "*shape"], levels: Sequence[float], init: Init = "range"
) -> tuple[float, Float[Tensor, " steps"]]:
    """beta and the thresholds b (in units of beta x) that fit `samples`; alpha starts at 1 / beta.

    With p = max |Y|:
        "range"    beta = 5 p / (4 max |x|): scaled values span +-1.25 p; b by k-means. For weights.  [official code]
        "trimmed"  beta = p / q, q the quantile of |x| > 0 that leaves out three-sigma outliers; b by k-means. For
                   activations, whose few large values would push all others into the lowest level.  [peer code]
        "mse"      the beta whose rounding to the nearest level has the least squared error; b midway between levels
                   [ours].
    A symmetric pair of levels, binary weights, has the threshold 0 whatever the samples.  [official code]

    Raises:
        InputError: samples that are all zero or not finite, or that have fewer distinct values than there are levels.
    """
    values, Y = _sorted_subset(samples), torch.tensor(check_levels(levels), dtype=torch.float64)
    if init not in get_args(Init):
        raise InputError(f"init must be one of {', '.join(get_args(Init))}; got '{init}'")
    highest = Y.abs().max()
    nonzero = values.abs()[values != 0]
    if len(nonzero) == 0:
        raise InputError("the samples are all zero: nothing to scale by. Is a ReLU dead, or a weight not initialised?")
    trimmed = torch.quantile(nonzero, 1 - OUTLIERS)
    if init == "mse":
        beta = _least_squares_scale(values, Y, highest / trimmed)
        thresholds = (Y[1:] + Y[:-1]) / 2
    else:
        beta = 1.25 * highest / nonzero.max() if init == "range" else highest / trimmed
        scaled = (beta * values).clamp(-1.25 * highest, 1.25 * highest)  # outliers beyond the range pull no centroid
        thresholds = torch.zeros(1) if is_binary(levels) else kmeans_thresholds(scaled, len(Y))
    return beta.item(), thresholds.to(torch.get_default_dtype())


def kmeans_thresholds(samples: Float[Tensor, "*shape"], count: int) -> Float[Tensor, " steps"]:
    """The count - 1 midpoints between the centroids of `kmeans_centroids`, ascending.

    The [official code] takes the midpoint of the two samples at each change of cluster: the same number, up to the gap
    between neighbouring samples.
    """
    centroids = kmeans_centroids(samples, count)
    return (centroids[1:] + centroids[:-1]) / 2


def kmeans_centroids(samples: Float[Tensor, "*shape"], count: int) -> Float[Tensor, " count"]:
    """The `count` centroids of one-dimensional k-means, ascending, float64.

    Of some 500 groups of neighbouring values the best split is computed exactly, by dynamic programming; Lloyd's rounds
    then move the borders sample by sample. (From quantile starts they ended 16 % above the best error on a mixture.)

    Raises:
        InputError: fewer distinct samples than centroids; samples that are not finite.
    """
    values = _sorted_subset(samples)
    distinct, repeats = values.unique(return_counts=True)
    if count < 1 or len(distinct) < count:
        raise InputError(
            f"{len(distinct)} distinct values cannot be split into {count} clusters; give more samples or fewer levels"
        )
    groups = max(512, 4 * count)
    group = torch.arange(len(distinct))
    if len(distinct) > groups:  # neighbours in rank and in value: a tail of few values is not one group
        rank, height = group / len(group), (distinct - distinct[0]) / (distinct[-1] - distinct[0])
        group = ((rank + height) / 2 * groups).long().unique(return_inverse=True)[1]
    weights = distinct.new_zeros(int(group[-1]) + 1).index_add_(0, group, repeats.double())
    means = torch.zeros_like(weights).index_add_(0, group, repeats * distinct) / weights
    return _lloyd(values, _best_split(means, weights, count))


def _best_split(x: Float[Tensor, " n"], weights: Float[Tensor, " n"], count: int) -> Float[Tensor, " count"]:
    """Centroids of the `count` intervals of ascending x with the least squared error.

    error[k, j] = min_i error[k - 1, i - 1] + cost[i, j], cost[i, j] the squared error of x_i ... x_j about their mean.
    """
    x = x - (center := x.mean())  # keeps the differences of sums of squares accurate
    w, wx, wxx = (torch.cat([x.new_zeros(1), (weights * x**power).cumsum(0)]) for power in (0, 1, 2))
    size, total, squares = (sums[None, 1:] - sums[:-1, None] for sums in (w, wx, wxx))  # [i, j]: over x_i ... x_j
    ordered = torch.ones_like(size, dtype=torch.bool).triu()
    cost = torch.where(ordered, squares - total**2 / torch.where(ordered, size, 1.0), torch.inf)
    error, starts = cost[0], []
    for _ in range(count - 1):
        before = torch.cat([error.new_full((1,), torch.inf), error[:-1]])  # before x_i, one cluster fewer
        error, start = (before[:, None] + cost).min(0)
        starts.append(start)
    centroids, end = [], len(x) - 1
    for start in [*reversed(starts), torch.zeros(len(x), dtype=torch.long)]:
        first = int(start[end])
        centroids.append(total[first, end] / size[first, end])
        end = first - 1
    return torch.stack(centroids[::-1]) + center


def _lloyd(values: Float[Tensor, " n"], centroids: Float[Tensor, " count"]) -> Float[Tensor, " count"]:
    """Each centroid to the mean of the values nearest to it, until none changes its cluster.

    On sorted values a cluster is a slice, and its mean a difference of two prefix sums.
    """
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    ends = torch.tensor([0, len(values)])
    previous = None
    while True:
        borders = torch.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        edges = torch.cat([ends[:1], borders, ends[1:]])
        if previous is not None and torch.equal(edges, previous):
            return centroids
        previous, sizes = edges, edges.diff()
        centroids = torch.where(sizes > 0, sums[edges].diff() / sizes.clamp(min=1), centroids)


def _sorted_subset(samples: Tensor) -> Tensor:
    """All values in order, in float64 on the CPU; of more than MAX_SAMPLES, as many evenly spaced in rank."""
    values = samples.detach().flatten().double().cpu()
    if len(values) == 0 or not values.isfinite().all():
        raise InputError(f"samples must be finite numbers, at least one; got {len(values)} values, some inf or nan")
    values = values.sort().values
    if len(values) <= MAX_SAMPLES:
        return values
    return values[torch.linspace(0, len(values) - 1, MAX_SAMPLES, dtype=torch.float64).round().long()]


def _least_squares_scale(values: Tensor, levels: Tensor, start: Tensor) -> Tensor:
    """Of 60 scales around `start`, the beta of the least sum of (nearest level / beta - x)^2."""
    thresholds = (levels[1:] + levels[:-1]) / 2
    candidates = start / torch.linspace(0.15, 1.2, 60, dtype=torch.float64)
    rounded = [levels[torch.bucketize(beta * values, thresholds)] / beta for beta in candidates]
    return candidates[torch.stack([(nearest - values).square().sum() for nearest in rounded]).argmin()]
