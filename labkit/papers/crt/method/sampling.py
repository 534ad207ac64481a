"""Discrete samples around a target: stage 2's boxes, their labels and weights, and the hard negatives that it keeps."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.errors import InputError

_NEAR = [(0.0, 0.0), *((a, b) for a in (-0.12, 0.12) for b in (-0.12, 0.12))]
_RINGS = [(r * math.cos(k * math.pi / 4), r * math.sin(k * math.pi / 4)) for r in (0.5, 0.9, 1.4) for k in range(8)]
RINGS = torch.tensor(_NEAR + _RINGS)
"""29 offsets in target sizes: the target, four near it, eight on each of three rings. [ours]"""


def ring_boxes(centre: Float[Tensor, "batch 2"], target: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 29 4"]:
    """Boxes of the target's size at the offsets `RINGS` from `centre`."""
    at = centre[:, None] + RINGS.to(centre) * target[:, None]
    return boxes_at(at, target)


def boxes_at(centres: Float[Tensor, "batch n 2"], target: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch n 4"]:
    """x, y, width, height of target-size boxes around `centres`."""
    extent = target[:, None].expand_as(centres)
    return torch.cat([centres - extent / 2, extent], -1)


def iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Intersection over union of boxes x, y, w, h, pair by pair; 0 where both are empty."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    both = (high - low).clamp_min(0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - both
    return both / union.clamp_min(1e-12)


def labels(
    boxes: Float[Tensor, "batch n 4"], target: Float[Tensor, "batch 4"]
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """Stage 2's label of each box, exp(-8 |offset / target size|^2), and its weight (a target's weights sum to 1).

    A Gaussian of the centre's offset with sigma = a quarter of the target [peer code: DCFST].
    """
    offset = boxes[..., :2] + boxes[..., 2:] / 2 - (target[:, :2] + target[:, 2:] / 2)[:, None]
    y = torch.exp(-8 * (offset / target[:, None, 2:]).square().sum(-1))
    return y, torch.full_like(y, 1 / y.shape[1])


# -- hard negatives ---------------------------------------------------------------------------------------------------


def away(
    at: Float[Tensor, "batch *n 2"], position: Float[Tensor, "batch 2"], target: Float[Tensor, "batch 2"]
) -> Bool[Tensor, "batch *n"]:
    """Farther than 0.6 targets from `position`: a negative. [ours]"""
    one = (len(position), *[1] * (at.dim() - 2), 2)
    return ((at - position.view(one)) / target.view(one)).norm(dim=-1) > 0.6


def admitted(
    others: Bool[Tensor, "batch n"],
    fused: Float[Tensor, "batch n"],
    confidence: Float[Tensor, " batch"],
    gate: tuple[float, float, float],
) -> Bool[Tensor, "batch n"]:
    """Candidates that may be mined: only where the winner is beyond doubt. [ours]

    Args:
        others: candidates away from the winner; fused: their scores.
        confidence: the winner's fused score; 0 where nothing is to be learned.
        gate: least confidence; least lead over the best of the others and least score to be mined, both as shares of
            the confidence.
    """
    least, margin, hardness = gate
    second = fused.masked_fill(~others, 0.0).amax(1)
    clear = (confidence > least) & (confidence - second > margin * confidence)
    return others & clear[:, None] & (fused > hardness * confidence[:, None])


class HardNegatives:
    """The hardest negatives so far: those to which the present solution gives the highest scores. [ours]

    Each keeps the frame and the box that it came from, for pictures of them.
    """

    def __init__(self, batch: int, capacity: int, like: Tensor) -> None:
        if capacity < 1:
            raise InputError(f"capacity must be at least 1; got {capacity}")
        self.capacity = capacity
        self.x = like.new_zeros(batch, 0, like.shape[-1])
        self.valid = torch.zeros(batch, 0, dtype=torch.bool, device=like.device)
        self.frame = torch.zeros(batch, 0, dtype=torch.int64, device=like.device)
        self.box = like.new_zeros(batch, 0, 4)

    def push(
        self, x: Float[Tensor, "batch n d"], valid: Bool[Tensor, "batch n"], box: Float[Tensor, "batch n 4"],
        frame: int, w: Float[Tensor, "batch d"],
    ) -> None:  # fmt: skip
        """Add the valid rows, then keep the `capacity` rows with the largest x^T w of each target."""
        frames = torch.full_like(valid, frame, dtype=torch.int64)
        x, valid = torch.cat([self.x, x], 1), torch.cat([self.valid, valid], 1)
        frames, box = torch.cat([self.frame, frames], 1), torch.cat([self.box, box], 1)
        hardness = (x @ w[..., None])[..., 0].masked_fill(~valid, -torch.inf)
        best: Int[Tensor, "batch k"] = hardness.topk(min(self.capacity, x.shape[1]), dim=1).indices
        self.x = x.gather(1, best[..., None].expand(-1, -1, x.shape[2]))
        self.valid, self.frame = valid.gather(1, best), frames.gather(1, best)
        self.box = box.gather(1, best[..., None].expand(-1, -1, 4))
