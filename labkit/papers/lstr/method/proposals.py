"""Tubelet proposals: a region proposal network whose boxes are cuboids, refined in every frame.

[paper]: an RPN remoulded to produce 3-D boxes, "tubelets", in each clip. [inferred]: everything below.

    anchors      at each cell of the map, A boxes that stand still for T frames
    objectness   p, one logit an anchor, from features averaged over time
    regression   4 T numbers an anchor: dx, dy, dw, dh of `labkit.vision.boxes` for each frame
    assignment   overlap is the mean over frames; positive from `positive` on, or the best of a truth; negative below
                 `negative`; between them neither
    loss         L_rpn = BCE(p) + 1/T sum_t smooth-L1(delta_t), positives and negatives with equal weight, regression on
                 positives alone
    proposals    the best-scored, thinned by non-maximum suppression of tubelets
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.kernels.tubelet_iou import tubelet_iou
from labkit.kernels.tubelet_nms import tubelet_nms
from labkit.vision import boxes

Tubelets = Float[Tensor, "clips k frames 4"]


@dataclass(frozen=True)
class ProposalSettings:
    """How tubelets are proposed, in pixels of the input.

    sizes, ratios: sides of the anchors (root of the area) and height over width. positive, negative: overlaps of the
    assignment. nms: overlap above which the weaker of two proposals goes. before: how many enter the suppression.
    smooth: where smooth-L1 turns from a parabola into a line. weight: lambda of the regression loss.
    """

    sizes: tuple[float, ...] = (10.0,)
    ratios: tuple[float, ...] = (1.0,)
    positive: float = 0.5
    negative: float = 0.3
    nms: float = 0.3
    before: int = 32
    smooth: float = 0.1
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) <= 0 or not self.ratios or min(self.ratios) <= 0:
            raise InputError(f"anchors need sizes and ratios above 0; got {self.sizes} and {self.ratios}.")
        if not 0 <= self.negative <= self.positive <= 1:
            raise InputError(f"0 <= negative <= positive <= 1 is needed; got {self.negative} and {self.positive}.")
        if not 0 <= self.nms <= 1 or self.before < 1:
            raise InputError(f"nms lies in 0 to 1, before is at least 1; got {self.nms} and {self.before}.")


def anchors(
    height: int, width: int, stride: int, sizes: tuple[float, ...], ratios: tuple[float, ...]
) -> Float[Tensor, "n 4"]:
    """A boxes a cell, row by row: cell (i, j) of the map stands at pixel (stride j, stride i).

    Convolutions with kernel 3, padding 1 keep cell 0 at pixel 0. A = len(sizes) * len(ratios); h = size sqrt(ratio).
    """
    half = torch.tensor([[s / r**0.5, s * r**0.5] for s in sizes for r in ratios]) / 2
    y, x = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing="ij")
    center = torch.stack([x, y], -1).float()[..., None, :]
    return torch.cat([center - half, center + half], -1).reshape(-1, 4)


def assign(
    overlaps: Float[Tensor, "clips n truths"],
    valid: Bool[Tensor, "clips truths"],
    positive: float,
    negative: float,
) -> tuple[Bool[Tensor, "clips n"], Bool[Tensor, "clips n"], Tensor]:
    """Which anchors are positive, which negative, and to which truth each belongs.

    The best anchor of a truth is positive however small its overlap, if it has any. A clip without truths has negatives
    alone.
    """
    overlaps = overlaps.masked_fill(~valid[:, None], 0.0)
    if overlaps.shape[2] == 0:
        nothing = torch.zeros(overlaps.shape[:2], dtype=torch.bool, device=overlaps.device)
        return nothing, ~nothing, nothing.long()
    best, match = overlaps.max(2)
    top = overlaps.amax(1, keepdim=True)
    is_best = (overlaps >= top - 1e-4) & (top > 0) & valid[:, None]
    match = torch.where(is_best.any(2), is_best.float().mul(overlaps + 1).argmax(2), match)
    chosen = (best >= positive) | is_best.any(2)
    return chosen, (best < negative) & ~chosen, match


class ProposalNetwork(nn.Module):
    """Objectness and 4 T offsets for every anchor, from a map (clips, channels, T', h, w)."""

    def __init__(self, channels: int, frames: int, stride: int, settings: ProposalSettings | None = None) -> None:
        super().__init__()
        self.settings, self.frames, self.stride = settings or ProposalSettings(), frames, stride
        count = len(self.settings.sizes) * len(self.settings.ratios)
        self.trunk = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.objectness = nn.Conv2d(channels, count, 1)
        self.offsets = nn.Conv2d(channels, count * frames * 4, 1)
        nn.init.normal_(self.offsets.weight, 0, 0.01)
        assert self.offsets.bias is not None
        assert self.objectness.bias is not None
        nn.init.zeros_(self.offsets.bias)
        nn.init.constant_(self.objectness.bias, -2.0)  # most anchors are background

    def forward(
        self, maps: Float[Tensor, "clips c t h w"]
    ) -> tuple[Float[Tensor, "clips n"], Float[Tensor, "clips n frames 4"]]:
        """Logits p and offsets delta of all n = h w A anchors."""
        hidden = self.trunk(maps.mean(2))
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
        return logits, self.offsets(hidden).permute(0, 2, 3, 1).reshape(*logits.shape, self.frames, 4)

    def anchors(self, maps: Tensor) -> Float[Tensor, "1 n frames 4"]:
        """The anchors of such a map, repeated over the frames."""
        flat = anchors(maps.shape[-2], maps.shape[-1], self.stride, self.settings.sizes, self.settings.ratios)
        return flat.to(maps.device)[None, :, None].expand(1, -1, self.frames, 4)

    def loss(
        self, maps: Float[Tensor, "clips c t h w"], truth: Tubelets, valid: Bool[Tensor, "clips k"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The two parts of L_rpn; the second is 0 where no clip has a truth."""
        logits, offsets = self(maps)
        still = self.anchors(maps)
        positive, negative, match = assign(
            tubelet_iou(still, truth), valid, self.settings.positive, self.settings.negative
        )
        each = F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
        objectness = sum((each[chosen].mean() for chosen in (positive, negative) if chosen.any()), logits.sum() * 0)
        if not positive.any():
            return objectness, offsets.sum() * 0
        matched = truth.gather(1, match[..., None, None].expand(-1, -1, *truth.shape[2:]))
        wanted = boxes.encode(matched[positive], still.expand_as(offsets)[positive])
        regression = F.smooth_l1_loss(offsets[positive], wanted, beta=self.settings.smooth, reduction="sum")
        return objectness, self.settings.weight * regression / (positive.sum() * self.frames)

    @torch.no_grad()
    def propose(
        self, maps: Float[Tensor, "clips c t h w"], most: int, size: tuple[int, int] | None = None
    ) -> "Proposals":
        """The `most` best tubelets of each clip, after suppression; clipped to frames of `size` (height, width)."""
        logits, offsets = self(maps)
        score, order = logits.topk(min(self.settings.before, logits.shape[1]), 1)
        rows = order[..., None, None].expand(-1, -1, self.frames, 4)
        still = self.anchors(maps).expand_as(offsets).gather(1, rows)
        tubelets = boxes.decode(offsets.gather(1, rows), still)
        if size is not None:
            tubelets = boxes.clip(tubelets, *size)
        return thin(tubelets, score, self.settings.nms, most)


@dataclass(frozen=True, eq=False)
class Proposals:
    """tubelets (clips, k, frames, 4), best first; scores: objectness in 0..1; valid: what is no padding."""

    tubelets: Tensor
    scores: Tensor
    valid: Tensor


def thin(tubelets: Tubelets, logits: Float[Tensor, "clips k"], threshold: float, most: int) -> Proposals:
    """Suppression inside of each clip; what is left, padded to `most` tubelets a clip."""
    clips, k = logits.shape
    groups = torch.arange(clips, device=logits.device).repeat_interleave(k)
    kept = tubelet_nms(tubelets.flatten(0, 1), logits.flatten(), threshold, groups)
    owner = groups[kept]
    by_clip = kept[owner.argsort(stable=True)]
    counts = torch.bincount(owner, minlength=clips)
    rank = torch.arange(len(kept), device=logits.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    owner, by_clip, rank = (values[rank < most] for values in (owner.sort(stable=True).values, by_clip, rank))
    proposals = Proposals(
        tubelets.new_zeros(clips, most, *tubelets.shape[2:]),
        logits.new_zeros(clips, most),
        torch.zeros(clips, most, dtype=torch.bool, device=logits.device),
    )
    proposals.tubelets[owner, rank] = tubelets.flatten(0, 1)[by_clip]
    proposals.scores[owner, rank] = logits.flatten()[by_clip].sigmoid()
    proposals.valid[owner, rank] = True
    return proposals


def recall(proposals: Proposals, truth: Tubelets, valid: Bool[Tensor, "clips truths"], threshold: float = 0.5) -> float:
    """Share of true tubelets that some proposal overlaps by `threshold` or more."""
    overlaps = tubelet_iou(proposals.tubelets, truth).masked_fill(~proposals.valid[..., None], 0.0)
    return float((overlaps.amax(1)[valid] >= threshold).float().mean())
