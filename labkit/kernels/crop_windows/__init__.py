"""Square windows cut out of feature maps at whole cells, several a frame; on a GPU without a loop over frames."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.crop_windows.reference import (
    Backward,
    Forward,
    crop_windows_backward_reference,
    crop_windows_reference,
)

__all__ = ["crop_windows", "crop_windows_reference"]


def crop_windows(
    maps: Float[Tensor, "frames channels height width"], corners: Int64[Tensor, "frames windows 2"], side: int
) -> Float[Tensor, "frames windows channels side side"]:
    """out[f, k, c, i, j] = maps[f, c, row + i, column + j] with (row, column) = corners[f, k].

    Gradients flow into the maps, none into the corners: they are whole numbers. Where windows overlap, a cell's
    gradient is the sum.

    Raises:
        InputError: a side that is not between 1 and the map's, or (on a CPU) a window that leaves its map.
    """
    height, width = maps.shape[-2:]
    if not 1 <= side <= min(height, width):
        raise InputError(f"side must be between 1 and the map's, {min(height, width)}; got {side}.")
    if corners.numel() and not corners.is_cuda:  # on a GPU looking would wait for it
        last = corners.new_tensor([height - side, width - side])
        if (corners < 0).any() or (corners > last).any():
            raise InputError(f"a window of side {side} leaves its map of {height} x {width}: clamp the corners first.")
    return _CropWindows.apply(maps, corners.contiguous(), side)


class _CropWindows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, corners: Tensor, side: int) -> Tensor:
        ctx.save_for_backward(corners)
        ctx.size = maps.shape[-2:]
        return _bodies(maps)[0](maps, corners, side)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (corners,) = ctx.saved_tensors
        return _bodies(gradient)[1](gradient, corners, *ctx.size), None, None


def _bodies(tensor: Tensor) -> tuple[Forward, Backward]:
    if tensor.is_cuda:
        from labkit.kernels.crop_windows.triton import crop_windows_backward_triton, crop_windows_triton

        return crop_windows_triton, crop_windows_backward_triton
    return crop_windows_reference, crop_windows_backward_reference
