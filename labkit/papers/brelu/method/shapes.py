"""Operations that pick, move or average values: the same function for real numbers, codes and sums.

`zero` is what stands for the number 0: padding is made of it. Integers are pooled window by window in plain slices,
because PyTorch's pooling takes floating point alone on some devices.
"""

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from labkit.papers.brelu.method.graph import PADDING_MODES, Node


def apply(node: Node, x: Tensor, zero: int = 0) -> Tensor:
    """The value of a node that keeps codes codes and sums sums. x: (n, c, h, w)."""
    match node.operation:
        case "max_pool":
            return max_pool(x, node.options)
        case "adaptive_max":
            return adaptive_max(x, node.options)
        case "upsample":
            return x.repeat_interleave(node.options[0], 2).repeat_interleave(node.options[1], 3)
        case "pixel_shuffle":
            return F.pixel_shuffle(x, node.options[0])
        case "pixel_unshuffle":
            return F.pixel_unshuffle(x, node.options[0])
        case "pad":
            return pad(x, node.options, zero)
        case "pad_channels":
            stride, before, after = node.options
            return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, after), value=zero)
        case "flatten":
            return x.flatten(1)[:, :, None, None]
    raise AssertionError(f"{node.operation} does more than to move values")


def average(node: Node, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Average pooling of real numbers."""
    if node.operation == "adaptive_average":
        height, width = node.options
        return F.adaptive_avg_pool2d(x, (height or None, width or None))
    kernel, stride, padding, (ceil, counted) = (node.options[i : i + 2] for i in (0, 2, 4, 6))
    return F.avg_pool2d(x, kernel, stride, padding, bool(ceil), bool(counted))


def integer_average(node: Node, u: Int[Tensor, "n c h w"]) -> Int[Tensor, "n c h2 w2"]:
    """The mean of each window rounded to the nearest, half up, as the [official code] takes it: the ratio stays."""
    if node.operation == "adaptive_average":
        rows = [
            torch.stack([_mean(u[:, :, top:bottom, left:right]) for left, right in spans(u.shape[3], node.options[1])])
            for top, bottom in spans(u.shape[2], node.options[0])
        ]
        return torch.stack(rows).permute(2, 3, 0, 1)
    kernel, stride, padding, (ceil, counted) = (node.options[i : i + 2] for i in (0, 2, 4, 6))
    ones = torch.ones_like(u[:1, :1], dtype=torch.int64)
    inside = F.pad(ones, (padding[1], padding[1], padding[0], padding[0]), value=counted)
    where = (kernel, stride, (1, 1), bool(ceil), (u.shape[2], u.shape[3]), padding)
    total = sum(_windows(F.pad(u.long(), (padding[1], padding[1], padding[0], padding[0])), 0, *where))
    count = sum(_windows(inside, 0, *where))
    return torch.div(total + count // 2, count, rounding_mode="floor").to(u.dtype)


def _mean(u: Tensor) -> Tensor:
    count = u.shape[2] * u.shape[3]
    return torch.div(u.sum((2, 3), dtype=torch.int64) + count // 2, count, rounding_mode="floor").to(u.dtype)


def max_pool(x: Tensor, options: tuple[int, ...]) -> Tensor:
    """The largest value in each window; the border counts as the smallest number."""
    kernel, stride, padding, dilation = (options[i : i + 2] for i in (0, 2, 4, 6))
    if x.is_floating_point():
        return F.max_pool2d(x, kernel, stride, padding, dilation, bool(options[8]))
    least = torch.iinfo(x.dtype).min
    framed = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=least)
    parts = _windows(framed, least, kernel, stride, dilation, bool(options[8]), (x.shape[2], x.shape[3]), padding)
    best = next(parts)
    for part in parts:
        best = torch.maximum(best, part)
    return best


def adaptive_max(x: Tensor, options: tuple[int, ...]) -> Tensor:
    rows = [
        torch.stack([x[:, :, top:bottom, left:right].amax((2, 3)) for left, right in spans(x.shape[3], options[1])])
        for top, bottom in spans(x.shape[2], options[0])
    ]
    return torch.stack(rows).permute(2, 3, 0, 1)


def spans(size: int, parts: int) -> list[tuple[int, int]]:
    """Where adaptive pooling's windows begin and end along one side; 0 parts: one window for each pixel."""
    parts = parts or size
    return [(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]


def pad(x: Tensor, options: tuple[int, ...], zero: int = 0) -> Tensor:
    left, right, top, bottom, mode = options
    if PADDING_MODES[mode] == "zeros":
        return F.pad(x, (left, right, top, bottom), value=zero)
    rows = _padded_indices(x.shape[2], top, bottom, PADDING_MODES[mode])
    columns = _padded_indices(x.shape[3], left, right, PADDING_MODES[mode])
    return x[:, :, rows.to(x.device)][:, :, :, columns.to(x.device)]


def _padded_indices(size: int, before: int, after: int, mode: str) -> Tensor:
    """Which row or column of the input each one of the output shows."""
    i = torch.arange(-before, size + after)
    if mode == "replicate":
        return i.clamp(0, size - 1)
    if mode == "circular":
        return i % size
    period = max(2 * (size - 1), 1)
    return (size - 1) - ((i % period) - (size - 1)).abs()


def _windows(
    framed: Tensor, fill: int, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], ceil: bool,
    size: tuple[int, int], padding: tuple[int, ...],
) -> Iterator[Tensor]:  # fmt: skip
    """For each tap of the kernel what it sees in every window; windows over the edge see `fill`."""
    spread = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    height, width = (_pooled_size(*axis, ceil) for axis in zip(size, spread, stride, padding, strict=True))
    below = max(0, (height - 1) * stride[0] + spread[0] - framed.shape[2])
    right = max(0, (width - 1) * stride[1] + spread[1] - framed.shape[3])
    framed = F.pad(framed, (0, right, 0, below), value=fill)
    for y, x in itertools.product(range(kernel[0]), range(kernel[1])):
        yield framed[:, :, y * dilation[0] :: stride[0], x * dilation[1] :: stride[1]][:, :, :height, :width]


def _pooled_size(size: int, spread: int, stride: int, padding: int, ceil: bool) -> int:
    """As PyTorch counts: with `ceil` a last window may hang over the edge, if it begins inside."""
    free = size + 2 * padding - spread
    count = -(-free // stride) + 1 if ceil else free // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count
