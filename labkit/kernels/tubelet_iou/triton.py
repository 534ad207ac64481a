"""`tubelet_iou` on a GPU: one tile of pairs a program, frames in a loop, sums in registers.

`no_type_check` keeps jaxtyping's import hook away from functions that Triton compiles from their source.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 32


@triton.jit
@no_type_check
def mean_iou(a_ptr, b_ptr, i, j, i_in, j_in, frames):
    """Mean overlap of the tubelets i of a and j of b: a tile (len(i), len(j)). Rows that are not there give 0."""
    total = tl.zeros((i.shape[0], j.shape[0]), a_ptr.dtype.element_ty)
    for t in range(frames):
        a = a_ptr + (i * frames + t) * 4
        b = b_ptr + (j * frames + t) * 4
        ax1, ay1 = tl.load(a, mask=i_in, other=0), tl.load(a + 1, mask=i_in, other=0)
        ax2, ay2 = tl.load(a + 2, mask=i_in, other=0), tl.load(a + 3, mask=i_in, other=0)
        bx1, by1 = tl.load(b, mask=j_in, other=0), tl.load(b + 1, mask=j_in, other=0)
        bx2, by2 = tl.load(b + 2, mask=j_in, other=0), tl.load(b + 3, mask=j_in, other=0)
        across = tl.minimum(ax2[:, None], bx2[None, :]) - tl.maximum(ax1[:, None], bx1[None, :])
        down = tl.minimum(ay2[:, None], by2[None, :]) - tl.maximum(ay1[:, None], by1[None, :])
        shared = tl.maximum(across, 0.0) * tl.maximum(down, 0.0)
        area_a = tl.maximum(ax2 - ax1, 0.0) * tl.maximum(ay2 - ay1, 0.0)
        area_b = tl.maximum(bx2 - bx1, 0.0) * tl.maximum(by2 - by1, 0.0)
        union = area_a[:, None] + area_b[None, :] - shared
        total += tl.where(union > 0, shared / tl.where(union > 0, union, 1.0), 0.0)
    return total / frames


@triton.jit
@no_type_check
def _iou_kernel(a_ptr, b_ptr, out_ptr, m, n, frames, TILE: tl.constexpr):
    clip = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    j = tl.program_id(1) * TILE + tl.arange(0, TILE)
    overlap = mean_iou(a_ptr + clip * m * frames * 4, b_ptr + clip * n * frames * 4, i, j, i < m, j < n, frames)
    here = (i[:, None] < m) & (j[None, :] < n)
    tl.store(out_ptr + (clip * m + i[:, None]) * n + j[None, :], overlap, mask=here)


def tubelet_iou_triton(first: Tensor, second: Tensor) -> Tensor:
    """(batch, m, frames, 4) and (batch, n, frames, 4), contiguous, one dtype -> (batch, m, n)."""
    (batch, m, frames, _), n = first.shape, second.shape[1]
    out = torch.empty(batch, m, n, dtype=first.dtype, device=first.device)
    if out.numel():
        grid = (triton.cdiv(m, TILE), triton.cdiv(n, TILE), batch)
        _iou_kernel[grid](first, second, out, m, n, frames, TILE=TILE)
    return out
