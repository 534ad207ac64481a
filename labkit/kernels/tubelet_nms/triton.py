"""Who would suppress whom, as bits, on a GPU: overlap, comparison and packing in one kernel.

`no_type_check` keeps jaxtyping's import hook away from functions that Triton compiles from their source.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from labkit.kernels.tubelet_iou.triton import mean_iou
from labkit.kernels.tubelet_nms.reference import WORD

TILE = 32


@triton.jit
@no_type_check
def _bits_kernel(tubelet_ptr, group_ptr, bits_ptr, n, words, frames, threshold, TILE: tl.constexpr, WORD: tl.constexpr):
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    lane = tl.arange(0, WORD)
    j = tl.program_id(1) * WORD + lane
    overlap = mean_iou(tubelet_ptr, tubelet_ptr, i, j, i < n, j < n, frames)
    group_i = tl.load(group_ptr + i, mask=i < n, other=-1)
    group_j = tl.load(group_ptr + j, mask=j < n, other=-2)
    hit = (overlap > threshold) & (i[:, None] < j[None, :]) & (group_i[:, None] == group_j[None, :])
    packed = tl.sum(hit.to(tl.int64) << lane[None, :].to(tl.int64), axis=1)
    tl.store(bits_ptr + i.to(tl.int64) * words + tl.program_id(1), packed, mask=i < n)


def suppression_bits(tubelets: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """(n, frames, 4) best first, and groups -> (n, ceil(n / 32)) int64, for `reference.scan`."""
    n, frames, _ = tubelets.shape
    words = triton.cdiv(n, WORD)
    bits = torch.empty(n, words, dtype=torch.int64, device=tubelets.device)
    if n:
        grid = (triton.cdiv(n, TILE), words)
        _bits_kernel[grid](tubelets, groups, bits, n, words, frames, threshold, TILE=TILE, WORD=WORD)
    return bits
