"""Generalised divisive normalisation (Balle et al. 2016): each channel is divided by the energy of all of them."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError

PEDESTAL = 2.0**-36
"""Added before the square root, so that its slope stays finite where a parameter is 0.  [peer code: CompressAI]"""


class LowerBound(torch.autograd.Function):
    """max(x, bound), with the gradient of x where it would lead x back above the bound.  [peer code]

    A plain maximum has no gradient below its bound: what once fell there would never come back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return outer[0] * ((x >= ctx.bound) | (outer[0] < 0)), None


def lower_bound(x: Float[Tensor, "*shape"], bound: float) -> Float[Tensor, "*shape"]:
    """max(x, bound) with a gradient that passes towards the bound."""
    bounded: Tensor = LowerBound.apply(x, bound)
    return bounded


class Gdn(nn.Module):
    """y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2); with `inverse`, IGDN, y_i = x_i * sqrt(...).  [paper]

    IGDN has parameters of its own and is not the inverse of GDN. beta and gamma stay positive through a
    reparametrisation: what is trained is the square root of each, bounded from below.  [peer code]

    Args:
        channels: of x.
        inverse: multiply instead of divide, as synthesis transforms do.
        beta_min: the smallest beta, so that nothing is divided by zero.
        gamma_init: initial gamma_ii; all others start at 0.
    """

    def __init__(self, channels: int, inverse: bool = False, beta_min: float = 1e-6, gamma_init: float = 0.1) -> None:
        super().__init__()
        if channels < 1:
            raise InputError(f"GDN needs at least one channel; got {channels}.")
        self.inverse, self.beta_min = inverse, beta_min
        self.beta_root = nn.Parameter(torch.sqrt(torch.ones(channels) + PEDESTAL))
        self.gamma_root = nn.Parameter(torch.sqrt(gamma_init * torch.eye(channels) + PEDESTAL))

    @property
    def beta(self) -> Float[Tensor, " channels"]:
        return lower_bound(self.beta_root, (self.beta_min + PEDESTAL) ** 0.5) ** 2 - PEDESTAL

    @property
    def gamma(self) -> Float[Tensor, "channels channels"]:
        """Row i holds the weights of x_j^2 in the energy that channel i is divided by."""
        return lower_bound(self.gamma_root, PEDESTAL**0.5) ** 2 - PEDESTAL

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        energy = F.conv2d(x * x, self.gamma[:, :, None, None], self.beta)
        return x * torch.sqrt(energy) if self.inverse else x * torch.rsqrt(energy)
