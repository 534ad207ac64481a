"""Precise RoI pooling (Jiang et al., ECCV 2018) in closed form, without a compiled extension.

The bilinear interpolant of a map is separable, so its exact mean over a bin is  W_y F W_x^T  with

    W[b, g] = (Phi(e_{b+1} - g) - Phi(e_b - g)) / (e_{b+1} - e_b),     Phi(u) = integral of max(0, 1 - |t|) up to u.

It is differentiable in the box, which box refinement by gradient ascent needs; RoIAlign samples points instead.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError


def phi(u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Integral of the hat function max(0, 1 - |t|) from minus infinity to u: 0 up to -1, 1/2 at 0, 1 from 1 on."""
    u = u.clamp(-1, 1)
    return torch.where(u <= 0, 0.5 * (u + 1) ** 2, 1 - 0.5 * (1 - u) ** 2)


def bin_weights(
    low: Float[Tensor, "*n"], high: Float[Tensor, "*n"], bins: int, points: int
) -> Float[Tensor, "*n bins points"]:
    """W of the module's equation: what each of `points` grid values weighs in each bin of [low, high].

    Coordinates are such that grid value g covers [g, g + 1): it stands at g + 1/2.
    """
    steps = torch.arange(bins + 1, dtype=low.dtype, device=low.device) / bins
    edges = low[..., None] + (high - low)[..., None] * steps
    at = torch.arange(points, dtype=low.dtype, device=low.device) + 0.5
    integral = phi(edges[..., None] - at)
    return integral.diff(dim=-2) / ((high - low) / bins)[..., None, None]


def pool(
    maps: Float[Tensor, "batch channels height width"], boxes: Float[Tensor, "batch n 4"], bins: int
) -> Float[Tensor, "batch n channels bins bins"]:
    """Mean of each map over each bin of each box.

    Args:
        boxes: x, y, width, height in map cells; cell i covers [i, i + 1).  Outside of the map the interpolant is 0.
    """
    if bins < 1:
        raise InputError(f"bins must be at least 1; got {bins}")
    form = pool_windows if _windows_pay(maps, boxes, bins) else pool_whole
    return form(maps, boxes, bins)


def pool_whole(
    maps: Float[Tensor, "batch channels height width"], boxes: Float[Tensor, "batch n 4"], bins: int
) -> Float[Tensor, "batch n channels bins bins"]:
    """W_y F W_x^T over the whole map: two matrix products, most of whose weights are 0."""
    (batch, channels, height, width), n = maps.shape, boxes.shape[1]
    corner, extent = boxes[..., :2], boxes[..., 2:]
    across = bin_weights(corner[..., 0], corner[..., 0] + extent[..., 0], bins, width)
    down = bin_weights(corner[..., 1], corner[..., 1] + extent[..., 1], bins, height)
    rows = maps.reshape(batch, channels * height, width) @ across.reshape(batch, n * bins, width).transpose(1, 2)
    rows = rows.reshape(batch, channels, height, n, bins).permute(0, 3, 2, 1, 4)
    rows = rows.reshape(batch, n, height, channels * bins)
    pooled = (down @ rows).reshape(batch, n, bins, channels, bins)
    return pooled.transpose(2, 3)


def pool_windows(
    maps: Float[Tensor, "batch channels height width"], boxes: Float[Tensor, "batch n 4"], bins: int
) -> Float[Tensor, "batch n channels bins bins"]:
    """The same means from the cells that a bin touches: a weighted sum of few rows of a (cells, channels) table."""
    (batch, channels, height, width), n = maps.shape, boxes.shape[1]
    columns, across = _windows(boxes[..., 0], boxes[..., 2], bins, width)
    rows, down = _windows(boxes[..., 1], boxes[..., 3], bins, height)
    first = torch.arange(batch, device=maps.device)[:, None, None, None, None, None] * height * width
    cells = first + rows[..., :, None, :, None] * width + columns[..., None, :, None, :]
    weights = down[..., :, None, :, None] * across[..., None, :, None, :]  # (batch, n, bins, bins, rows, columns)
    table = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    sums = F.embedding_bag(cells.flatten(0, 3).flatten(1), table, mode="sum",
                           per_sample_weights=weights.flatten(0, 3).flatten(1))  # fmt: skip
    return sums.reshape(batch, n, bins, bins, channels).permute(0, 1, 4, 2, 3)


def _windows(
    low: Float[Tensor, "batch n"], size: Float[Tensor, "batch n"], bins: int, points: int
) -> tuple[Int[Tensor, "batch n bins k"], Float[Tensor, "batch n bins k"]]:
    """Per bin the grid values whose hats reach into it, and their weights: the entries of W that are not 0."""
    step = (size / bins)[..., None, None]
    begin = low[..., None, None] + step * torch.arange(bins, dtype=low.dtype, device=low.device)[:, None]
    k = _reach(size, bins)
    grid = (begin.detach() - 1.5).ceil().long() + torch.arange(k, device=low.device)
    at = grid.to(low.dtype) + 0.5
    weights = (phi(begin + step - at) - phi(begin - at)) / step
    return grid.clamp(0, points - 1), weights * ((grid >= 0) & (grid < points))


def _reach(size: Float[Tensor, "batch n"], bins: int) -> int:
    """Grid values that a bin of the largest box can touch: its own width and a hat's half at both ends."""
    return int(size.detach().amax() / bins) + 3


def _windows_pay(maps: Tensor, boxes: Tensor, bins: int) -> bool:
    """Measured on a CPU: with many channels, when the windows hold a small share of the map.  On a GPU never tried."""
    if maps.is_cuda or maps.shape[1] < 64 or not boxes.numel() or not bool(boxes.isfinite().all()):
        return False
    across, down = (_reach(boxes[..., k], bins) for k in (2, 3))
    return maps.shape[2] * maps.shape[3] >= 6 * bins * across * down


def descriptors(
    maps: tuple[Float[Tensor, "batch _ _ _"], ...],
    strides: tuple[int, ...],
    boxes: Float[Tensor, "batch n 4"],
    bins: int,
) -> Float[Tensor, "batch n d"]:
    """One vector of length 1 per box (x, y, w, h in crop pixels): pooled maps, each flattened and L2-normalized.

    Without a trained head this is what stage 2 sees [peer code: DCFST pools the same maps before its head].
    """
    parts = [
        F.normalize(pool(feature, boxes / stride, bins).flatten(2), dim=2)
        for feature, stride in zip(maps, strides, strict=True)
    ]
    return torch.cat(parts, 2) / len(parts) ** 0.5
