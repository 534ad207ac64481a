"""Boxes x1, y1, x2, y2 and the numbers a network predicts for them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_GROWTH = math.log(1000 / 16)
"""Bound of log(w / w_a) [peer code: Detectron]: exp of an untrained output must not overflow."""


def encode(boxes: Float[Tensor, "*#n 4"], anchors: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*stretched 4"]:
    """Offsets of boxes from anchors: dx = (x - x_a) / w_a, dy likewise, dw = log(w / w_a), dh likewise.

    x, y: centers. Both need sides above 0.
    """
    (center, side), (center_a, side_a) = _centers(boxes), _centers(anchors)
    return torch.cat([(center - center_a) / side_a, (side / side_a).log()], -1)


def decode(offsets: Float[Tensor, "*#n 4"], anchors: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*stretched 4"]:
    """The inverse of `encode`; growth is bounded by a factor of 62.5."""
    center_a, side_a = _centers(anchors)
    center = center_a + offsets[..., :2] * side_a
    half = side_a * offsets[..., 2:].clamp(max=LARGEST_GROWTH).exp() / 2
    return torch.cat([center - half, center + half], -1)


def clip(boxes: Float[Tensor, "*n 4"], height: int | float, width: int | float) -> Float[Tensor, "*n 4"]:
    """Boxes cut to the frame."""
    most = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), most)


def _centers(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
