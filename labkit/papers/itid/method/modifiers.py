"""Algorithm IE: enhance invariance by modifying the data's distribution; the learner stays plain ERM.  [ours]

A modifier takes a batch and a random generator and gives a batch: other images, other weights, never other labels.
They compose: `Chain(Swap(), Edit(edits.shift))`. `BatchModifier` puts one behind any DataLoader.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.itid.method import bounds, edits
from labkit.papers.itid.method.batch import UNKNOWN, Batch
from labkit.papers.itid.method.edits import EditFunction
from labkit.papers.itid.method.pixels import Images, in_float

CodesLike = Tensor | np.ndarray | Sequence[int]  # one whole number per datum
MOST_CELLS = 10**7  # of a table over labels and nuisances: 80 MB


@runtime_checkable
class DistributionModifier(Protocol):
    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch: ...


@dataclass(frozen=True)
class Unchanged:
    """The data as they are: plain ERM."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch


@dataclass(frozen=True)
class Swap:
    """IE-swap: x~_i = g(c_i, z_pi(i)), pi one random permutation of the whole batch.

    Labels stay, the histogram of z stays, and z~ is independent of y.
    """

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        order = torch.randperm(len(batch), generator=generator).to(batch.labels.device)
        return batch.rerender(batch.known_nuisance()[order])


@dataclass(frozen=True)
class Uniform:
    """IE-uniform: z~ uniform on Z."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        if batch.renderer.nuisances < 1:
            raise InputError("this renderer does not say how many nuisances there are; use Swap, or give `nuisances`.")
        nuisance = torch.randint(batch.renderer.nuisances, (len(batch),), generator=generator)
        return batch.rerender(nuisance.to(batch.labels.device))


@dataclass(frozen=True)
class Edit:
    """IE-edit: a random member of a family of label-preserving edits; z need not be known. Any pixel type."""

    family: EditFunction

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = in_float(lambda pixels: self.family(pixels, generator), batch.images)
        return replace(batch, images=images, edited=True)


class Weight:
    """IE-weight: w(y, z) = p(y) p(z) / p(y, z) from the counts of the *whole* training set, never of a batch.

    Args:
        labels, nuisance: of every datum of the training set, numbered from 0 on: tensors, arrays or lists.

    Raises:
        InputError: the training set holds a single class or nuisance: nothing to balance.
    """

    def __init__(self, labels: CodesLike, nuisance: CodesLike) -> None:
        counts = cell_counts(labels, nuisance)
        if int((counts.sum(0) > 0).sum()) < 2 or int((counts.sum(1) > 0).sum()) < 2:
            raise InputError("weights need at least two classes and two nuisances in the training set.")
        self.table = bounds.independence_weights(counts)
        weights = self.table[as_codes(labels, "labels"), as_codes(nuisance, "nuisances")]
        self.effective_sample_size = bounds.effective_sample_size(weights)
        self.mean_weight = float(weights.mean())
        self.overlap_alarm = bounds.overlap_alarm(weights)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        labels, nuisance = batch.labels, batch.known_nuisance()
        for name, codes, limit in zip(("labels", "nuisances"), (labels, nuisance), self.table.shape, strict=True):
            if codes.ndim != 1 or codes.is_floating_point() or not 0 <= int(codes.min()) <= int(codes.max()) < limit:
                raise InputError(f"the weights were made for {name} 0 to {limit - 1}; this batch holds others.")
        return replace(batch, weights=batch.weights * self.table.to(batch.weights)[labels, nuisance])


class Resample:
    """IE-resample: a batch drawn from the whole training set, with equal probability for each (y, z) cell that occurs.

    Args:
        pool: the training set.
    """

    def __init__(self, pool: Batch) -> None:
        self.pool = pool
        self.probabilities = balancing_probabilities(pool.labels, pool.nuisance)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        index = torch.multinomial(self.probabilities, len(batch), replacement=True, generator=generator)
        return self.pool.take(index.to(batch.labels.device))


def balancing_probabilities(labels: CodesLike, nuisance: CodesLike) -> Float[Tensor, " n"]:
    """How likely each datum must be drawn so that all (y, z) cells that occur are alike, up to a factor.

    IE-resample for any Dataset: `WeightedRandomSampler(balancing_probabilities(labels, nuisance), len(labels))`.
    """
    return 1 / cell_counts(labels, nuisance)[as_codes(labels, "labels"), as_codes(nuisance, "nuisances")]


@dataclass(frozen=True)
class Neutral:
    """The oracle: images without any nuisance. Its network must be tested on such images, too."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=batch.renderer.neutral(batch.content))


@dataclass(frozen=True)
class Paired:
    """The data as they are, with the images of `modifier` as a second view: for the consistency penalty."""

    modifier: DistributionModifier

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, partner=self.modifier(batch, generator).images)


@dataclass(frozen=True)
class Mixup:
    """Pairs of data blended by one Beta(alpha, alpha) weight for the batch, labels too. alpha -> 0 is plain ERM."""

    alpha: float = 0.4

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise InputError(f"mixup's alpha must be positive; got {self.alpha}.")

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        share = draw_beta(self.alpha, generator)
        order = torch.randperm(len(batch), generator=generator).to(batch.labels.device)
        images = in_float(lambda pixels: share * pixels + (1 - share) * pixels[order], batch.images)
        mix = torch.full_like(batch.weights, share)
        return replace(batch, images=images, second_labels=batch.labels[order], mix=mix, edited=True)


@dataclass(frozen=True)
class InterdomainMixup:
    """Mixup of data from different environments (Yan et al., arXiv 2001.00677), as DomainBed has it.  [peer code]

    The environments stand in a random ring, the i-th datum of each is blended with the i-th of the next one, and each
    pair of environments has its own Beta(alpha, alpha) weight. With one environment that is plain ERM.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise InputError(f"mixup's alpha must be positive; got {self.alpha}.")

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        environments = batch.environment.unique()
        if UNKNOWN in environments.tolist():
            raise InputError(
                "the environment of these data is not known: a sample is (image, label, nuisance, environment)."
            )
        ring = environments[torch.randperm(len(environments), generator=generator).to(environments.device)]
        mix, second = torch.empty_like(batch.weights), torch.empty_like(batch.environment)
        for here, there in zip(ring, ring.roll(-1), strict=True):
            first, others = ((batch.environment == e).nonzero()[:, 0] for e in (here, there))
            second[first] = others[torch.arange(len(first), device=others.device) % len(others)]
            mix[first] = draw_beta(self.alpha, generator)

        def blend(pixels: Tensor) -> Tensor:
            share = mix.to(pixels)[:, None, None, None]
            return share * pixels + (1 - share) * pixels[second]

        images = in_float(blend, batch.images)
        return replace(batch, images=images, second_labels=batch.labels[second], mix=mix, edited=True)


def draw_beta(alpha: float, generator: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha)."""
    gamma = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator)
    if float(gamma.max()) > 1e-300:
        return float(gamma[0] / gamma.sum())
    return float(torch.rand((), generator=generator) < 0.5)  # both underflow when alpha is tiny: Beta is a coin then


class Adaptive:
    """IE-adaptive: edits that change the network's predictions are drawn more often.  [ours, an extension]

    Every `every` steps `update` measures delta_k, the share of held-out predictions that edit k changes, and sets
    p_k <- p_k exp(eta delta_k), normalised, with a floor eps / K. It stops changing when max_k delta_k <= tolerance.
    """

    def __init__(
        self, families: Mapping[str, EditFunction], eta: float = 2.0, every: int = 25, eps: float = 0.1,
        tolerance: float = 0.01,
    ) -> None:  # fmt: skip
        if not families:
            raise InputError("IE-adaptive needs at least one family of edits.")
        if not (eta > 0 and every > 0 and 0 <= eps <= 1):
            raise InputError(f"eta and every are positive, eps lies in [0, 1]; got {eta}, {every}, {eps}.")
        self.families, self.eta, self.every, self.eps, self.tolerance = dict(families), eta, every, eps, tolerance
        self.probabilities = torch.full((len(families),), 1 / len(families), dtype=torch.float64)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        choice = torch.multinomial(self.probabilities, len(batch), replacement=True, generator=generator)
        images = batch.images.clone()
        for k, family in enumerate(self.families.values()):
            index = (choice == k).nonzero()[:, 0].to(images.device)
            if len(index):
                images[index] = Edit(family)(batch.take(index), generator).images
        return replace(batch, images=images, edited=True)

    def update(
        self, predict: Callable[[Tensor], Tensor], held_out: Images, generator: torch.Generator
    ) -> dict[str, float]:
        """Measure the network and adapt the probabilities. Returns delta_k by name.

        Args:
            predict: from images to labels.
        """
        before = predict(held_out)

        def delta(family: EditFunction) -> float:
            edited = in_float(lambda pixels: family(pixels, generator), held_out)
            return float((predict(edited) != before).double().mean())

        deltas = {name: delta(family) for name, family in self.families.items()}
        if max(deltas.values()) > self.tolerance:
            raised = self.probabilities * torch.tensor(
                [math.exp(self.eta * d) for d in deltas.values()], dtype=torch.float64
            )
            floor = self.eps / len(deltas)
            self.probabilities = floor + (1 - self.eps) * raised / raised.sum()
        return deltas

    def state_dict(self) -> dict[str, Any]:
        return {"probabilities": self.probabilities}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.probabilities = state_dict["probabilities"]


class Chain:
    """One modifier after another."""

    def __init__(self, *modifiers: DistributionModifier) -> None:
        self.modifiers = modifiers

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        for modifier in self.modifiers:
            batch = modifier(batch, generator)
        return batch


DEFAULT_FAMILIES = {name: edits.EDITS[name] for name in ("colour", "shift", "blur")}


# -- is z independent of y now? ---------------------------------------------------------------------------------------


def as_codes(values: CodesLike, what: str) -> Int[Tensor, " n"]:
    """Whole numbers from 0 on, one per datum, as a tensor on the CPU.

    Raises:
        InputError: they are something else.
    """
    codes = torch.as_tensor(values).cpu()
    if codes.ndim != 1 or not len(codes) or codes.is_floating_point() or codes.is_complex() or int(codes.min()) < 0:
        raise InputError(f"{what} must be whole numbers from 0 on, one per datum; got {codes.dtype} {_brief(codes)}.")
    return codes.to(torch.int64)


def _brief(codes: Tensor) -> str:
    return f"of shape {tuple(codes.shape)}" if codes.ndim != 1 else str(codes[:5].tolist())


def cell_counts(labels: CodesLike, nuisance: CodesLike) -> Float[Tensor, "labels nuisances"]:
    """Number of data in each (y, z) cell.

    Raises:
        InputError: not two lists of one length of numbers from 0 on, or a table that would be too large.
    """
    y, z = as_codes(labels, "labels"), as_codes(nuisance, "nuisances")
    if len(y) != len(z):
        raise InputError(f"labels and nuisances must be as many; got {len(y)} and {len(z)}.")
    rows, columns = int(y.max()) + 1, int(z.max()) + 1
    if rows * columns > MOST_CELLS:
        raise InputError(
            f"labels up to {rows - 1} and nuisances up to {columns - 1} are too many: number them from 0 on."
        )
    counts = torch.zeros(rows, columns, dtype=torch.float64)
    return counts.index_put_((y, z), torch.ones((), dtype=torch.float64), accumulate=True)


def g_statistic(labels: Int[Tensor, " n"], nuisance: Int[Tensor, " n"]) -> tuple[float, int]:
    """G = 2 n Ihat(y; z) and its degrees of freedom: chi-squared where z is independent of y.

    It says nothing about nuisances that z does not record.
    """
    counts = cell_counts(labels, nuisance)
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    expected = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) / counts.sum()
    terms = torch.where(counts > 0, counts * (counts.clamp(min=1) / expected).log(), torch.zeros_like(counts))
    return 2 * float(terms.sum()), (counts.shape[0] - 1) * (counts.shape[1] - 1)
