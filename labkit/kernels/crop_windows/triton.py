"""`crop_windows` on a GPU: copies, one program for a block of a window's cells.

Backwards each cell of a map looks which windows saw it and adds up their gradients: no two programs write to one cell.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
@no_type_check
def _forward_kernel(map_ptr, corner_ptr, out_ptr, windows, channels, height, width, side, BLOCK: tl.constexpr):
    window = tl.program_id(0).to(tl.int64)  # of all frames
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    cells = side * side
    here = i < channels * cells
    channel, cell = i // cells, i % cells
    row = tl.load(corner_ptr + 2 * window) + cell // side
    column = tl.load(corner_ptr + 2 * window + 1) + cell % side
    source = ((window // windows) * channels + channel) * height * width + row * width + column
    value = tl.load(map_ptr + source, mask=here, other=0.0)
    tl.store(out_ptr + window * channels * cells + i, value, mask=here)


@triton.jit
@no_type_check
def _backward_kernel(
    gradient_ptr, corner_ptr, out_ptr, windows, channels, height, width, side, BLOCK: tl.constexpr
):  # fmt: skip
    frame = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = i < channels * height * width
    channel, cell = i // (height * width), i % (height * width)
    row, column = cell // width, cell % width
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for k in range(windows):
        window = frame * windows + k
        down = row - tl.load(corner_ptr + 2 * window)
        right = column - tl.load(corner_ptr + 2 * window + 1)
        inside = here & (down >= 0) & (down < side) & (right >= 0) & (right < side)
        source = (window * channels + channel) * side * side + down * side + right
        total += tl.load(gradient_ptr + source, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + frame * channels * height * width + i, total, mask=here)


def crop_windows_triton(maps: Tensor, corners: Tensor, side: int) -> Tensor:
    frames, channels, height, width = maps.shape
    windows = corners.shape[1]
    out = torch.empty(frames, windows, channels, side, side, dtype=maps.dtype, device=maps.device)
    if out.numel():
        grid = (frames * windows, triton.cdiv(channels * side * side, BLOCK))
        _forward_kernel[grid](maps.contiguous(), corners, out, windows, channels, height, width, side, BLOCK=BLOCK)
    return out


def crop_windows_backward_triton(gradient: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    frames, windows, channels, side, _ = gradient.shape
    out = torch.empty(frames, channels, height, width, dtype=gradient.dtype, device=gradient.device)
    if out.numel():
        grid = (frames, triton.cdiv(channels * height * width, BLOCK))
        _backward_kernel[grid](gradient.contiguous(), corners, out, windows, channels, height, width, side, BLOCK=BLOCK)
    return out
