"""What the entropy coder shares at both ends, all in integers: cumulative tables, thresholds of scales, medians.

They are computed once, when a codec is made from trained networks, and travel in the model's file: an exponential that
another machine rounds differently never gets the chance.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.mlvc.method.fixed_point import STEPS
from labkit.papers.mlvc.method.network import Network
from labkit.papers.mlvc.method.priors import SMALLEST_SCALE, FactorizedPrior

LEVELS, LARGEST_SCALE = 64, 64.0
"""Scales of ŷ that are told apart, from 0.11 to 64, equally spaced in the logarithm.  [peer code: CompressAI]"""
TOTAL = 2**16
"""Sum of every table: probabilities are multiples of 2^-16."""
TAIL = 2.0**-16
WIDEST = 1024
"""Entries on each side of a table at most; what lies beyond is coded by an escape."""


@dataclass(frozen=True)
class Alphabet:
    """Probabilities of the symbols lowest, lowest + 1, ... in units of 1 / TOTAL; the last entry is the escape."""

    lowest: int
    counts: np.ndarray

    @property
    def highest(self) -> int:
        return self.lowest + len(self.counts) - 2


@dataclass(frozen=True)
class Tables:
    """thresholds: smallest sigma of each level but the first, in steps of 2^-12. residual: an alphabet a level.

    motion, hyper: an alphabet a channel. *_median: what a symbol is added to, in steps of 2^-12.
    """

    thresholds: np.ndarray
    residual: tuple[Alphabet, ...]
    motion: tuple[Alphabet, ...]
    hyper: tuple[Alphabet, ...]
    motion_median: np.ndarray
    hyper_median: np.ndarray

    def levels(self, sigma: Tensor) -> np.ndarray:
        """Level 0..63 of each scale; `sigma` as the receiver computed it, in float64 and exact."""
        steps = (sigma * STEPS).round().clamp(0, 2.0**31).cpu().numpy().astype(np.int64)
        return np.searchsorted(self.thresholds, steps, side="right")

    def tensors(self) -> dict[str, Tensor]:
        """As integers for a file; `from_tensors` is the way back."""
        flat: dict[str, np.ndarray] = {
            "thresholds": self.thresholds, "motion_median": self.motion_median, "hyper_median": self.hyper_median
        }  # fmt: skip
        for name in ("residual", "motion", "hyper"):
            alphabets: tuple[Alphabet, ...] = getattr(self, name)
            flat[f"{name}.lowest"] = np.array([a.lowest for a in alphabets])
            flat[f"{name}.sizes"] = np.array([len(a.counts) for a in alphabets])
            flat[f"{name}.counts"] = np.concatenate([a.counts for a in alphabets])
        return {name: torch.from_numpy(values.astype(np.int32)) for name, values in flat.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Tables":
        """Raises InputError where they are no tables: another number of them, or sums that are not TOTAL."""
        try:
            flat = {name: tensors[name].numpy().astype(np.int64).reshape(-1) for name in _NAMES}
        except KeyError as error:
            raise InputError(f"the entropy coder's tables are not complete: {error.args[0]} is missing.") from None
        alphabets = {name: _alphabets(flat, name) for name in ("residual", "motion", "hyper")}
        thresholds, medians = flat["thresholds"], (flat["motion_median"], flat["hyper_median"])
        if len(thresholds) != LEVELS - 1 or len(alphabets["residual"]) != LEVELS or (np.diff(thresholds) <= 0).any():
            raise InputError(f"the scales of the entropy coder are not {LEVELS} ascending ones.")
        if [len(m) for m in medians] != [len(alphabets["motion"]), len(alphabets["hyper"])]:
            raise InputError("the entropy coder has not one median for each channel's table.")
        return cls(thresholds, alphabets["residual"], alphabets["motion"], alphabets["hyper"], *medians)


_KINDS = [f"{name}.{kind}" for name in ("residual", "motion", "hyper") for kind in ("lowest", "sizes", "counts")]
_NAMES = ("thresholds", "motion_median", "hyper_median", *_KINDS)


def _alphabets(flat: dict[str, np.ndarray], name: str) -> tuple[Alphabet, ...]:
    lowest, sizes, counts = (flat[f"{name}.{kind}"] for kind in ("lowest", "sizes", "counts"))
    if len(lowest) != len(sizes) or not len(sizes) or (sizes < 2).any() or sizes.sum() != len(counts):
        raise InputError(f"the entropy coder's tables for {name} do not have the sizes that they announce.")
    parts = np.split(counts, np.cumsum(sizes)[:-1])
    if any((part < 1).any() or part.sum() != TOTAL for part in parts) or (np.abs(lowest) > 2**24).any():
        raise InputError(f"the entropy coder's tables for {name} do not sum to {TOTAL}.")
    return tuple(Alphabet(int(first), part) for first, part in zip(lowest, parts, strict=True))


def make_tables(network: Network) -> Tables:
    """The tables of trained networks. Medians come from the priors' last switch to evaluation mode."""
    motion, hyper = network.motion_coding.prior, network.hyperprior.prior
    medians = [
        (prior.median.detach().double() * STEPS).round().cpu().numpy().astype(np.int64) for prior in (motion, hyper)
    ]
    residual, thresholds = gaussian_alphabets()
    return Tables(
        thresholds, residual, _channel_alphabets(motion, medians[0]), _channel_alphabets(hyper, medians[1]), *medians
    )


@functools.cache
def gaussian_alphabets() -> tuple[tuple[Alphabet, ...], np.ndarray]:
    """An alphabet for each of the 64 scales, and the thresholds between them (geometric means) in steps."""
    ratio = math.log(LARGEST_SCALE / SMALLEST_SCALE) / (LEVELS - 1)
    scales = [SMALLEST_SCALE * math.exp(ratio * level) for level in range(LEVELS)]
    alphabets = []
    for sigma in scales:
        reach = math.ceil(4.2 * sigma) + 1
        below = np.array([math.erfc(-(k - 0.5) / sigma * math.sqrt(0.5)) / 2 for k in range(-reach, reach + 2)])
        alphabets.append(Alphabet(-reach, counts(np.diff(below))))
    return tuple(alphabets), np.array([math.ceil(s * math.exp(ratio / 2) * STEPS) for s in scales[:-1]])


@torch.no_grad()
def _channel_alphabets(prior: FactorizedPrior, median: np.ndarray) -> tuple[Alphabet, ...]:
    """One alphabet a channel, of symbols relative to its median, as wide as its tails ask for."""
    centre = torch.from_numpy(median / STEPS)
    low, high = (
        (quantile.double().cpu() - centre).numpy().clip(-WIDEST, WIDEST)
        for quantile in (prior.quantile(TAIL), prior.quantile(1 - TAIL))
    )
    lowest, highest = np.minimum(np.floor(low), 0).astype(int), np.maximum(np.ceil(high), 0).astype(int)
    points = torch.arange(lowest.min(), highest.max() + 1, dtype=torch.float64)
    whole = (points + centre[:, None]).to(prior.median)[None, :, None]  # (1, channels, 1, points)
    p = prior.likelihood(whole)[0, :, 0].double().cpu().numpy()
    first = int(lowest.min())
    return tuple(
        Alphabet(int(a), counts(p[c, a - first : b - first + 1]))
        for c, (a, b) in enumerate(zip(lowest, highest, strict=True))
    )


def counts(p: np.ndarray) -> np.ndarray:
    """Probabilities as integers of sum TOTAL, each at least 1, with a last one for everything else (the escape)."""
    if not np.isfinite(p).all() or (p < 0).any():
        raise InputError("a prior gives probabilities that are not finite: that training diverged.")
    whole = np.append(p, max(0.0, 1 - p.sum()))
    integers = 1 + np.floor(whole / whole.sum() * (TOTAL - len(whole))).astype(np.int64)
    integers[np.argmax(integers)] += TOTAL - integers.sum()
    return integers
