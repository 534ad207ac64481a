"""Quantisers of the literature with a straight-through gradient, as functions: LSQ, and DoReFa's weights.

Forward: the nearest level. Backward: as if rounding were the identity.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError


class _StraightThrough(torch.autograd.Function):
    """Forward: `quantized`, to the last bit (x + (q - x).detach() would round). Backward: the gradient, masked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, quantized: Tensor, passes: Tensor | None) -> Tensor:
        ctx.save_for_backward(passes)
        return quantized.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (passes,) = ctx.saved_tensors
        return (gradient if passes is None else gradient * passes), None, None


def straight_through(
    x: Float[Tensor, "*shape"], quantized: Float[Tensor, "*shape"], passes: Tensor | None = None
) -> Float[Tensor, "*shape"]:
    """`quantized` in the forward pass; in the backward pass the gradient goes to x, where the mask `passes` is true."""
    out: Tensor = _StraightThrough.apply(x, quantized.detach(), passes)
    return out


class _ScaledGradient(torch.autograd.Function):
    """Identity, whose gradient is multiplied by `factor`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def learned_step(
    x: Float[Tensor, "*shape"], step: Float[Tensor, ""], lowest: int, highest: int, features: int
) -> Float[Tensor, "*shape"]:
    """LSQ (Esser et al., ICLR 2020, arXiv 1902.08153), which trains the step s as well as x.

        y     = s round(clip(x / s, lowest, highest))
        dy/dx = 1 inside the range, 0 outside
        dy/ds = g (round(x / s) - x / s) inside, g lowest or g highest outside;    g = 1 / sqrt(N highest)

    N is the number of weights of the layer, or the number of its features [paper, 2.2]: of one example, not of the
    batch. The loss is a mean over the batch, so the sum over its examples does not grow with it, and an N that does
    would slow the step down by sqrt(batch). Public re-implementations (lsq-net, torch's _LearnableFakeQuantize) count
    the whole tensor, batch included: their step moves sqrt(16) = 4 times slower at a batch of 16.

    Args:
        step: s, positive.
        lowest, highest: codes, such as -128 and 127; `highest` is the paper's Q_P.
        features: N; `weight.numel()` for weights, `x[0].numel()` for activations.
    """
    scaled = _ScaledGradient.apply(step, 1 / math.sqrt(features * highest))
    ratio = (x / scaled).clamp(lowest, highest)
    return straight_through(ratio, ratio.round()) * scaled


def dorefa_squash(weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """tanh(w) / max |tanh(w)|, in [-1, 1]; the maximum counts as a constant in the backward pass."""
    squashed = weight.tanh()
    return squashed / squashed.detach().abs().max()


def dorefa_codes(weight: Float[Tensor, "*shape"], bits: int) -> Float[Tensor, "*shape"]:
    """c in 0..n, n = 2^bits - 1, with 2 c / n - 1 nearest to `dorefa_squash`; for 1 bit, 1 where w > 0."""
    if bits == 1:
        return (weight.detach() > 0).to(weight.dtype)
    return ((dorefa_squash(weight.detach()) + 1) / 2 * (2**bits - 1)).round()


def dorefa_scale(weight: Float[Tensor, "*shape"], bits: int) -> Float[Tensor, ""]:
    """What the odd whole numbers 2 c - n are multiplied by: 1 / n; for 1 bit the layer's mean |w|."""
    return weight.detach().abs().mean() if bits == 1 else weight.new_full((), 1 / (2**bits - 1))


def dorefa_weights(weight: Float[Tensor, "*shape"], bits: int) -> Float[Tensor, "*shape"]:
    """DoReFa-Net (Zhou et al. 2016): y = scale (2 c - n), c = `dorefa_codes`: in [-1, 1], and no level is zero.

    The gradient passes straight through the rounding; that of tanh and its normalisation is exact.

    Args:
        bits: 1 to 8.
    """
    if not 1 <= bits <= 8:
        raise InputError(f"DoReFa takes 1 to 8 bits; got {bits}")
    quantized = dorefa_scale(weight, bits) * (2 * dorefa_codes(weight, bits) - (2**bits - 1))
    return straight_through(weight if bits == 1 else dorefa_squash(weight), quantized)
