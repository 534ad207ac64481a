"""One-pass evaluation (OPE): start on the first box, follow to the end, compare frame by frame.

    success    S(t) = mean[overlap > t],        t = 0, .05, ..., 1;  its area (AUC) is the mean of the 21 values
    precision  P(t) = mean[centre error <= t],  t = 0, 1, ..., 50 pixels;  the customary figure is P(20)
    normalized precision: errors divided by the true width and height, t = 0, .01, ..., .5;  its area is the mean

"Greater than" is strict: a perfect tracker has S(1) = 0 and an AUC of 20/21 = .952 [peer code].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from labkit.errors import InputError
from labkit.metrics.intervals import Interval, bootstrap
from labkit.metrics.tracking.overlap import Boxes, box_overlaps, centre_errors

OVERLAPS = np.arange(21) / 20
PIXELS = np.arange(51.0)
SHARES = np.arange(51) / 100


@dataclass(frozen=True, eq=False)
class OnePass:
    """Scores of one sequence.

    success, precision, normalized: the curves over `OVERLAPS`, `PIXELS`, `SHARES`.
    mean_overlap: over the frames with a usable box. lost: share of those without any overlap.
    frames: how many frames the curves are means over.
    """

    success: Float64[np.ndarray, " s"]
    precision: Float64[np.ndarray, "51"]
    normalized: Float64[np.ndarray, "51"]
    mean_overlap: float
    lost: float
    frames: int

    @property
    def auc(self) -> float:
        """Area under the success curve."""
        return float(self.success.mean())

    @property
    def precision_at_20(self) -> float:
        return float(self.precision[20])

    @property
    def normalized_auc(self) -> float:
        """Area under the normalized precision curve over 0 to .5."""
        return float(self.normalized.mean())


def one_pass(
    predicted: Boxes,
    truth: Boxes,
    *,
    absent: Bool[np.ndarray, "_"] | None = None,
    invisible: Literal["excluded", "missed"] = "excluded",
) -> OnePass:
    """Scores of predicted boxes (x, y, w, h) against the annotation, one row a frame.

    The first prediction is overwritten by the truth [peer code].

    absent: frames in which the target cannot be seen; rows of NaN or without area count as unseen in any case.
    invisible: unseen frames are 'excluded' from the means (UAV), or 'missed': errors in every one of them (LaSOT).

    Raises InputError when the counts differ, a prediction holds NaN, or no frame can be scored.
    """
    _check(predicted, truth, absent)
    usable = np.isfinite(truth).all(1) & (np.nan_to_num(truth[:, 2:]) > 0).all(1)
    if absent is not None:
        usable &= ~absent
    if usable[0]:
        predicted = np.concatenate([truth[:1], predicted[1:]])
    if not usable.any():
        raise InputError("no frame has a usable box: there is nothing to score.")
    predicted, truth = predicted[usable], truth[usable]
    overlap = box_overlaps(predicted, truth)
    frames = len(usable) if invisible == "missed" else len(overlap)
    return OnePass(
        success=(overlap[:, None] > OVERLAPS).sum(0) / frames,
        precision=(centre_errors(predicted, truth)[:, None] <= PIXELS).sum(0) / frames,
        normalized=(centre_errors(predicted, truth, normalized=True)[:, None] <= SHARES).sum(0) / frames,
        mean_overlap=float(overlap.mean()),
        lost=float((overlap <= 0).mean()),
        frames=frames,
    )


def _check(predicted: Boxes, truth: Boxes, absent: np.ndarray | None) -> None:
    counts = {len(predicted), len(truth)} | ({len(absent)} if absent is not None else set())
    if len(counts) > 1:
        raise InputError(f"a prediction for each annotated frame is needed; got {len(predicted):,} for {len(truth):,}.")
    if not np.isfinite(predicted).all() or (predicted[:, 2:] < 0).any():
        row = int(np.flatnonzero(~np.isfinite(predicted).all(1) | (predicted[:, 2:] < 0).any(1))[0])
        raise InputError(f"prediction {row} is no box: {predicted[row].tolist()}. On a loss, keep the last box.")


@dataclass(frozen=True)
class Summary:
    """Means over sequences, each with its interval by resampling sequences."""

    auc: Interval
    precision_at_20: Interval
    normalized_auc: Interval
    lost: Interval
    sequences: int


def summary(results: Sequence[OnePass], *, draws: int = 2000, seed: int = 0) -> Summary:
    """Every sequence counts alike, however long it is.

    Raises InputError when there is none.
    """
    if not results:
        raise InputError("there is no result to average.")
    keys = ("auc", "precision_at_20", "normalized_auc", "lost")
    values = {key: np.array([getattr(result, key) for result in results]) for key in keys}
    means = {key: bootstrap([each], draws=draws, seed=seed) for key, each in values.items()}
    return Summary(**means, sequences=len(results))
