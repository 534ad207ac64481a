"""`chained_warp` on a GPU: a program follows the chain for a row of pixels, then gathers a block of channels.

`no_type_check` keeps jaxtyping's import hook away from functions that Triton compiles from their source.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS, CHANNELS = 128, 16
"""Pixels and channels that a program handles: a gather of neighbours in x is nearly whole lines of memory."""


@triton.jit
@no_type_check
def _taps(x, y, height, width):
    """Clamped coordinates as four offsets into a plane and four weights."""
    x = tl.minimum(tl.maximum(x, 0.0), width - 1.0)
    y = tl.minimum(tl.maximum(y, 0.0), height - 1.0)
    left, top = tl.floor(x), tl.floor(y)
    wx, wy = x - left, y - top
    x0, y0 = left.to(tl.int32), top.to(tl.int32)
    x1, y1 = tl.minimum(x0 + 1, width - 1), tl.minimum(y0 + 1, height - 1)
    upper, lower = y0 * width, y1 * width
    return upper + x0, upper + x1, lower + x0, lower + x1, wx, wy


@triton.jit
@no_type_check
def _sample(pointer, mask, tap00, tap01, tap10, tap11, wx, wy):
    v00 = tl.load(pointer + tap00, mask=mask, other=0)
    v01 = tl.load(pointer + tap01, mask=mask, other=0)
    v10 = tl.load(pointer + tap10, mask=mask, other=0)
    v11 = tl.load(pointer + tap11, mask=mask, other=0)
    return (v00 * (1 - wx) + v01 * wx) * (1 - wy) + (v10 * (1 - wx) + v11 * wx) * wy


@triton.jit
@no_type_check
def _chained_warp_kernel(
    images_ptr, flows_ptr, out_ptr, chain_ptr, channels, height, width,
    REFS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    plane = height * width
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    first_channel = tl.program_id(1) * CHANNELS
    item = tl.program_id(2).to(tl.int64)
    here = pixel < plane
    px, py = pixel % width, pixel // width
    flow = flows_ptr + item * REFS * 2 * plane
    fx = tl.load(flow + pixel, mask=here, other=0)
    fy = tl.load(flow + plane + pixel, mask=here, other=0)
    for k in tl.static_range(REFS):
        if k > 0:
            t00, t01, t10, t11, wx, wy = _taps(px + fx, py + fy, height, width)
            flow += 2 * plane
            step_x = _sample(flow, here, t00, t01, t10, t11, wx, wy)
            step_y = _sample(flow + plane, here, t00, t01, t10, t11, wx, wy)
            fx += step_x
            fy += step_y
        if first_channel == 0:  # the chain is the same for all channels
            chain = chain_ptr + (item * REFS + k) * 2 * plane
            tl.store(chain + pixel, fx, mask=here)
            tl.store(chain + plane + pixel, fy, mask=here)
        t00, t01, t10, t11, wx, wy = _taps(px + fx, py + fy, height, width)
        for c in range(first_channel, tl.minimum(first_channel + CHANNELS, channels)):
            offset = ((item * REFS + k) * channels + c) * plane
            value = _sample(images_ptr + offset, here, t00, t01, t10, t11, wx, wy)
            tl.store(out_ptr + offset + pixel, value, mask=here)


def chained_warp_triton(images: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
    batch, refs, channels, height, width = images.shape
    images, flows = images.contiguous(), flows.contiguous()
    out, chain = torch.empty_like(images), torch.empty_like(flows)
    if out.numel():
        grid = (triton.cdiv(height * width, PIXELS), triton.cdiv(channels, CHANNELS), batch)
        _chained_warp_kernel[grid](
            images, flows, out, chain, channels, height, width, REFS=refs, PIXELS=PIXELS, CHANNELS=CHANNELS
        )
    return out, chain
