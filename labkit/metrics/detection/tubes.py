"""Video-mAP: every tube, a box in each frame of a span, is a detection."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from labkit.errors import InputError
from labkit.metrics.detection.average_precision import AveragePrecisions, match_best_free, ranks, summarize
from labkit.metrics.detection.overlap import tube_overlap

OVERLAPS = (0.2, 0.5, 0.75)
"""Thresholds of the tables in the literature, besides the mean over .5, .55, ..., .95."""


@dataclass(frozen=True, eq=False)
class Tube:
    """One action of one actor: a box x1, y1, x2, y2 in every frame from `start` on.

    Its last frame is start + len(boxes) - 1, inclusive. label: class, from 0. score: of a detection; of truth 1.

    Raises:
        InputError: no frames, boxes that are not (n, 4), numbers that are not finite, or a negative start.
    """

    video: str
    label: int
    start: int
    boxes: Float64[np.ndarray, "n 4"]
    score: float = 1.0

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4 or not len(self.boxes):
            raise InputError(f"a tube has boxes (n, 4), one a frame and at least one; got {self.boxes.shape}.")
        if not np.isfinite(self.boxes).all() or not np.isfinite(self.score):
            raise InputError(f"boxes and score of a tube in '{self.video}' must be finite numbers.")
        if self.start < 0 or self.label < 0:
            raise InputError(f"start and label count from 0; got {self.start} and {self.label}.")

    @property
    def end(self) -> int:
        """The frame after the last one."""
        return self.start + len(self.boxes)


def video_map(
    truth: Sequence[Tube], detected: Sequence[Tube], threshold: float = 0.5, classes: Sequence[int] | None = None
) -> AveragePrecisions:
    """AP of each class over tubes: true where `tube_overlap` with a tube of the video not yet found is large enough.

    Of those still free the one with the largest overlap is taken [peer code: ACT].

    Args:
        classes: those that count; None: those that the truth holds.

    Raises:
        InputError: a threshold outside of 0 to 1.
    """
    return _average_precisions(truth, detected, _pairs(truth, detected), threshold, classes)


def mean_video_map(truth: Sequence[Tube], detected: Sequence[Tube], classes: Sequence[int] | None = None) -> float:
    """Mean of video-mAP over the thresholds .5, .55, ..., .95."""
    pairs = _pairs(truth, detected)
    thresholds = [k / 100 for k in range(50, 100, 5)]
    return float(np.mean([_average_precisions(truth, detected, pairs, t, classes).mean for t in thresholds]))


def _pairs(truth: Sequence[Tube], detected: Sequence[Tube]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detection, truth and overlap of all pairs that share video, class and a frame."""
    by_key: dict[tuple[str, int], list[int]] = {}
    for t, tube in enumerate(truth):
        by_key.setdefault((tube.video, tube.label), []).append(t)
    rows = [
        (d, t, tube_overlap(tube.start, tube.boxes, truth[t].start, truth[t].boxes))
        for d, tube in enumerate(detected)
        for t in by_key.get((tube.video, tube.label), ())
    ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2]


def _average_precisions(
    truth: Sequence[Tube],
    detected: Sequence[Tube],
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    threshold: float,
    classes: Sequence[int] | None,
) -> AveragePrecisions:
    if not 0 < threshold <= 1:
        raise InputError(f"threshold must lie above 0, and be 1 at most; got {threshold}.")
    labels = np.array([tube.label for tube in detected], dtype=np.int64)
    scores = np.array([tube.score for tube in detected], dtype=np.float64)
    true_labels = np.array([tube.label for tube in truth], dtype=np.int64)
    numbers: dict[tuple[str, int], int] = {}
    keys = np.array([numbers.setdefault((t.video, t.label), len(numbers)) for t in detected], dtype=np.int64)
    hits = match_best_free(pairs, ranks(keys, scores), threshold)
    wanted = np.unique(true_labels) if classes is None else np.asarray(classes, dtype=np.int64)
    return summarize(wanted, labels, scores, hits, true_labels)
