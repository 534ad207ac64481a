"""Box refinement: a network that predicts the overlap of a box with the target, climbed by gradient [peer code:
ATOM's IoU-Net].

    modulation (first frame):  maps -> conv -> PrRoI of the target -> one vector per level
    test (every frame):        maps -> conv -> PrRoI of a box, times the vector -> FC -> predicted IoU

The climb needs the derivative of the pooled features with respect to the box: PrRoI pooling has it exactly.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.crt.method.prroi import pool
from labkit.papers.crt.method.sampling import iou


class IoUNet(nn.Module):
    """Predicted IoU of boxes.  channels, strides: of the maps of stage 2; width, hidden: 256 each in ATOM."""

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], width: int = 32, hidden: int = 64, bins: int = 5
    ) -> None:
        super().__init__()
        if len(channels) != len(strides):
            raise InputError(f"one stride per map; got {len(channels)} maps and {len(strides)} strides")
        self.strides, self.bins = tuple(strides), bins
        self.reference = nn.ModuleList(_block(c, width) for c in channels)
        self.test = nn.ModuleList(nn.Sequential(_block(c, width), _block(width, width)) for c in channels)
        levels = len(strides)
        self.modulation = nn.ModuleList(nn.Linear(levels * width * 9, width) for _ in strides)
        self.fc = nn.ModuleList(nn.Linear(width * bins * bins, hidden) for _ in strides)
        self.answer = nn.Linear(levels * hidden, 1)

    def modulate(
        self, maps: Sequence[Float[Tensor, "batch _ _ _"]], box: Float[Tensor, "batch 4"]
    ) -> list[Float[Tensor, "batch width"]]:
        """What to look for, from the target in the first frame (box in crop pixels)."""
        pooled = [
            pool(block(feature), (box / stride)[:, None], 3)[:, 0].flatten(1)
            for block, feature, stride in zip(self.reference, maps, self.strides, strict=True)
        ]
        together = torch.cat(pooled, 1)
        return [layer(together) for layer in self.modulation]

    def test_maps(self, maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> list[Tensor]:
        """The test branch's maps: computed once per frame, whatever the number of boxes."""
        return [block(feature) for block, feature in zip(self.test, maps, strict=True)]

    def predict(
        self,
        tested: Sequence[Tensor],
        vectors: Sequence[Float[Tensor, "batch width"]],
        boxes: Float[Tensor, "batch n 4"],
    ) -> Float[Tensor, "batch n"]:
        parts = []
        for feature, vector, fc, stride in zip(tested, vectors, self.fc, self.strides, strict=True):
            pooled = pool(feature, boxes / stride, self.bins) * vector[:, None, :, None, None]
            parts.append(F.relu(fc(pooled.flatten(2))))
        return self.answer(torch.cat(parts, 2))[..., 0]


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.GroupNorm(4, channels_out), nn.ReLU())


def jittered(
    box: Float[Tensor, "batch 4"], noise: Float[Tensor, "batch n 4"], position: float, size: float
) -> Float[Tensor, "batch n 4"]:
    """Boxes around `box` from standard normal noise: centres off by `position` sizes, sides times exp(N(0, size))."""
    extent = box[:, None, 2:] * torch.exp(size * noise[..., 2:])
    centre = (box[:, :2] + box[:, 2:] / 2)[:, None] + position * noise[..., :2] * box[:, None, 2:]
    return torch.cat([centre - extent / 2, extent], -1)


def training_boxes(
    box: Float[Tensor, "batch 4"], noise: Float[Tensor, "batch draws 5"], n: int = 16, least: float = 0.1
) -> tuple[Float[Tensor, "batch n 4"], Float[Tensor, "batch n"]]:
    """n boxes per target of IoU >= `least` with it [peer code: ATOM], and their IoU; `noise` is standard normal.

    Of more draws than are needed a random choice is kept, not the best ones.
    """
    drawn = jittered(box, noise[..., :4], 0.25, 0.3)
    overlap = iou(drawn, box[:, None].expand_as(drawn))
    chosen = torch.where(overlap >= least, noise[..., 4], overlap - 100).topk(n, dim=1).indices
    return drawn.gather(1, chosen[..., None].expand(-1, -1, 4)), overlap.gather(1, chosen)


class Refiner:
    """A trained `IoUNet` at work in a tracker.

    Args:
        starts: boxes to climb from, the first unchanged. steps, rate: of the ascent, in target sizes.
    """

    def __init__(self, net: IoUNet, starts: int = 10, steps: int = 5, rate: float = 1.0, best: int = 3) -> None:
        if not 1 <= best <= starts:
            raise InputError(f"best must lie between 1 and starts={starts}; got {best}")
        self.net = net.eval().requires_grad_(False)
        self.starts, self.steps, self.rate, self.best = starts, steps, rate, best

    @torch.no_grad()
    def remember(self, maps: Sequence[Tensor], box: Float[Tensor, "batch 4"]) -> None:
        """The target, from its first frame."""
        self.vectors = self.net.modulate(maps, box)

    def refine(
        self, maps: Sequence[Tensor], box: Float[Tensor, "batch 4"], generator: torch.Generator
    ) -> Float[Tensor, "batch 4"]:
        """Climb the predicted IoU from `box` and boxes near it; the mean of the best few [peer code: ATOM]."""
        with torch.no_grad():
            tested = self.net.test_maps(maps)
        noise = torch.randn(len(box), self.starts - 1, 4, generator=generator).to(box)
        near = jittered(box, noise, 0.1, 0.25)
        return climb(
            lambda boxes: self.net.predict(tested, self.vectors, boxes), torch.cat([box[:, None], near], 1), self.steps,
            self.rate, self.best,
        )  # fmt: skip


def climb(
    predict: object,
    boxes: Float[Tensor, "batch n 4"],
    steps: int = 5,
    rate: float = 1.0,
    best: int = 3,
    aspect: float = 6.0,
) -> Float[Tensor, "batch 4"]:
    """Gradient ascent: box <- box + rate * gradient * (w, h, w, h); boxes of an aspect above `aspect` are dropped.

    Returns:
        the mean of the `best` boxes with the highest prediction.
    """
    assert callable(predict)
    for _ in range(steps):
        boxes = boxes.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(predict(boxes).sum(), boxes)
        size = boxes.detach()[..., 2:].repeat(1, 1, 2)
        moved = boxes.detach() + rate * gradient * size
        boxes = torch.cat([moved[..., :2], moved[..., 2:].maximum(0.2 * size[..., 2:])], -1)
    with torch.no_grad():
        value = predict(boxes)
        ratio = boxes[..., 2] / boxes[..., 3]
        value = value.masked_fill((ratio > aspect) | (ratio < 1 / aspect), -torch.inf)
        chosen = value.topk(best, dim=1)
        weight = (chosen.values > -torch.inf).to(boxes.dtype)
        picked = boxes.gather(1, chosen.indices[..., None].expand(-1, -1, 4))
        mean = (picked * weight[..., None]).sum(1) / weight.sum(1).clamp_min(1)[:, None]
        return torch.where(weight.sum(1, keepdim=True) > 0, mean, boxes[:, 0])
