"""Frame-mAP: every frame is an image, every box a detection."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from labkit.errors import InputError
from labkit.metrics.detection.average_precision import (
    AveragePrecisions,
    join,
    match_best,
    match_best_free,
    ranks,
    summarize,
)
from labkit.metrics.detection.overlap import row_iou


@dataclass(frozen=True, eq=False)
class Boxes:
    """Labelled boxes x1, y1, x2, y2 of many frames, one a row; truth or detections.

    frames: which frame of which video, any whole number that is one for both tables. scores: of detections.
    difficult: truths that need not be found; detections of them count neither way [peer code: TensorFlow].

    Raises:
        InputError: columns of different lengths, or numbers that are not finite.
    """

    frames: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    boxes: Float64[np.ndarray, "n 4"]
    scores: Float64[np.ndarray, " n"] | None = None
    difficult: Bool[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        columns = (self.frames, self.labels, self.scores, self.difficult)
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or any(column is not None and column.shape != (n,) for column in columns):
            raise InputError("frames, labels, boxes (n, 4) and what else there is need one row a box each.")
        if not np.isfinite(self.boxes).all() or (self.scores is not None and not np.isfinite(self.scores).all()):
            raise InputError("boxes and scores must be finite numbers.")

    def __len__(self) -> int:
        return len(self.boxes)

    def pick(self, rows: np.ndarray) -> "Boxes":
        """Some of the rows: indices, or a mask."""
        return Boxes(
            self.frames[rows], self.labels[rows], self.boxes[rows],
            None if self.scores is None else self.scores[rows],
            None if self.difficult is None else self.difficult[rows],
        )  # fmt: skip


def frame_map(
    truth: Boxes,
    detections: Boxes,
    threshold: float = 0.5,
    classes: list[int] | None = None,
    once: bool = False,
) -> AveragePrecisions:
    """AP of each class and their mean: a detection is true where it overlaps a truth of its frame and class enough.

    Each truth is found once; of equal scores the detection that stands first in the table comes first.

    Args:
        threshold: least overlap of a true detection; equal is enough.
        classes: those that count; None: those that the truth holds.
        once: a detection is compared with the one truth that it overlaps most, as AVA's evaluation does it. False:
            with the best one that is still free, as VOC's, ACT's and COCO's do.

    Raises:
        InputError: detections without scores, a threshold outside of 0 to 1, or difficult truths without `once`.
    """
    if detections.scores is None:
        raise InputError("detections need scores.")
    if not 0 < threshold <= 1:
        raise InputError(f"threshold must lie above 0, and be 1 at most; got {threshold}.")
    if truth.difficult is not None and not once:
        raise InputError("difficult truths are for AVA's way of matching: once=True.")
    most = 1 + max((int(labels.max()) for labels in (truth.labels, detections.labels) if len(labels)), default=0)
    keys = [table.frames * most + table.labels for table in (detections, truth)]
    pairs = join(*keys)
    overlaps = row_iou(detections.boxes[pairs[0]], truth.boxes[pairs[1]])
    rank = ranks(keys[0], detections.scores)
    wanted = np.unique(truth.labels) if classes is None else np.asarray(classes, dtype=np.int64)
    if not once:
        hits = match_best_free((*pairs, overlaps), rank, threshold)
        return summarize(wanted, detections.labels, detections.scores, hits, truth.labels)
    hits, chosen = match_best((*pairs, overlaps), rank, threshold)
    if truth.difficult is None:
        return summarize(wanted, detections.labels, detections.scores, hits, truth.labels)
    aside = (chosen >= 0) & truth.difficult[chosen]
    kept, counted = detections.pick(~aside), truth.pick(~truth.difficult)
    assert kept.scores is not None
    return summarize(wanted, kept.labels, kept.scores, hits[~aside], counted.labels)
