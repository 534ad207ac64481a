"""Gaussian policies, with and without a tanh that keeps actions in (-1, 1). All sums run over the last dimension."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def gaussian_log_prob(
    value: Float[Tensor, "*batch action"],
    mean: Float[Tensor, "*batch action"],
    log_std: Float[Tensor, "*#batch action"],
) -> Float[Tensor, "*batch"]:
    """log N(value; mean, exp(log_std)^2), summed over the independent components."""
    standard = (value - mean) * torch.exp(-log_std)
    return (-0.5 * standard**2 - log_std - LOG_SQRT_2PI).sum(-1)


def log_tanh_slope(u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)): no cancellation, however large |u| is."""
    return 2 * (math.log(2) - u - F.softplus(-2 * u))


def tanh_gaussian(
    mean: Float[Tensor, "*batch action"],
    log_std: Float[Tensor, "*batch action"],
    noise: Float[Tensor, "*batch action"],
) -> tuple[Float[Tensor, "*batch action"], Float[Tensor, "*batch"]]:
    """A reparameterized sample a = tanh(u), u = mean + exp(log_std) noise, and its log-density; noise is N(0, 1).

    log pi(a) = log N(u) - sum log(1 - tanh(u)^2), computed from u itself: inverting tanh would lose it near +-1. In
    log N(u) = -noise^2/2 - log_std - log sqrt(2 pi) the mean cancels, and with it a source of rounding.
    """
    u = mean + log_std.exp() * noise
    log_prob = (-0.5 * noise**2 - log_std - LOG_SQRT_2PI).sum(-1) - log_tanh_slope(u).sum(-1)
    return torch.tanh(u), log_prob
