"""Algorithm IE: enhance invariance by modifying the data's distribution; the learner stays plain ERM.  [ours]

A modifier takes a batch and a random generator and gives a batch: other images, other weights, never other labels.
They compose: `Chain(Swap(), Edit(edits.shift))`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.itid.method import bounds, edits
from labkit.papers.itid.method.batch import Batch
from labkit.papers.itid.method.edits import EditFunction
from labkit.papers.itid.method.renderers import Images


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
    """IE-swap: x~_i = g(c_i, z_pi(i)), pi a random permutation over the whole batch, *never within a class*.

    Labels stay, the histogram of z stays, and z~ is independent of y. Swapping within a class would change nothing.
    """

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        order = torch.randperm(len(batch), generator=generator).to(batch.labels.device)
        return batch.rerender(batch.nuisance[order])


@dataclass(frozen=True)
class Uniform:
    """IE-uniform: z~ uniform on Z."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        nuisance = torch.randint(batch.renderer.nuisances, (len(batch),), generator=generator)
        return batch.rerender(nuisance.to(batch.labels.device))


@dataclass(frozen=True)
class Edit:
    """IE-edit: a random member of a family of label-preserving edits; z need not be known."""

    family: EditFunction

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=self.family(batch.images, generator), edited=True)


class Weight:
    """IE-weight: w(y, z) = p(y) p(z) / p(y, z) from the counts of the *whole* training set, never of a batch.

    Raises:
        InputError: the training set holds a single class or nuisance: nothing to balance.
    """

    def __init__(self, labels: Int[Tensor, " n"], nuisance: Int[Tensor, " n"]) -> None:
        counts = cell_counts(labels, nuisance)
        if int((counts.sum(0) > 0).sum()) < 2 or int((counts.sum(1) > 0).sum()) < 2:
            raise InputError("weights need at least two classes and two nuisances in the training set.")
        self.table = bounds.independence_weights(counts)
        weights = self.table[labels.cpu(), nuisance.cpu()]
        self.effective_sample_size = bounds.effective_sample_size(weights)
        self.mean_weight = float(weights.mean())
        self.overlap_alarm = bounds.overlap_alarm(weights)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        table = self.table.to(batch.weights)
        return replace(batch, weights=batch.weights * table[batch.labels, batch.nuisance])


class Resample:
    """IE-resample: a batch drawn from the whole training set, with equal probability for each (y, z) cell that occurs.

    Args:
        pool: the training set.
    """

    def __init__(self, pool: Batch) -> None:
        self.pool = pool
        self.probabilities = 1 / cell_counts(pool.labels, pool.nuisance)[pool.labels.cpu(), pool.nuisance.cpu()]

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        index = torch.multinomial(self.probabilities, len(batch), replacement=True, generator=generator)
        return self.pool.take(index.to(batch.labels.device))


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
        gamma = torch._standard_gamma(torch.full((2,), self.alpha, dtype=torch.float64), generator=generator)
        if float(gamma.max()) > 1e-300:
            share = float(gamma[0] / gamma.sum())
        else:  # both underflow when alpha is tiny: Beta is a fair coin then
            share = float(torch.rand((), generator=generator) < 0.5)
        order = torch.randperm(len(batch), generator=generator).to(batch.labels.device)
        images = share * batch.images + (1 - share) * batch.images[order]
        mix = torch.full_like(batch.weights, share)
        return replace(batch, images=images, second_labels=batch.labels[order], mix=mix, edited=True)


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
                images[index] = family(batch.images[index], generator)
        return replace(batch, images=images, edited=True)

    def update(
        self, predict: Callable[[Tensor], Tensor], held_out: Images, generator: torch.Generator
    ) -> dict[str, float]:
        """Measure the network and adapt the probabilities. Returns delta_k by name.

        Args:
            predict: from images to labels.
        """
        before = predict(held_out)
        deltas = {
            name: float((predict(family(held_out, generator)) != before).double().mean())
            for name, family in self.families.items()
        }
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


def cell_counts(labels: Int[Tensor, " n"], nuisance: Int[Tensor, " n"]) -> Float[Tensor, "labels nuisances"]:
    """Number of data in each (y, z) cell."""
    labels, nuisance = labels.cpu(), nuisance.cpu()
    counts = torch.zeros(int(labels.max()) + 1, int(nuisance.max()) + 1, dtype=torch.float64)
    return counts.index_put_((labels, nuisance), torch.ones((), dtype=torch.float64), accumulate=True)


def g_statistic(labels: Int[Tensor, " n"], nuisance: Int[Tensor, " n"]) -> tuple[float, int]:
    """G = 2 n Ihat(y; z) and its degrees of freedom: chi-squared where z is independent of y.

    It says nothing about nuisances that z does not record.
    """
    counts = cell_counts(labels, nuisance)
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    expected = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) / counts.sum()
    terms = torch.where(counts > 0, counts * (counts.clamp(min=1) / expected).log(), torch.zeros_like(counts))
    return 2 * float(terms.sum()), (counts.shape[0] - 1) * (counts.shape[1] - 1)
