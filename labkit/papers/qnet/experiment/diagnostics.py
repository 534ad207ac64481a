"""What happens while the temperature rises: which weights still learn, and whether the gradients of batches agree."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.qnet.method.soft_quantizer import SoftQuantizer, forward_mode

Batch = TypeVar("Batch")


def slope(quantizer: SoftQuantizer, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The factor dy/dx that the backward pass applies at each x, at the present temperature."""
    with torch.enable_grad(), forward_mode(quantizer, "soft"):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(quantizer(x).sum(), x)
    return gradient


def learning_fraction(quantizer: SoftQuantizer, x: Float[Tensor, "*shape"], share: float = 0.01) -> float:
    """Fraction of the entries of x whose slope exceeds `share` of the largest slope the quantiser has anywhere.

    A bump has full width 3.525 / (T beta) at half height and 11.97 / (T beta) at one percent, so the fraction falls as
    1 / T: the weights freeze.
    """
    if not 0 < share < 1:
        raise InputError(f"share is a part of the largest slope, between 0 and 1; got {share}")
    peak = slope(quantizer, quantizer.thresholds.detach() / quantizer.beta.detach()).abs().max()
    return (slope(quantizer, x).abs() > share * peak).double().mean().item()


@dataclass(frozen=True)
class GradientAgreement:
    """Over several batches: the mean norm of the gradient, and the mean cosine between the gradients of two batches."""

    norm: float
    cosine: float


def gradient_agreement(
    loss: Callable[[Batch], Float[Tensor, ""]], batches: Iterable[Batch], parameters: Sequence[nn.Parameter]
) -> GradientAgreement:
    """Whether the batches pull the parameters the same way: a cosine near 0 is noise, however large the norm.

    Args:
        loss: from a batch to the scalar loss of the model, in the mode and at the temperature to be judged.
        batches: at least two.
        parameters: whose gradient is looked at.

    Raises:
        InputError: fewer than two batches.
    """
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(loss(batch), parameters)]) for batch in batches]
    if len(rows) < 2:
        raise InputError(f"a cosine needs two batches or more; got {len(rows)}")
    gradients = torch.stack(rows).double()
    norms = gradients.norm(dim=1, keepdim=True)
    directions = gradients / norms.clamp(min=torch.finfo(torch.float64).tiny)
    cosines = directions @ directions.t()
    pairs = cosines[~torch.eye(len(rows), dtype=torch.bool, device=cosines.device)]
    return GradientAgreement(norms.mean().item(), pairs.mean().item())
