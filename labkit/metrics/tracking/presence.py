"""OxUvA's long-term scores: is the target found where it is (TPR), and is it said to be gone when it is (TNR)?

TPR  share of present frames with a prediction "present" that overlaps by 1/2 or more
TNR  share of absent frames with a prediction "absent"
GM   sqrt(TPR TNR)
MaxGM = max_p sqrt((1 - p) TPR ((1 - p) TNR + p)): GM if a share p of the predictions were turned into "absent" at
random, so that a tracker that never says "absent" is not worth nothing
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from labkit.errors import InputError
from labkit.metrics.intervals import Interval, bootstrap_of
from labkit.metrics.tracking.overlap import Boxes, box_overlaps

OVERLAP = 0.5


@dataclass(frozen=True)
class Counts:
    """Annotated frames of one track by outcome. A present target with a wrong box is a miss, as if called absent."""

    hits: int = 0
    misses: int = 0
    true_absent: int = 0
    false_present: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        mine, theirs = ((each.hits, each.misses, each.true_absent, each.false_present) for each in (self, other))
        return Counts(*(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def tpr(self) -> float:
        """True positive rate; NaN when the target is never present."""
        return _share(self.hits, self.misses)

    @property
    def tnr(self) -> float:
        """True negative rate; NaN when the target is never absent."""
        return _share(self.true_absent, self.false_present)

    @property
    def gm(self) -> float:
        return math.sqrt(self.tpr * self.tnr)

    @property
    def max_gm(self) -> float:
        return max_gm(self.tpr, self.tnr)


def _share(yes: int, no: int) -> float:
    return yes / (yes + no) if yes + no else math.nan


def max_gm(tpr: float, tnr: float) -> float:
    """MaxGM in closed form: sqrt(TPR TNR) if TNR >= 1/2, else sqrt(TPR) / (2 sqrt(1 - TNR)), p = best_share(TNR).

    Raises InputError for rates outside 0..1.
    """
    if math.isnan(tpr) or math.isnan(tnr):
        return math.nan
    if not (0 <= tpr <= 1 and 0 <= tnr <= 1):
        raise InputError(f"rates lie between 0 and 1; got TPR {tpr} and TNR {tnr}.")
    p = best_share(tnr)
    return math.sqrt((1 - p) * tpr * ((1 - p) * tnr + p))


def best_share(tnr: float) -> float:
    """The share p of predictions to turn into "absent": 0 if TNR >= 1/2, else (1 - 2 TNR) / (2 (1 - TNR))."""
    return 0.0 if tnr >= 0.5 else (1 - 2 * tnr) / (2 * (1 - tnr))


def count(
    present: Bool[np.ndarray, "_"],
    truth: Boxes,
    says_present: Bool[np.ndarray, "_"],
    predicted: Boxes,
    *,
    size: tuple[float, float] = (1.0, 1.0),
    overlap: float = OVERLAP,
) -> Counts:
    """Outcomes on the annotated frames of one track.

    size: width and height of the image in the boxes' unit; boxes are cut to it before they are compared [peer code].

    Raises InputError when the counts differ, or a present frame has no box.
    """
    if len({len(present), len(truth), len(says_present), len(predicted)}) > 1:
        raise InputError(
            f"one prediction per annotated frame is needed; got {len(predicted):,} boxes, {len(says_present):,} "
            f"presences for {len(present):,} frames."
        )
    both = present & says_present
    if not (np.isfinite(truth[present]).all() and np.isfinite(predicted[both]).all()):
        raise InputError("a frame said to be present needs a box of finite numbers, annotated and predicted.")
    cut_truth, cut_predicted = (inside(boxes[both], size) for boxes in (truth, predicted))
    hits = int((box_overlaps(cut_truth, cut_predicted) >= overlap).sum())
    false_present = int((~present & says_present).sum())
    return Counts(hits, int(present.sum()) - hits, int((~present).sum()) - false_present, false_present)


def inside(boxes: Boxes, size: tuple[float, float]) -> Boxes:
    """The part of each box that lies in the image; without area where there is none."""
    limit = np.array(size)
    low = np.clip(boxes[:, :2], 0, limit)
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, limit)
    return np.concatenate([low, high - low], axis=1)


@dataclass(frozen=True)
class LongTerm:
    """Scores of a set of tracks, all frames together, each with its interval by resampling videos."""

    tpr: Interval
    tnr: Interval
    gm: Interval
    max_gm: Interval


def long_term(by_video: Sequence[Counts], *, draws: int = 500, seed: int = 0) -> LongTerm:
    """Counts of each video (the sum over its tracks) to scores [peer code: frames pooled, videos resampled].

    Raises InputError when there is none.
    """
    if not by_video:
        raise InputError("there is no track to score.")

    def interval(key: str) -> Interval:
        return bootstrap_of(lambda some: getattr(sum(some, Counts()), key), by_video, draws=draws, seed=seed)

    return LongTerm(interval("tpr"), interval("tnr"), interval("gm"), interval("max_gm"))
