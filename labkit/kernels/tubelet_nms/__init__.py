"""Non-maximum suppression: of tubelets that overlap much, the best-scored one stays.

In the order of their scores, a tubelet is kept unless a kept one overlaps it by more than the threshold, o_ij of
`labkit.kernels.tubelet_iou`. Boxes are tubelets of one frame. On a GPU a kernel writes who would suppress whom as bits,
1/32 of what the overlaps themselves take; the scan over the bits, in order, is the CPU's.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.tubelet_nms.reference import scan, tubelet_nms_reference

__all__ = ["tubelet_nms", "tubelet_nms_reference"]


def tubelet_nms(
    tubelets: Float[Tensor, "n frames 4"],
    scores: Float[Tensor, " n"],
    threshold: float,
    groups: Int[Tensor, " n"] | None = None,
) -> Int[Tensor, " kept"]:
    """Indices of what is kept, best score first; of equal scores the one that stands first in the input.

    Args:
        threshold: overlaps above it suppress, one equal to it does not.
        groups: tubelets of different groups (classes, clips) never suppress each other. None: all are one group.

    Raises:
        InputError: shapes that do not fit, a threshold outside of 0 to 1, or scores that are not numbers.
    """
    if tubelets.dim() != 3 or tubelets.shape[-1] != 4 or scores.shape != tubelets.shape[:1]:
        raise InputError(
            f"tubelets have shape (n, frames, 4) and one score each; got {tuple(tubelets.shape)} and "
            f"{tuple(scores.shape)}. Boxes are tubelets of one frame: boxes[:, None]"
        )
    if groups is not None and groups.shape != scores.shape:
        raise InputError(f"there is one group a tubelet, {len(scores)}; got shape {tuple(groups.shape)}.")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold must lie between 0 and 1; got {threshold}.")
    if scores.isnan().any():
        raise InputError("scores hold a value that is not a number (NaN).")
    order = scores.detach().argsort(descending=True, stable=True)
    wide = torch.promote_types(tubelets.dtype, torch.float32)
    ordered = tubelets.detach()[order].to(wide).contiguous()
    grouped = torch.zeros_like(order) if groups is None else groups[order].long().contiguous()
    if tubelets.is_cuda:
        from labkit.kernels.tubelet_nms.triton import suppression_bits

        keep = scan(suppression_bits(ordered, grouped, threshold), len(order)).to(order.device)
    else:
        keep = tubelet_nms_reference(ordered, grouped, threshold)
    return order[keep]
