"""What a network is trained and tested on: batches of windows, a window being some clips of one video."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.kernels.tubelet_iou import tubelet_iou
from labkit.papers.lstr.experiment import actors
from labkit.papers.lstr.experiment.actors import STANDARD, Actors
from labkit.papers.lstr.method.backbone import SmallBackbone
from labkit.papers.lstr.method.heads import Labels


@dataclass(frozen=True, eq=False)
class Window:
    """Some clips of one video with its true tubelets.

    clips (n, 3, frames, h, w) in 0..1. truth (n, k, frames, 4) in pixels. valid (n, k): what is no padding.
    targets (n, k, classes): 0 or 1. given (n, k, frames, 4): the boxes that training is given, truth or near it.
    """

    clips: Float[Tensor, "n 3 frames h w"]
    truth: Float[Tensor, "n k frames 4"]
    valid: Bool[Tensor, "n k"]
    targets: Float[Tensor, "n k classes"]
    given: Float[Tensor, "n k frames 4"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows side by side, their tubelets padded to one number; fields as in `Window`, with a first axis more."""

    clips: Tensor
    truth: Tensor
    valid: Tensor
    targets: Tensor
    given: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


@runtime_checkable
class Source(Protocol):
    """Windows by number. fixed: window k is always the same, so what is derived from it may be kept."""

    classes: tuple[str, ...]
    labels: Labels
    frames: int
    fixed: bool

    def __len__(self) -> int: ...

    def window(self, index: int) -> Window: ...


def collate(windows: Sequence[Window]) -> Batch:
    """A batch of windows of one size."""
    most = max(window.truth.shape[1] for window in windows)

    def padded(name: str) -> Tensor:
        parts = [getattr(window, name) for window in windows]
        rows = [torch.cat([p, p.new_zeros(len(p), most - p.shape[1], *p.shape[2:])], 1) for p in parts]
        return torch.stack(rows)

    return Batch(
        torch.stack([window.clips for window in windows]), *map(padded, ("truth", "valid", "targets", "given"))
    )


def batch(source: Source, index: Int[Tensor, " batch"] | Sequence[int]) -> Batch:
    """The windows of these numbers."""
    return collate([source.window(int(k)) for k in index])


class Generated:
    """Generated actors: one window a video, all its clips; training is given shaken boxes.

    Raises InputError where the small backbones' features would see an actor's object without any context.
    """

    classes = actors.CLASSES
    labels: Labels = "single"
    fixed = True

    def __init__(self, count: int, seed: int, purpose: int, settings: Actors = STANDARD) -> None:
        actors.check_reach(settings, SmallBackbone.stride, SmallBackbone.receptive_field)
        self.videos = actors.videos(count, seed, purpose, settings)
        self.frames = settings.frames

    def __len__(self) -> int:
        return len(self.videos)

    def window(self, index: int) -> Window:
        v = self.videos
        valid = torch.ones(v.labels.shape[1:], dtype=torch.bool)
        targets = torch.nn.functional.one_hot(v.labels[index], len(self.classes)).float()
        return Window(v.clips[index], v.boxes[index], valid, targets, v.shaken[index])


# -- what training and testing compare with ---------------------------------------------------------------------------


def match(
    tubelets: Float[Tensor, "*n k frames 4"],
    valid: Bool[Tensor, "*n k"],
    truth: Float[Tensor, "*n m frames 4"],
    true_valid: Bool[Tensor, "*n m"],
    targets: Float[Tensor, "*n m classes"],
    threshold: float = 0.5,
) -> tuple[Float[Tensor, "*n k classes"], Float[Tensor, "*n k frames 4"], Bool[Tensor, "*n k"]]:
    """For each tubelet the classes and boxes of the truth that it overlaps most; no class below the threshold.

    Returns (targets, boxes, which are matched).
    """
    if truth.shape[-3] == 0:
        nothing = torch.zeros(tubelets.shape[:-2], dtype=torch.bool, device=tubelets.device)
        return nothing[..., None].float().expand(*nothing.shape, targets.shape[-1]), tubelets, nothing
    overlaps = tubelet_iou(tubelets, truth).masked_fill(~true_valid[..., None, :], 0.0)
    best, index = overlaps.max(-1)
    matched = (best >= threshold) & valid
    classes = targets.gather(-2, index[..., None].expand(*index.shape, targets.shape[-1]))
    boxes = truth.gather(-3, index[..., None, None].expand(*index.shape, *truth.shape[-2:]))
    return classes * matched[..., None], boxes, matched
