"""Overlap of every tubelet with every other: the mean over frames of the boxes' intersection over union.

    o_ij = 1/T sum_t |a_it n b_jt| / |a_it u b_jt|                                              [peer code: ACT]

A tubelet is one box a frame, x1, y1, x2, y2; boxes are tubelets of one frame. One pass computes what plain tensor
formulas would write out T times (m, n) and read again.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.tubelet_iou.reference import tubelet_iou_reference

__all__ = ["tubelet_iou", "tubelet_iou_reference"]


def tubelet_iou(
    first: Float[Tensor, "*#batch m frames 4"], second: Float[Tensor, "*#batch n frames 4"]
) -> Float[Tensor, "*stretched m n"]:
    """o_ij of the equation above, in [0, 1]; no gradient flows through it. Boxes without area overlap nothing.

    Half precision is computed in float32. Batch dimensions of size 1 stretch, as in tensor arithmetic.

    Raises:
        InputError: no box has four numbers, tubelets of different lengths, or batches that do not fit.
    """
    if first.dim() < 3 or second.dim() < 3 or first.shape[-1] != 4 or second.shape[-1] != 4:
        raise InputError(
            f"tubelets have shape (..., n, frames, 4) with x1, y1, x2, y2; got {tuple(first.shape)} and "
            f"{tuple(second.shape)}. Boxes are tubelets of one frame: boxes[:, None]"
        )
    if first.shape[-2] != second.shape[-2] or first.shape[-2] == 0:
        raise InputError(f"tubelets of equal length are compared; got {first.shape[-2]} and {second.shape[-2]} frames.")
    try:
        batch = torch.broadcast_shapes(first.shape[:-3], second.shape[:-3])
    except RuntimeError:
        raise InputError(f"batches {tuple(first.shape[:-3])} and {tuple(second.shape[:-3])} do not fit.") from None
    wide = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    a, b = (tubelets.detach().to(wide).expand(*batch, *tubelets.shape[-3:]) for tubelets in (first, second))
    if a.is_cuda:
        from labkit.kernels.tubelet_iou.triton import tubelet_iou_triton

        flat = [tubelets.reshape(-1, *tubelets.shape[-3:]).contiguous() for tubelets in (a, b)]
        return tubelet_iou_triton(*flat).view(*batch, a.shape[-3], b.shape[-3])
    return tubelet_iou_reference(a, b)
