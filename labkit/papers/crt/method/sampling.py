"""Discrete samples around a target: where stage 2 looks, what it is told about each place, which negatives it
remembers.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.errors import InputError

Label = Literal["gaussian", "binary", "iou"]

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


def grid_boxes(
    centre: Float[Tensor, "batch 2"], target: Float[Tensor, "batch 2"], reach: float = 2.0, steps: int = 31
) -> Float[Tensor, "batch n 4"]:
    """A uniform steps x steps grid of target-size boxes, up to `reach` targets away [peer code: DCFST, 31 x 31]."""
    at = torch.linspace(-reach, reach, steps, dtype=centre.dtype, device=centre.device)
    offsets = torch.cartesian_prod(at, at)
    return boxes_at(centre[:, None] + offsets * target[:, None], target)


class Drawn(NamedTuple):
    """Random boxes around one target."""

    boxes: Float[Tensor, "n 4"]
    positive: Bool[Tensor, " n"]


def draw_boxes(
    box: Float[Tensor, "4"], positives: int, negatives: int, generator: torch.Generator, above: float = 0.7,
    below: float = 0.3,
) -> Drawn:  # fmt: skip
    """MDNet's way [general]: positives of IoU > `above` (jitter 0.1 targets, scale 1.05^N(0,1)), negatives of IoU <
    `below`.

    Raises:
        InputError: the box is empty, or the limits leave nothing to draw.
    """
    if bool((box[2:] <= 0).any()):
        raise InputError(f"the target's width and height must be positive; got {box[2:].tolist()}")
    if not 0 <= below <= above < 1:
        raise InputError(f"need 0 <= below <= above < 1; got below={below}, above={above}")
    kinds = ((positives, 0.1, 1.0, lambda found: found > above), (negatives, 1.0, 2.0, lambda found: found < below))
    parts = []
    for count, spread, zoom, wanted in kinds:
        kept = box.new_zeros(0, 4)
        while len(kept) < count:
            noise = torch.randn(4 * count, 3, generator=generator, dtype=box.dtype).to(box.device)
            scale = 1.05 ** (zoom * noise[:, 2:])
            size = box[2:] * scale
            centre = box[:2] + box[2:] / 2 + spread * noise[:, :2] * box[2:]
            drawn = torch.cat([centre - size / 2, size], 1)
            kept = torch.cat([kept, drawn[wanted(iou(drawn, box.expand_as(drawn)))]])
        parts.append(kept[:count])
    positive = torch.arange(positives + negatives, device=box.device) < positives
    return Drawn(torch.cat(parts), positive)


def iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Intersection over union of boxes x, y, w, h, pair by pair; 0 where both are empty."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    both = (high - low).clamp_min(0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - both
    return both / union.clamp_min(1e-12)


def label(
    boxes: Float[Tensor, "batch n 4"], target: Float[Tensor, "batch 4"], kind: Label = "gaussian"
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """What stage 2 is told about each box, and the box's weight (weights of a target sum to 1).

    gaussian: exp(-8 |offset / target size|^2), sigma = a quarter of the target [peer code: DCFST];
    binary: 1 above IoU 0.7, 0 below 0.3, what lies between has weight 0 [general: MDNet]; iou: the overlap itself
        [ours].
    """
    overlap = iou(boxes, target[:, None].expand_as(boxes))
    weight = torch.ones_like(overlap)
    if kind == "gaussian":
        offset = boxes[..., :2] + boxes[..., 2:] / 2 - (target[:, :2] + target[:, 2:] / 2)[:, None]
        y = torch.exp(-8 * (offset / target[:, None, 2:]).square().sum(-1))
    elif kind == "binary":
        y = (overlap > 0.7).to(overlap.dtype)
        weight = ((overlap > 0.7) | (overlap < 0.3)).to(overlap.dtype)
    elif kind == "iou":
        y = overlap
    else:
        raise InputError(f"kind of label must be gaussian, binary or iou; got {kind!r}")
    return y, weight / weight.sum(-1, keepdim=True).clamp_min(1e-12)


class HardNegatives:
    """The hardest negatives met so far: those to which the present solution gives the highest scores. [ours]

    Each keeps the frame and the box it came from, so that one can look at what the tracker is afraid of.
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
