"""RoIAlign as two batched matrix products; its gradient is autograd's."""

import torch
from jaxtyping import Float
from torch import Tensor


def axis_weights(
    low: Float[Tensor, "*n"], high: Float[Tensor, "*n"], bins: int, points: int, sampling: int = 2
) -> Float[Tensor, "*n bins points"]:
    """W of the module's equation along one axis: what each of `points` cells weighs in each bin of [low, high]."""
    steps = (torch.arange(bins * sampling, dtype=low.dtype, device=low.device) + 0.5) / (bins * sampling)
    at = low[..., None] - 0.5 + (high - low)[..., None] * steps
    inside = (at >= -1) & (at <= points)
    cells = torch.arange(points, dtype=low.dtype, device=low.device)
    hats = (1 - (at.clamp(0, points - 1)[..., None] - cells).abs()).clamp(min=0) * inside[..., None]
    return hats.unflatten(-2, (bins, sampling)).mean(-2)


def roi_align_reference(maps: Tensor, boxes: Tensor, bins: int, scale: float, sampling: int) -> Tensor:
    """W_y F W_x^T for all boxes of a map at once: the products are large, and no sample is gathered one by one.

    Channels come last while it computes: both products then read and write whole rows; only the small map is copied.
    """
    (batch, channels, height, width), n = maps.shape, boxes.shape[1]
    x1, y1, x2, y2 = (boxes * scale).unbind(-1)
    across = axis_weights(x1, x2, bins, width, sampling).to(maps.dtype)
    down = axis_weights(y1, y2, bins, height, sampling).to(maps.dtype)
    rows = down.reshape(batch, n * bins, height) @ maps.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    pooled = across[:, :, None].to(rows.dtype) @ rows.reshape(batch, n, bins, width, channels)
    return pooled.permute(0, 1, 4, 2, 3)
