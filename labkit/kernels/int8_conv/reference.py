"""Types of the integer convolution, its int64 definition, and the body for a CPU."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int8, Int32
from torch import Tensor

from labkit.kernels.int8_matmul import int8_matmul

STRIP_BYTES = 1 << 20  # of unfolded pixels at a time on a CPU: what a core's second-level cache holds beside the sums


class Requantizer(NamedTuple):
    """Bound and scale of one bounded ReLU in integers: codes reach floor(u_max * mul / 2^shift + 1/2).

    u_min: what sums are clipped at from below; -u_max for values of both signs.
    """

    u_max: int
    mul: int
    shift: int
    u_min: int = 0


class Geometry(NamedTuple):
    """Stride, padding and dilation of a convolution, (down, across) each, and its groups."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class Conv(NamedTuple):
    """All that a body needs besides the tensors."""

    geometry: Geometry
    requantizer: Requantizer | None
    keep_sums: bool


class Output(NamedTuple):
    """codes: v, None without a requantiser. sums: u, clipped where there is a requantiser; None unless asked for."""

    codes: Tensor | None
    sums: Tensor | None


Body = Callable[[Tensor, Tensor, Tensor, Tensor | None, Conv], Output]


def int8_conv2d_reference(v: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, conv: Conv) -> Output:
    """In int64, one plain operation after another: what every other body must equal bit for bit."""
    u = F.conv2d(v.long(), weight.long(), bias.long(), *conv.geometry)
    if shortcut is not None:
        u = u + shortcut.long()
    if conv.requantizer is None:
        return Output(None, u.to(torch.int32))
    u_max, mul, shift, u_min = conv.requantizer
    u = u.clamp(u_min, u_max)
    codes = (u * mul + (1 << shift) // 2) >> shift
    return Output(codes.to(torch.int8), u.to(torch.int32) if conv.keep_sums else None)


def requantize(u: Int32[Tensor, "*shape"], requantizer: Requantizer) -> Int8[Tensor, "*shape"]:
    """v = (clip(u, u_min, u_max) * mul + floor(2^shift / 2)) >> shift, in int32 throughout."""
    u_max, mul, shift, u_min = requantizer
    return ((u.clamp(u_min, u_max) * mul + (1 << shift) // 2) >> shift).to(torch.int8)


def int8_conv2d_by_strips(v: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, conv: Conv) -> Output:
    """int8 matrix products on unfolded strips of rows, each strip finished while it is in cache. For one group."""
    n, c, h, w = v.shape
    o, _, kh, kw = weight.shape
    height, width = output_size(h, w, kh, kw, conv.geometry)
    pixels = _padded_channels_last(v, conv.geometry.padding)
    matrix = weight.permute(2, 3, 1, 0).reshape(kh * kw * c, o).contiguous()
    codes = torch.empty(n, height, width, o, dtype=torch.int8) if conv.requantizer else None
    sums = torch.empty(n, height, width, o, dtype=torch.int32) if conv.keep_sums else None
    added = None if shortcut is None else shortcut.permute(0, 2, 3, 1)
    rows = max(1, STRIP_BYTES // (width * kh * kw * c))
    for image in range(n):
        for top in range(0, height, rows):
            part = slice(top, min(top + rows, height))
            u = int8_matmul(_unfolded(pixels[image], part, width, kh, kw, conv.geometry), matrix)
            u = u.view(part.stop - top, width, o).add_(bias)
            if added is not None:
                u.add_(added[image, part])
            if conv.requantizer is not None:
                u.clamp_(conv.requantizer.u_min, conv.requantizer.u_max)
            if sums is not None:
                sums[image, part] = u
            if codes is not None and conv.requantizer is not None:
                _, mul, shift, _ = conv.requantizer
                codes[image, part] = u.mul_(mul).add_((1 << shift) // 2).bitwise_right_shift_(shift)
    return Output(*(None if out is None else out.permute(0, 3, 1, 2) for out in (codes, sums)))


def int8_conv2d_by_taps(v: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, conv: Conv) -> Output:
    """One tap of the kernel after another in int32, on every device: for groups of few channels (depthwise)."""
    (sy, sx), (py, px), (dy, dx), groups = conv.geometry
    n, _, h, w = v.shape
    o, channels, kh, kw = weight.shape
    height, width = output_size(h, w, kh, kw, conv.geometry)
    x = F.pad(v, (px, px, py, py)).to(torch.int32).unflatten(1, (groups, 1, channels))
    taps = weight.to(torch.int32).unflatten(0, (groups, o // groups))[..., None, None]
    u = bias.view(groups, -1, 1, 1).repeat(n, 1, 1, height, width)
    for i, y, z in itertools.product(range(channels), range(kh), range(kw)):
        part = x[:, :, :, i, y * dy :: sy, z * dx :: sx][..., :height, :width]
        u += part * taps[:, :, i, y, z]
    u = u.flatten(1, 2)
    if shortcut is not None:
        u += shortcut
    if conv.requantizer is None:
        return Output(None, u)
    u.clamp_(conv.requantizer.u_min, conv.requantizer.u_max)
    return Output(requantize(u, conv.requantizer), u if conv.keep_sums else None)


def output_size(h: int, w: int, kh: int, kw: int, geometry: Geometry) -> tuple[int, int]:
    (sy, sx), (py, px), (dy, dx), _ = geometry
    return (h + 2 * py - dy * (kh - 1) - 1) // sy + 1, (w + 2 * px - dx * (kw - 1) - 1) // sx + 1


def _padded_channels_last(v: Tensor, padding: tuple[int, int]) -> Tensor:
    n, c, h, w = v.shape
    py, px = padding
    if not (py or px):
        return v.permute(0, 2, 3, 1).contiguous()
    padded = torch.zeros(n, h + 2 * py, w + 2 * px, c, dtype=v.dtype)
    padded[:, py : py + h, px : px + w] = v.permute(0, 2, 3, 1)
    return padded


def _unfolded(pixels: Tensor, rows: slice, width: int, kh: int, kw: int, geometry: Geometry) -> Tensor:
    """(rows * width, kh * kw * c): for each output pixel the input of its window, channels side by side."""
    _, across, c = pixels.shape
    (sy, sx), _, (dy, dx), _ = geometry
    strides = (sy * across * c, sx * c, dy * across * c, dx * c, 1)
    view = pixels.as_strided(
        (rows.stop - rows.start, width, kh, kw, c), strides, pixels.storage_offset() + rows.start * sy * across * c
    )
    return view.reshape((rows.stop - rows.start) * width, kh * kw * c)
