"""Trackers over sequences: many targets side by side, and what stage 1 leaves to stage 2."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64

from labkit.data import tracking as data
from labkit.errors import InputError
from labkit.papers.crt.experiment.config import ARMS, UNTRAINED, Arm
from labkit.papers.crt.experiment.data import start_of
from labkit.papers.crt.method.cascade import Cascade, CascadeTracker, Diagnostics
from labkit.papers.crt.method.features import HandMade
from labkit.papers.crt.method.sampling import away
from labkit.tracking.tracker import check_box


@dataclass
class Track:
    """Boxes, scores and presence that a tracker reported for a sequence.  Row 0 is the given box."""

    boxes: Float64[np.ndarray, "frames 4"]
    scores: Float64[np.ndarray, " frames"]
    present: Bool[np.ndarray, " frames"]


Watch = Callable[[int, Cascade, Diagnostics], None]


def track_together(cascade: Cascade, sequences: Sequence[data.Sequence], watch: Watch | None = None) -> list[Track]:
    """Track the targets of several sequences in step; shorter ones rest on their last frame until the longest ends.

    Args:
        watch: called after each update with the frame's number, the cascade, and what it computed.
    """
    if not sequences:
        raise InputError("there is no sequence to track")
    starts = [start_of(sequence) for sequence in sequences]
    cascade.init(
        [sequence.frames[0] for sequence in sequences],
        [check_box(box, s.frames[0]) for box, s in zip(starts, sequences, strict=True)],
    )
    longest = max(len(sequence) for sequence in sequences)
    count = len(sequences)
    boxes, scores = np.zeros((count, longest, 4)), np.ones((count, longest))
    present = np.ones((count, longest), dtype=bool)
    boxes[:, 0] = starts
    for t in range(1, longest):
        step = cascade.update([s.frames[min(t, len(s) - 1)] for s in sequences])
        boxes[:, t], scores[:, t], present[:, t] = step.boxes, step.score, step.present
        if watch is not None and cascade.last is not None:
            watch(t, cascade, cascade.last)
    return [Track(boxes[k, : len(s)], scores[k, : len(s)], present[k, : len(s)]) for k, s in enumerate(sequences)]


# -- an arm for any video ---------------------------------------------------------------------------------------------


def hand_made_features(arm: Arm) -> HandMade:
    """Features of an arm that needs no network."""
    return HandMade(second=2 if arm.features == "fine" else 4)


def arm_tracker(name: str, device: str | torch.device = "cpu") -> CascadeTracker:
    """The arm of that name as a tracker for any video.

    Raises InputError for an arm that needs a network.
    """
    if (arm := ARMS[name]).trained:
        raise InputError(f"'{name}' needs a network that only a run trains or loads; without: {', '.join(UNTRAINED)}.")
    return CascadeTracker(arm.settings, hand_made_features(arm), device=device, head=arm.head(seed=0))


# -- counts -----------------------------------------------------------------------------------------------------------


class Census:
    """Counts what stage 1 leaves to stage 2: the shares behind the abstract's first statements.

    hard cells: above the candidate threshold and `away` from the target, in the tracker's own
    search image.
    """

    def __init__(self, sequences: Sequence[data.Sequence], kappa: float, floor: float) -> None:
        self.sequences, self.kappa, self.floor = sequences, kappa, floor
        count = len(sequences)
        self.share: list[list[float]] = [[] for _ in range(count)]
        self.response: list[list[float]] = [[] for _ in range(count)]
        self.candidates: list[list[int]] = [[] for _ in range(count)]
        self.skipped: list[list[bool]] = [[] for _ in range(count)]
        self.mined: list[list[int]] = [[] for _ in range(count)]

    def __call__(self, t: int, cascade: Cascade, last: Diagnostics) -> None:
        stride, shift = cascade.features.stride, cascade.regression.shift
        rows, columns = last.scores.shape[1:]
        y, x = torch.meshgrid(torch.arange(rows) + shift, torch.arange(columns) + shift, indexing="ij")
        cells = torch.stack([x, y], -1).to(last.scores.device) * stride
        for k, sequence in enumerate(self.sequences):
            if t >= len(sequence):
                continue
            self.candidates[k].append(int(last.decision.valid[k].sum()))
            self.skipped[k].append(bool(last.decision.single[k]))
            self.mined[k].append(int(last.mined[k].sum()))
            box = sequence.boxes[t]
            if np.isnan(box).any():
                continue
            truth = torch.tensor(box[:2] + box[2:] / 2, dtype=torch.float32, device=cells.device)
            at = (truth - last.view.centre[k]) * (last.view.size / last.view.side[k]) + last.view.size / 2
            least = max(self.kappa * float(last.scores[k].max()), self.floor)
            negatives = last.scores[k][away(cells[None], at[None], last.target[k : k + 1])[0]]
            hard = negatives > least
            energy = negatives.clamp_min(0).square()
            self.share[k].append(float(hard.float().mean()))
            self.response[k].append(float(energy[hard].sum() / energy.sum().clamp_min(1e-9)))

    def summary(self, k: int) -> dict[str, float]:
        """Means over the frames of sequence k."""
        return {
            "hard_share": float(np.mean(self.share[k])) if self.share[k] else 0.0,
            "hard_response": float(np.mean(self.response[k])) if self.response[k] else 0.0,
            "candidates": float(np.mean(self.candidates[k])),
            "skip_rate": float(np.mean(self.skipped[k])),
            "mined": float(np.mean(self.mined[k])),
        }
