"""Where to put the bound of a bounded ReLU: rules, and the streaming statistics they read.

| rule        | bound                                                                                     |
|-------------|-------------------------------------------------------------------------------------------|
| max         | the largest value (TensorRT's "max", and what no rule amounts to)                         |
| 3sigma      | mean over batches of the order statistic at rank 0.99865, zeros included  [official code] |
| 3.5sigma    | the same at rank 0.99977  [official code]                                                 |
| p99, p95... | a percentile of all values, zeros included                                                |
| mean+3sigma | mean and standard deviation of all values; any number for 3                               |
| mse         | least mean squared error of clipping and rounding together                                |
| kl          | least Kullback-Leibler divergence of the rounded histogram (TensorRT's "entropy")         |
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError

RANKS = {"3sigma": 0.99865, "3.5sigma": 0.99977}  # one-sided normal quantiles at 3.00 and 3.50 standard deviations
RULES = ("max", "3.5sigma", "3sigma", "p99.9", "p99", "p95", "mean+3sigma", "mse", "kl")
BINS = 2048


@dataclass
class ActivationStatistics:
    """What the rules need to know of one layer's activations, collected batch by batch in constant memory.

    The histogram starts as wide as the first batch; a larger value doubles its range and merges bins in pairs, so no
    second pass over the data is needed.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    maximum: float = 0.0
    ranked: dict[str, list[float]] = field(default_factory=lambda: {rule: [] for rule in RANKS})
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    limit: float = 0.0  # upper end of the histogram
    zeros: int = 0  # kept out of the histogram: they round to zero exactly, and would swamp the first bin

    def add(self, y: Float[Tensor, "*shape"]) -> None:
        """One batch of values after the ReLU, zeros included."""
        values = y.detach().flatten()
        if not len(values):
            return
        largest = float(values.max())
        if not math.isfinite(largest):
            raise InputError("an activation is infinite or not a number: the network diverged before calibration.")
        self.count += len(values)
        self.total += float(values.sum(dtype=torch.float64))
        self.squares += float(values.double().square().sum())
        self.maximum = max(self.maximum, largest)
        for rule, rank in RANKS.items():
            self.ranked[rule].append(order_statistic(values, rank))
        self._add_to_histogram(values, largest)

    def _add_to_histogram(self, values: Tensor, largest: float) -> None:
        if largest > 0 and self.limit == 0:
            self.limit = largest
        while largest > self.limit:
            merged = self.histogram.reshape(-1, 2).sum(1)
            self.histogram = np.concatenate([merged, np.zeros(BINS // 2)])
            self.limit *= 2
        positive = values[values > 0]
        if len(positive):
            self.histogram += torch.histc(positive.float().cpu(), BINS, 0, self.limit).numpy()
        self.zeros += len(values) - len(positive)

    def bound(self, rule: str, levels: int = 127) -> float:
        """The bound that `rule` gives; `levels` matters to "mse" and "kl" only.

        Raises:
            InputError: no such rule, no batch added yet, or no positive value in them.
        """
        check_rule(rule)
        if not self.count:
            raise InputError("there are no activations yet: run calibration images through the network first.")
        if self.maximum == 0:
            raise InputError("a layer gave nothing but zeros for the calibration images: it is dead, no bound fits it.")
        if rule == "max":
            return self.maximum
        if rule in RANKS:
            mean = float(np.mean(self.ranked[rule]))
            return mean if mean > 0 else self.maximum  # fewer than that share of the values are positive
        if rule.startswith("mean+"):
            mean = self.total / self.count
            sigma = math.sqrt(max(0.0, self.squares / self.count - mean**2))
            return mean + float(rule[5:-5]) * sigma
        if rule.startswith("p"):
            return self.percentile(float(rule[1:]))
        return self._best(lambda bound: self.error(bound, levels) if rule == "mse" else self.divergence(bound, levels))

    def percentile(self, percent: float) -> float:
        """The value below which `percent` % of all values lie, zeros included; from the histogram."""
        rank = percent / 100 * self.count - self.zeros
        if rank <= 0:
            return self.limit / BINS
        last_bin = int(np.searchsorted(np.cumsum(self.histogram), rank))
        return min((last_bin + 1) * self.limit / BINS, self.maximum)

    def error(self, bound: float, levels: int) -> float:
        """Mean squared error of clipping at `bound` and rounding to `levels` steps: `clip_error` + `rounding_error`."""
        return self.clip_error(bound) + self.rounding_error(bound, levels)

    def clip_error(self, bound: float) -> float:
        """Part of the mean squared error that stems from values above the bound."""
        centres = self._centres()
        return float((self.histogram * np.maximum(centres - bound, 0) ** 2).sum() / max(self.count, 1))

    def rounding_error(self, bound: float, levels: int) -> float:
        """step^2 / 12 for every positive value below the bound; a zero has none."""
        inside = float(self.histogram[self._centres() <= bound].sum())
        return inside / max(self.count, 1) * (bound / levels) ** 2 / 12

    def clip_rate(self, bound: float) -> float:
        """Share of all values, zeros included, that lie above the bound."""
        return float(self.histogram[self._centres() > bound].sum() / max(self.count, 1))

    def divergence(self, bound: float, levels: int) -> float:
        """KL(P || Q): P the histogram, everything above the bound in its last bin, Q the same in `levels` steps."""
        bins = max(levels, round(bound / self.limit * BINS))
        counts = self.histogram[:bins].astype(float)
        p = counts.copy()
        p[-1] += self.histogram[bins:].sum()
        groups = np.minimum((np.arange(len(counts)) * levels) // len(counts), levels - 1)
        nonzero = counts > 0
        sums = np.bincount(groups, counts, levels)
        sizes = np.bincount(groups, nonzero, levels)
        q = np.where(nonzero, (sums / np.maximum(sizes, 1))[groups], 0.0)
        both = (p > 0) & (q > 0)
        lost = p[(p > 0) & (q == 0)].sum() / p.sum()  # mass that Q gives no probability: counted as one nat each
        p, q = p / p.sum(), q / max(q.sum(), 1e-12)
        return float((p[both] * np.log(p[both] / q[both])).sum() + lost)

    def _best(self, cost: Callable[[float], float]) -> float:
        candidates = np.linspace(self.maximum / 64, self.maximum, 512)
        return float(candidates[int(np.argmin([cost(float(bound)) for bound in candidates]))])

    def _centres(self) -> np.ndarray:
        return (np.arange(BINS) + 0.5) * self.limit / BINS


Statistics = dict[str, ActivationStatistics]  # by the name of the bounded ReLU


def order_statistic(values: Float[Tensor, " n"], rank: float) -> float:
    """The value at index round(n rank) of n sorted values, counted from 0 [official code]; without sorting."""
    from_bottom = min(round(len(values) * rank), len(values) - 1) + 1
    from_top = len(values) - from_bottom + 1
    if from_top * 20 < len(values):
        return float(values.topk(from_top, sorted=False).values.min())
    return float(values.kthvalue(from_bottom).values)


def check_rule(rule: str) -> None:
    """Raises InputError for a rule that is not one of the table above."""
    if rule in ("max", "mse", "kl", *RANKS) or re.fullmatch(r"mean\+\d+(\.\d+)?sigma", rule):
        return
    if re.fullmatch(r"p\d+(\.\d+)?", rule) and 0 < float(rule[1:]) <= 100:
        return
    raise InputError(f"there is no bound rule '{rule}'; there are {', '.join(RULES)} (any number for the percents).")


def gaussian_error(k: float, levels: int) -> float:
    """E(k) = (1 + k^2)(1 - Phi(k)) - k phi(k) + (k / L)^2 / 24 for ReLU(N(0, 1)): clipping, rounding of one half."""
    tail = 0.5 * math.erfc(k / math.sqrt(2))
    density = math.exp(-k * k / 2) / math.sqrt(2 * math.pi)
    return (1 + k * k) * tail - k * density + (k / levels) ** 2 / 24


def laplace_error(k: float, levels: int) -> float:
    """The same for ReLU of a Laplace variable of scale 1: e^-k + (k / L)^2 / 24."""
    return math.exp(-k) + (k / levels) ** 2 / 24


def best_bound(error: Callable[[float, int], float], levels: int) -> float:
    """The k that minimises `error(k, levels)`, by golden sections between 0.1 and 40."""
    from scipy.optimize import minimize_scalar

    grid = np.linspace(0.1, 40, 400)
    start = grid[int(np.argmin([error(float(k), levels) for k in grid]))]
    minimum = minimize_scalar(lambda k: error(k, levels), bounds=(start - 0.1, start + 0.1), method="bounded")
    return float(minimum.x)
