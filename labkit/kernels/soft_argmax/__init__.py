"""Where a heat map points, differentiably: the mean position under its softmax; on a GPU in one pass over the map.

p = softmax(z over all cells)        J = (sum p_i h_i, sum p_i w_i),   h, w from 0 to 1
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.soft_argmax.reference import (
    Backward,
    Forward,
    soft_argmax_backward_reference,
    soft_argmax_reference,
)

__all__ = ["soft_argmax", "soft_argmax_reference"]


def soft_argmax(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch 2"]:
    """(row, column) of each heat map, between 0 and 1; the first row and column are 0, the last 1.

    In half precision the map is read as it is, sums and result are float32 on a GPU.

    Raises:
        InputError: a map without cells.
    """
    if maps.dim() < 2 or not maps.shape[-1] * maps.shape[-2]:
        raise InputError(f"heat maps must be (..., height, width) with cells in them; got {tuple(maps.shape)}.")
    flat = maps.reshape(-1, *maps.shape[-2:]).contiguous()
    return _SoftArgmax.apply(flat).view(*maps.shape[:-2], 2)


class _SoftArgmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        at, log_sum = _bodies(maps)[0](maps)
        ctx.save_for_backward(maps, log_sum, at)
        return at

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        maps, log_sum, at = ctx.saved_tensors
        return _bodies(maps)[1](maps, log_sum, at, gradient.contiguous())


def _bodies(maps: Tensor) -> tuple[Forward, Backward]:
    if maps.is_cuda:
        from labkit.kernels.soft_argmax.triton import soft_argmax_backward_triton, soft_argmax_triton

        return soft_argmax_triton, soft_argmax_backward_triton
    return soft_argmax_reference, soft_argmax_backward_reference
