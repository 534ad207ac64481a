"""What is said of each tubelet: its class or classes, and where exactly it stands."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.vision import boxes

Labels = Literal["single", "multi"]


class Head(nn.Module):
    """Scores of K classes a tubelet, and 4 T offsets that refine its boxes.  [inferred]

    labels: "single", softmax over K classes and background (UCF, J-HMDB); "multi", K sigmoids (AVA), where a tubelet
    without any label is background.
    """

    def __init__(self, width: int, classes: int, frames: int, labels: Labels = "single") -> None:
        super().__init__()
        if classes < 1:
            raise InputError(f"a head needs at least 1 class; got {classes}.")
        self.classes, self.frames, self.labels = classes, frames, labels
        self.score = nn.Linear(width, classes + (labels == "single"))
        self.refine = nn.Linear(width, 4 * frames)
        nn.init.normal_(self.refine.weight, 0, 0.001)
        nn.init.zeros_(self.refine.bias)

    def forward(self, x: Float[Tensor, "*n width"]) -> tuple[Float[Tensor, "*n outputs"], Float[Tensor, "*n frames 4"]]:
        """Logits and offsets."""
        return self.score(x), self.refine(x).unflatten(-1, (self.frames, 4))

    def probabilities(self, logits: Float[Tensor, "*n outputs"]) -> Float[Tensor, "*n classes"]:
        """Of the classes, without background."""
        return logits.sigmoid() if self.labels == "multi" else logits.softmax(-1)[..., : self.classes]

    def loss(
        self,
        logits: Float[Tensor, "n outputs"],
        targets: Float[Tensor, "n classes"],
        counted: Bool[Tensor, " n"],
    ) -> Float[Tensor, ""]:
        """Cross-entropy, or the mean of K binary ones.

        Args:
            targets: 0 or 1 by class; a row of zeros is background.
            counted: rows that are no padding.
        """
        if not counted.any():
            return logits.sum() * 0
        logits, targets = logits[counted], targets[counted]
        if self.labels == "multi":
            return F.binary_cross_entropy_with_logits(logits, targets)
        background = 1 - targets.amax(-1, keepdim=True)
        wanted = torch.cat([targets, background], -1)
        return -(logits.log_softmax(-1) * wanted / wanted.sum(-1, keepdim=True)).sum(-1).mean()


def refinement_loss(
    offsets: Float[Tensor, "n frames 4"],
    tubelets: Float[Tensor, "n frames 4"],
    truth: Float[Tensor, "n frames 4"],
    smooth: float = 0.1,
) -> Float[Tensor, ""]:
    """Mean over frames of smooth-L1 between the offsets and those that would lead to the truth; 0 without rows."""
    if not len(offsets):
        return offsets.sum() * 0
    wanted = boxes.encode(truth, tubelets)
    return F.smooth_l1_loss(offsets, wanted, beta=smooth, reduction="sum") / (len(offsets) * offsets.shape[1])
