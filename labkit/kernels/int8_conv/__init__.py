"""Convolution in integers with the bounded ReLU (2006.11735) fused behind it: int8 in, int8 out, int32 between.

    u = sum w v + b (+ shortcut)                                 int32, exact
    u = min(max(u, u_min), u_max)                                the bounded ReLU, in integers: u_min is 0
    v = (u * mul + floor(2^shift / 2)) >> shift                  the code of u, half rounds up   [official code]

All bodies give the same bits: an int64 reference, int8 matrix products on a CPU, Triton on a GPU. Tensors have the
logical shape (n, c, h, w); the fast bodies keep them channels-last in memory.
"""

import torch
from jaxtyping import Int8, Int32
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.int8_conv.reference import (
    Body,
    Conv,
    Geometry,
    Output,
    Requantizer,
    int8_conv2d_by_strips,
    int8_conv2d_by_taps,
    int8_conv2d_reference,
    output_size,
    requantize,
)

__all__ = [
    "Conv",
    "Geometry",
    "Output",
    "Requantizer",
    "check_requantizer",
    "int8_conv2d",
    "int8_conv2d_reference",
    "requantize",
]

FEW_CHANNELS = 8  # in a group: up to so many, taps in int32 are quicker than a matrix product per group


def int8_conv2d(
    v: Int8[Tensor, "n c h w"],
    weight: Int8[Tensor, "o c_group kh kw"],
    bias: Int32[Tensor, " o"],
    geometry: Geometry = Geometry(),  # noqa: B008 - immutable
    *,
    shortcut: Int32[Tensor, "n o h2 w2"] | None = None,
    requantizer: Requantizer | None = None,
    keep_sums: bool = False,
) -> Output:
    """u = sum w v + b + shortcut, then clip, multiply and shift. Without `requantizer` the int32 sums are the output.

    Args:
        geometry: stride, zero padding, dilation and groups.
        shortcut: added to the sums before clipping, in the same scale (residual blocks).
        keep_sums: also give back the clipped sums, for a later addition.

    Raises:
        InputError: types or shapes that do not fit, or a requantiser that could leave int32.
    """
    _check(v, weight, bias, geometry, shortcut, requantizer)
    conv = Conv(geometry, requantizer, keep_sums or requantizer is None)
    if geometry.groups == 1:
        return _body(v)(v, weight, bias, shortcut, conv)
    if weight.shape[1] <= FEW_CHANNELS:
        return int8_conv2d_by_taps(v, weight, bias, shortcut, conv)
    return _by_groups(v, weight, bias, shortcut, conv)


def _by_groups(v: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, conv: Conv) -> Output:
    """One convolution per group, side by side."""
    groups = conv.geometry.groups
    alone = conv._replace(geometry=conv.geometry._replace(groups=1))
    added = [None] * groups if shortcut is None else shortcut.chunk(groups, 1)
    parts = zip(v.chunk(groups, 1), weight.chunk(groups), bias.chunk(groups), added, strict=True)
    outputs = zip(*(_body(v)(*part, alone) for part in parts), strict=True)
    return Output(*(None if out[0] is None else torch.cat(out, 1) for out in outputs))


def _body(v: Tensor) -> Body:
    if not v.is_cuda:
        return int8_conv2d_by_strips
    try:
        from labkit.kernels.int8_conv.triton import int8_conv2d_triton
    except ImportError as error:
        raise InputError("integer convolution on a GPU needs Triton; move the network to the CPU.") from error
    return int8_conv2d_triton


def _check(
    v: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry,
    shortcut: Tensor | None, requantizer: Requantizer | None,
) -> None:  # fmt: skip
    (sy, sx), (py, px), (dy, dx), groups = geometry
    if min(sy, sx, dy, dx, groups) < 1 or min(py, px) < 0:
        raise InputError(f"strides, dilations and groups must be 1 or more, paddings 0 or more; got {geometry}.")
    if v.dim() != 4 or weight.dim() != 4 or v.shape[1] != groups * weight.shape[1] or weight.shape[0] % groups:
        raise InputError(
            f"v must be (n, c, h, w) and weight (o, c / groups, kh, kw), o a multiple of groups; "
            f"got {tuple(v.shape)}, {tuple(weight.shape)} and {groups} groups."
        )
    if v.dtype != torch.int8 or weight.dtype != torch.int8 or bias.dtype != torch.int32:
        raise InputError(f"v and weight must be int8 and bias int32; got {v.dtype}, {weight.dtype} and {bias.dtype}.")
    if bias.shape != weight.shape[:1]:
        raise InputError(f"bias must hold {weight.shape[0]} numbers, one per output channel; got {tuple(bias.shape)}.")
    height, width = output_size(v.shape[2], v.shape[3], weight.shape[2], weight.shape[3], geometry)
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
    """Raises InputError when u * mul + 2^(shift-1) can leave int32, or a code int8, for a u in u_min..u_max."""
    u_max, mul, shift, u_min = requantizer
    if u_min not in (0, -u_max):
        raise InputError(f"sums are clipped at 0 or at -u_max from below; got {u_min} with u_max {u_max}.")
    if u_max < 1 or mul < 1 or not 0 <= shift <= 30:
        raise InputError(f"u_max and mul must be positive and shift 0..30; got {u_max}, {mul} and {shift}.")
    largest = u_max * mul + (1 << shift) // 2
    if largest >= 1 << 31:
        raise InputError(f"u_max * mul + 2^(shift-1) = {largest} leaves int32. Take mul and shift from mul_shift.")
    if largest >> shift > 127:
        raise InputError(f"the largest code would be {largest >> shift}, int8 ends at 127. Take them from mul_shift.")
