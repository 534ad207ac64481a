"""The integer convolution on a GPU: an implicit matrix product in channels-last int8, requantised before it is stored.

One program makes a block of output pixels times a block of output channels. It walks over the kernel's taps and the
input channels, int8 x int8 -> int32 on the tensor cores, then adds bias and shortcut, clips, multiplies, shifts, and
writes int8: a fifth of the traffic of writing the int32 sums and reading them again. `no_type_check` keeps jaxtyping's
import hook away from what Triton compiles from its source.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from labkit.kernels.int8_conv.reference import Conv, Output, output_size

BLOCK_PIXELS, BLOCK_OUT, BLOCK_IN = 128, 64, 64


@triton.jit
@no_type_check
def _conv_kernel(
    v_ptr, w_ptr, b_ptr, s_ptr, codes_ptr, sums_ptr,
    pixels, c, h, w, o, height, width,
    stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x, u_min, u_max, mul, half, shift,
    KH: tl.constexpr, KW: tl.constexpr,
    SHORTCUT: tl.constexpr, REQUANTIZE: tl.constexpr, KEEP: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    image = p // (height * width)
    top = (p % (height * width)) // width * stride_y - padding_y
    left = p % width * stride_x - padding_x
    u = tl.zeros((BLOCK_P, BLOCK_O), dtype=tl.int32)
    for tap in range(KH * KW):
        y = top + tap // KW * dilation_y
        x = left + tap % KW * dilation_x
        inside = (p < pixels) & (y >= 0) & (y < h) & (x >= 0) & (x < w)
        row = ((image.to(tl.int64) * h + y) * w + x) * c
        for first in range(0, c, BLOCK_C):
            k = first + tl.arange(0, BLOCK_C)
            v = tl.load(v_ptr + row[:, None] + k[None, :], mask=inside[:, None] & (k[None, :] < c), other=0)
            at = (tap * c + k[:, None]) * o + channel[None, :]
            weight = tl.load(w_ptr + at, mask=(k[:, None] < c) & (channel[None, :] < o), other=0)
            u = tl.dot(v, weight, acc=u, out_dtype=tl.int32)
    u += tl.load(b_ptr + channel, mask=channel < o, other=0)[None, :]
    out = p.to(tl.int64)[:, None] * o + channel[None, :]
    stored = (p < pixels)[:, None] & (channel < o)[None, :]
    if SHORTCUT:
        u += tl.load(s_ptr + out, mask=stored, other=0)
    if REQUANTIZE:
        u = tl.minimum(tl.maximum(u, u_min), u_max)
    if KEEP:
        tl.store(sums_ptr + out, u, mask=stored)
    if REQUANTIZE:
        tl.store(codes_ptr + out, ((u * mul + half) >> shift).to(tl.int8), mask=stored)


def int8_conv2d_triton(v: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, conv: Conv) -> Output:
    n, c, h, w = v.shape
    o, _, kh, kw = weight.shape
    stride, padding, dilation, _ = conv.geometry
    height, width = output_size(h, w, kh, kw, conv.geometry)
    pixels = v.permute(0, 2, 3, 1).contiguous()
    matrix = weight.permute(2, 3, 1, 0).contiguous()
    added = None if shortcut is None else shortcut.permute(0, 2, 3, 1).contiguous()
    codes = torch.empty(n, height, width, o, dtype=torch.int8, device=v.device) if conv.requantizer else None
    sums = torch.empty(n, height, width, o, dtype=torch.int32, device=v.device) if conv.keep_sums else None
    u_max, mul, shift, u_min = conv.requantizer or (0, 0, 0, 0)
    count = n * height * width
    if count:
        block_out = min(BLOCK_OUT, max(16, triton.next_power_of_2(o)))
        block_in = min(BLOCK_IN, max(32, triton.next_power_of_2(c)))  # int8 products on tensor cores take 32 at a time
        grid = (triton.cdiv(count, BLOCK_PIXELS), triton.cdiv(o, block_out))
        _conv_kernel[grid](
            pixels, matrix, bias, bias if added is None else added,
            bias if codes is None else codes, bias if sums is None else sums,
            count, c, h, w, o, height, width,
            *stride, *padding, *dilation, u_min, u_max, mul, (1 << shift) // 2, shift,
            KH=kh, KW=kw, SHORTCUT=added is not None, REQUANTIZE=codes is not None, KEEP=sums is not None,
            BLOCK_P=BLOCK_PIXELS, BLOCK_O=block_out, BLOCK_C=block_in,
        )  # fmt: skip
    return Output(*(None if out is None else out.permute(0, 3, 1, 2) for out in (codes, sums)))
