"""`roi_align` on a GPU: a program takes one bin and a block of channels; only cells under a sample are read.

`no_type_check` keeps jaxtyping's import hook away from functions that Triton compiles from their source.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64


@triton.jit
@no_type_check
def _sample(start, extent, index, scale, points, STEPS: tl.constexpr):
    """One sample point along an axis: the two cells it lies between, their weights, both 0 outside of the map."""
    at = start * scale - 0.5 + extent * scale * (index + 0.5) / STEPS
    inside = (at >= -1) & (at <= points)
    at = tl.minimum(tl.maximum(at, 0.0), (points - 1) * 1.0)
    low = tl.minimum(at.to(tl.int32), points - 1)
    high = tl.minimum(low + 1, points - 1)
    part = at - low
    return low, high, tl.where(inside, 1 - part, 0.0), tl.where(inside, part, 0.0)


@triton.jit
@no_type_check
def _forward_kernel(
    maps_ptr, boxes_ptr, out_ptr, n, channels, height, width, scale,
    BINS: tl.constexpr, SAMPLING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cell = tl.program_id(0).to(tl.int64)
    column, row, box = cell % BINS, cell // BINS % BINS, cell // (BINS * BINS)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = c < channels
    x1, y1 = tl.load(boxes_ptr + box * 4), tl.load(boxes_ptr + box * 4 + 1)
    wide, high = tl.load(boxes_ptr + box * 4 + 2) - x1, tl.load(boxes_ptr + box * 4 + 3) - y1
    base = maps_ptr + (box // n * channels + c) * height * width
    total = tl.zeros((BLOCK,), boxes_ptr.dtype.element_ty)
    for v in range(SAMPLING):
        up, down, w_up, w_down = _sample(y1, high, row * SAMPLING + v, scale, height, BINS * SAMPLING)
        for u in range(SAMPLING):
            left, right, w_left, w_right = _sample(x1, wide, column * SAMPLING + u, scale, width, BINS * SAMPLING)
            total += w_up * w_left * tl.load(base + up * width + left, mask=here, other=0)
            total += w_up * w_right * tl.load(base + up * width + right, mask=here, other=0)
            total += w_down * w_left * tl.load(base + down * width + left, mask=here, other=0)
            total += w_down * w_right * tl.load(base + down * width + right, mask=here, other=0)
    out = out_ptr + ((box * channels + c) * BINS + row) * BINS + column
    tl.store(out, total / (SAMPLING * SAMPLING), mask=here)


@triton.jit
@no_type_check
def _backward_kernel(
    gradient_ptr, boxes_ptr, out_ptr, n, channels, height, width, scale,
    BINS: tl.constexpr, SAMPLING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cell = tl.program_id(0).to(tl.int64)
    column, row, box = cell % BINS, cell // BINS % BINS, cell // (BINS * BINS)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = c < channels
    x1, y1 = tl.load(boxes_ptr + box * 4), tl.load(boxes_ptr + box * 4 + 1)
    wide, high = tl.load(boxes_ptr + box * 4 + 2) - x1, tl.load(boxes_ptr + box * 4 + 3) - y1
    base = out_ptr + (box // n * channels + c) * height * width
    gradient = tl.load(gradient_ptr + ((box * channels + c) * BINS + row) * BINS + column, mask=here, other=0)
    share = gradient.to(out_ptr.dtype.element_ty) / (SAMPLING * SAMPLING)
    for v in range(SAMPLING):
        up, down, w_up, w_down = _sample(y1, high, row * SAMPLING + v, scale, height, BINS * SAMPLING)
        for u in range(SAMPLING):
            left, right, w_left, w_right = _sample(x1, wide, column * SAMPLING + u, scale, width, BINS * SAMPLING)
            tl.atomic_add(base + up * width + left, w_up * w_left * share, mask=here)
            tl.atomic_add(base + up * width + right, w_up * w_right * share, mask=here)
            tl.atomic_add(base + down * width + left, w_down * w_left * share, mask=here)
            tl.atomic_add(base + down * width + right, w_down * w_right * share, mask=here)


def roi_align_triton(maps: Tensor, boxes: Tensor, bins: int, scale: float, sampling: int) -> Tensor:
    (batch, channels, height, width), n = maps.shape, boxes.shape[1]
    out = torch.empty(batch, n, channels, bins, bins, dtype=maps.dtype, device=maps.device)
    if out.numel():
        grid = (batch * n * bins * bins, triton.cdiv(channels, BLOCK))
        _forward_kernel[grid](maps, boxes, out, n, channels, height, width, scale, bins, sampling, BLOCK)
    return out


def roi_align_triton_backward(
    gradient: Tensor, boxes: Tensor, shape: torch.Size, scale: float, sampling: int
) -> Tensor:
    """The gradient of the maps, summed in the boxes' precision."""
    (_, channels, height, width), n, bins = shape, boxes.shape[1], gradient.shape[-1]
    out = torch.zeros(shape, dtype=boxes.dtype, device=gradient.device)
    if gradient.numel():
        grid = (len(boxes) * n * bins * bins, triton.cdiv(channels, BLOCK))
        _backward_kernel[grid](gradient, boxes, out, n, channels, height, width, scale, bins, sampling, BLOCK)
    return out
