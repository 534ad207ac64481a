"""8 x 8 blocks: the orthonormal cosine transform as a convolution, and its quantisers."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SIDE = 8
ROUNDING = 0.35
"""A coefficient of less than 1 - ROUNDING steps becomes 0: small ones cost more bits than they are worth."""

Planes = Float[Tensor, "n 1 height width"]
Blocks = Float[Tensor, "n 64 rows columns"]
Coefficients = Float[Tensor, "n _ rows columns"]


def _basis() -> Float[Tensor, "64 1 8 8"]:
    k = torch.arange(SIDE, dtype=torch.float64)
    rows = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / (2 * SIDE)) * math.sqrt(2 / SIDE)
    rows[0] /= math.sqrt(2)
    return torch.einsum("ay,bx->abyx", rows, rows).reshape(SIDE * SIDE, 1, SIDE, SIDE).float()


BASIS = _basis()


def dct(planes: Planes) -> Blocks:
    """64 coefficients of each block, row frequency first. The transform keeps lengths: errors are those of pixels."""
    return F.conv2d(planes, BASIS.to(planes), stride=SIDE)


def inverse_dct(coefficients: Blocks) -> Planes:
    return F.conv_transpose2d(coefficients, BASIS.to(coefficients), stride=SIDE)


def quantize(coefficients: Coefficients, step: Float[Tensor, "n 1 1 1"]) -> Coefficients:
    """sign(u) floor(|u| + ROUNDING), u = c / step."""
    u = coefficients / step
    return torch.sign(u) * torch.floor(u.abs() + ROUNDING)


def rate_distortion(coefficients: Coefficients, step: Float[Tensor, "n 1 1 1"]) -> Coefficients:
    """J(c) = 1/2 log2(1 + 12 c^2 / q^2), in bits: what a residual coefficient costs at quantiser step q.  [inferred]

    Far above q it is log2(|c| / q) + 1.79, the rate of a uniform quantiser. Far below it is 8.66 (c / q)^2: the error
    of a coefficient that is set to 0, in bits at the slope -dD/dR = 2 ln 2 q^2 / 12 of fine quantisation.
    """
    return 0.5 * torch.log2(1 + 12 * (coefficients / step).square())
