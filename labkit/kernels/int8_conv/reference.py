"""Convolution in integers with the bounded ReLU (2006.11735) fused behind it: int8 in, int8 out, int32 between.

    u = sum w v + b (+ shortcut)                                 int32, exact
    u = min(max(u, 0), u_max)                                    the bounded ReLU, in integers
    v = (u * mul + floor(2^shift / 2)) >> shift                  the code of u, half rounds up   [official code]

All bodies give the same bits: an int64 reference, int8 matrix products on a CPU (VNNI where there is one), Triton on a
GPU. Tensors have the logical shape (n, c, h, w); the fast bodies keep them channels-last in memory.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int8, Int32
from torch import Tensor

from labkit.errors import InputError

STRIP_BYTES = 1 << 20  # of unfolded pixels at a time on a CPU: what a core's second-level cache holds beside the sums


class Requantizer(NamedTuple):
    """Bound and scale of one bounded ReLU in integers: codes reach floor(u_max * mul / 2^shift + 1/2)."""

    u_max: int
    mul: int
    shift: int


class Conv(NamedTuple):
    """All that a body needs besides the tensors."""

    stride: int
    padding: int
    requantizer: Requantizer | None
    keep_sums: bool


class Output(NamedTuple):
    """codes: v, None without a requantiser. sums: u, clipped where there is a requantiser; None unless asked for."""

    codes: Tensor | None
    sums: Tensor | None


def int8_conv2d(
    v: Int8[Tensor, "n c h w"],
    weight: Int8[Tensor, "o c kh kw"],
    bias: Int32[Tensor, " o"],
    *,
    stride: int = 1,
    padding: int = 0,
    shortcut: Int32[Tensor, "n o h2 w2"] | None = None,
    requantizer: Requantizer | None = None,
    keep_sums: bool = False,
) -> Output:
    """u = sum w v + b + shortcut, then clip, multiply and shift. Without `requantizer` the int32 sums are the output.

    Args:
        shortcut: added to the sums before clipping, in the same scale (residual blocks).
        keep_sums: also give back the clipped sums, for a later addition.

    Raises:
        InputError: types or shapes that do not fit, or a requantiser that could leave int32.
    """
    _check(v, weight, bias, stride, padding, shortcut, requantizer)
    conv = Conv(stride, padding, requantizer, keep_sums or requantizer is None)
    return _body(v)(v, weight, bias, shortcut, conv)


def int8_conv2d_reference(v: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, conv: Conv) -> Output:
    """In int64, one plain operation after another: what every other body must equal bit for bit."""
    u = F.conv2d(v.long(), weight.long(), bias.long(), conv.stride, conv.padding)
    if shortcut is not None:
        u = u + shortcut.long()
    if conv.requantizer is None:
        return Output(None, u.to(torch.int32))
    u_max, mul, shift = conv.requantizer
    u = u.clamp(0, u_max)
    codes = (u * mul + (1 << shift) // 2) >> shift
    return Output(codes.to(torch.int8), u.to(torch.int32) if conv.keep_sums else None)


def requantize(u: Int32[Tensor, "*shape"], requantizer: Requantizer) -> Int8[Tensor, "*shape"]:
    """v = (clip(u, 0, u_max) * mul + floor(2^shift / 2)) >> shift, in int32 throughout."""
    u_max, mul, shift = requantizer
    return ((u.clamp(0, u_max) * mul + (1 << shift) // 2) >> shift).to(torch.int8)


Body = Callable[[Tensor, Tensor, Tensor, Tensor | None, Conv], Output]


def _body(v: Tensor) -> Body:
    if not v.is_cuda:
        return int8_conv2d_by_strips
    try:
        from labkit.kernels.int8_conv_triton import int8_conv2d_triton
    except ImportError as error:
        raise InputError("integer convolution on a GPU needs Triton; move the network to the CPU.") from error
    return int8_conv2d_triton


def int8_conv2d_by_strips(v: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, conv: Conv) -> Output:
    """int8 matrix products on unfolded strips of rows, each strip finished while it is in cache."""
    n, c, h, w = v.shape
    o, _, kh, kw = weight.shape
    height, width = output_size(h, w, kh, kw, conv.stride, conv.padding)
    pixels = _padded_channels_last(v, conv.padding)
    matrix = weight.permute(2, 3, 1, 0).reshape(kh * kw * c, o).contiguous()
    codes = torch.empty(n, height, width, o, dtype=torch.int8) if conv.requantizer else None
    sums = torch.empty(n, height, width, o, dtype=torch.int32) if conv.keep_sums else None
    added = None if shortcut is None else shortcut.permute(0, 2, 3, 1)
    rows = max(1, STRIP_BYTES // (width * kh * kw * c))
    for image in range(n):
        for top in range(0, height, rows):
            part = slice(top, min(top + rows, height))
            u = torch._int_mm(_unfolded(pixels[image], part, width, kh, kw, conv.stride), matrix)
            u = u.view(part.stop - top, width, o).add_(bias)
            if added is not None:
                u.add_(added[image, part])
            if conv.requantizer is not None:
                u.clamp_(0, conv.requantizer.u_max)
            if sums is not None:
                sums[image, part] = u
            if codes is not None and conv.requantizer is not None:
                _, mul, shift = conv.requantizer
                codes[image, part] = u.mul_(mul).add_((1 << shift) // 2).bitwise_right_shift_(shift)
    return Output(*(None if out is None else out.permute(0, 3, 1, 2) for out in (codes, sums)))


def output_size(h: int, w: int, kh: int, kw: int, stride: int, padding: int) -> tuple[int, int]:
    return (h + 2 * padding - kh) // stride + 1, (w + 2 * padding - kw) // stride + 1


def _padded_channels_last(v: Tensor, padding: int) -> Tensor:
    n, c, h, w = v.shape
    if not padding:
        return v.permute(0, 2, 3, 1).contiguous()
    padded = torch.zeros(n, h + 2 * padding, w + 2 * padding, c, dtype=v.dtype)
    padded[:, padding : padding + h, padding : padding + w] = v.permute(0, 2, 3, 1)
    return padded


def _unfolded(pixels: Tensor, rows: slice, width: int, kh: int, kw: int, stride: int) -> Tensor:
    """(rows * width, kh * kw * c): for each output pixel the input it sees; kw * c neighbours lie side by side."""
    _, across, c = pixels.shape
    strides = (stride * across * c, stride * c, across * c, 1)
    view = pixels.as_strided(
        (rows.stop - rows.start, width, kh, kw * c), strides, pixels.storage_offset() + rows.start * stride * across * c
    )
    return view.reshape((rows.stop - rows.start) * width, kh * kw * c)


def _check(
    v: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int,
    shortcut: Tensor | None, requantizer: Requantizer | None,
) -> None:  # fmt: skip
    if v.dim() != 4 or weight.dim() != 4 or v.shape[1] != weight.shape[1]:
        raise InputError(
            f"v must be (n, c, h, w) and weight (o, c, kh, kw); got {tuple(v.shape)} and {tuple(weight.shape)}."
        )
    if v.dtype != torch.int8 or weight.dtype != torch.int8 or bias.dtype != torch.int32:
        raise InputError(f"v and weight must be int8 and bias int32; got {v.dtype}, {weight.dtype} and {bias.dtype}.")
    if bias.shape != weight.shape[:1]:
        raise InputError(f"bias must hold {weight.shape[0]} numbers, one per output channel; got {tuple(bias.shape)}.")
    if stride < 1 or padding < 0:
        raise InputError(f"stride must be 1 or more and padding 0 or more; got {stride} and {padding}.")
    height, width = output_size(v.shape[2], v.shape[3], weight.shape[2], weight.shape[3], stride, padding)
    if height < 1 or width < 1:
        raise InputError(
            f"an image of {tuple(v.shape[2:])} pixels is smaller than the kernel {tuple(weight.shape[2:])}."
        )
    wanted = (v.shape[0], weight.shape[0], height, width)
    if shortcut is not None and (shortcut.shape != wanted or shortcut.dtype != torch.int32):
        raise InputError(f"shortcut must be int32 of shape {wanted}; got {shortcut.dtype}, {tuple(shortcut.shape)}.")
    if requantizer is not None:
        check_requantizer(requantizer)


def check_requantizer(requantizer: Requantizer) -> None:
    """Raises InputError when u * mul + 2^(shift-1) can leave int32, or a code int8, for a u in 0..u_max."""
    u_max, mul, shift = requantizer
    if u_max < 1 or mul < 1 or not 0 <= shift <= 30:
        raise InputError(f"u_max and mul must be positive and shift 0..30; got {u_max}, {mul} and {shift}.")
    largest = u_max * mul + (1 << shift) // 2
    if largest >= 1 << 31:
        raise InputError(f"u_max * mul + 2^(shift-1) = {largest} leaves int32. Take mul and shift from mul_shift.")
    if largest >> shift > 127:
        raise InputError(f"the largest code would be {largest >> shift}, int8 ends at 127. Take them from mul_shift.")
