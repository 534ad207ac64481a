"""RoIAlign (He et al., ICCV 2017): a feature map under each box, resampled to k x k bins.

A bin is the mean of s x s bilinear samples. The interpolant is separable, so the result is two matrix products:

    out = W_y F W_x^T,     W[b, g] = 1/s sum_p max(0, 1 - |clip(u_bp, 0, L - 1) - g|)  where -1 <= u_bp <= L, else 0

with the sample points u_bp = (x1 - 1/2) + (b + (p + 1/2) / s) (x2 - x1) / k in cells of the map, cell g at g (the half
cell: "aligned" in torchvision, whose results these are). Most of W is 0; the GPU's body reads only what is not.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.roi_align.reference import axis_weights, roi_align_reference

__all__ = ["axis_weights", "roi_align", "roi_align_reference"]


def roi_align(
    maps: Float[Tensor, "batch channels height width"],
    boxes: Float[Tensor, "batch n 4"],
    bins: int,
    *,
    scale: float = 1.0,
    sampling: int = 2,
) -> Float[Tensor, "batch n channels bins bins"]:
    """Each map under each of its boxes. Gradients reach the maps, not the boxes, as in torchvision.

    Coordinates stay in float32 (float64 with float64 maps) also under autocast: in bfloat16 a cell beyond 256 has no
    half. No boxes, or no maps, give an empty result with a gradient.

    Args:
        boxes: x1, y1, x2, y2 in units of which one cell of the map has 1 / scale.
        sampling: s, samples a bin along each axis.

    Raises:
        InputError: shapes that do not fit, bins, sampling or scale below what makes sense.
    """
    if maps.dim() != 4 or boxes.dim() != 3 or boxes.shape[-1] != 4 or len(maps) != len(boxes):
        raise InputError(
            "maps have shape (batch, channels, height, width), boxes (batch, n, 4), with one row of boxes a map; got "
            f"{tuple(maps.shape)} and {tuple(boxes.shape)}."
        )
    if bins < 1 or sampling < 1 or not scale > 0:
        raise InputError(f"bins and sampling are at least 1, scale above 0; got {bins}, {sampling} and {scale}.")
    if 0 in maps.shape[2:]:
        raise InputError(f"a map without cells cannot be sampled; got {tuple(maps.shape)}.")
    exact = torch.float64 if maps.dtype == torch.float64 else torch.float32
    boxes = boxes.detach().to(exact)
    if maps.is_cuda:
        return _OnGpu.apply(maps, boxes, bins, scale, sampling)
    return roi_align_reference(maps, boxes, bins, scale, sampling)


class _OnGpu(torch.autograd.Function):
    """Forward gathers, backward scatters with atomic additions, so its last digits may differ from run to run."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, boxes: Tensor, bins: int, scale: float, sampling: int) -> Tensor:
        from labkit.kernels.roi_align.triton import roi_align_triton

        ctx.save_for_backward(boxes)
        ctx.about = maps.shape, maps.dtype, scale, sampling
        return roi_align_triton(maps.contiguous(), boxes.contiguous(), bins, scale, sampling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from labkit.kernels.roi_align.triton import roi_align_triton_backward

        shape, dtype, scale, sampling = ctx.about
        (boxes,) = ctx.saved_tensors
        gradient = roi_align_triton_backward(gradients[0].contiguous(), boxes.contiguous(), shape, scale, sampling)
        return gradient.to(dtype), None, None, None, None
