"""From matched detections to average precision: the area under the monotone envelope, at all points."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

Pairs = tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"], Float64[np.ndarray, " p"]]
"""Detection, truth and overlap of every pair that may match."""


@dataclass(frozen=True)
class AveragePrecisions:
    """per_class: AP by class; NaN for a class without truth, which the mean leaves out. pooled: all classes as one."""

    per_class: dict[int, float]
    pooled: float

    @property
    def mean(self) -> float:
        """Mean over the classes that have truth; NaN where none has."""
        known = [value for value in self.per_class.values() if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")


def precision_recall(
    hits: Bool[np.ndarray, " n"], total: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Precision and recall after each detection, best score first; `total` true ones are to be found."""
    true = np.cumsum(hits)
    return true / np.arange(1, len(hits) + 1), true / max(total, 1)


def average_precision(hits: Bool[np.ndarray, " n"], total: int) -> float:
    """Area under the precision-recall curve, each precision raised to the best one at that recall or beyond.

    AP = sum over hits of (1 / total) max_{k' >= k} precision_k', all points and not eleven. NaN without truth.
    """
    if total == 0:
        return float("nan")
    if not hits.any():
        return 0.0
    precision, _ = precision_recall(hits, total)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / total)


def match_best_free(pairs: Pairs, rank: Int64[np.ndarray, " detections"], threshold: float) -> Bool[np.ndarray, " d"]:
    """Which detections are hits: in the order of `rank`, each takes the truth it overlaps most among those not taken.

    [peer code: ACT, COCO]. Many images at once: detections compete for a truth only inside of an image and class, so
    round r looks at the r-th best detection of every one of them together. Of equal overlaps the first truth is taken.
    """
    detection, truth, overlap = (values[pairs[2] >= threshold] for values in pairs)
    hits = np.zeros(len(rank), dtype=bool)
    taken = np.zeros(int(truth.max()) + 1 if len(truth) else 0, dtype=bool)
    order = np.lexsort((truth, -overlap, detection, rank[detection]))
    detection, truth, rounds = detection[order], truth[order], rank[detection[order]]
    edges = [*np.flatnonzero(np.diff(rounds, prepend=-1)), len(rounds)]
    for begin, end in itertools.pairwise(edges):
        free = ~taken[truth[begin:end]]
        best, first = np.unique(detection[begin:end][free], return_index=True)
        hits[best] = True
        taken[truth[begin:end][free][first]] = True
    return hits


def match_best(
    pairs: Pairs, rank: Int64[np.ndarray, " detections"], threshold: float
) -> tuple[Bool[np.ndarray, " d"], Int64[np.ndarray, " d"]]:
    """Which detections are hits, each compared with the one truth that it overlaps most [peer code: AVA, TensorFlow].

    A second detection of the same truth is false, even where it overlaps another one enough. Also returns that truth
    for each detection that reaches the threshold, -1 for the others.
    """
    detection, truth, overlap = pairs
    order = np.lexsort((truth, -overlap, detection))
    matched, first = np.unique(detection[order], return_index=True)
    pair = order[first]
    chosen = np.full(len(rank), -1, dtype=np.int64)
    enough = overlap[pair] >= threshold
    chosen[matched[enough]] = truth[pair][enough]
    candidates = np.flatnonzero(chosen >= 0)
    candidates = candidates[np.argsort(rank[candidates], kind="stable")]
    _, winners = np.unique(chosen[candidates], return_index=True)
    hits = np.zeros(len(rank), dtype=bool)
    hits[candidates[winners]] = True
    return hits, chosen


def ranks(keys: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Place of each detection among those of its key, by falling score; of equal scores the first one comes first."""
    order = np.lexsort((np.arange(len(keys)), -scores, keys))
    sorted_keys = keys[order]
    begins = np.flatnonzero(np.diff(sorted_keys, prepend=sorted_keys[0] - 1 if len(keys) else 0))
    within = np.arange(len(keys)) - np.repeat(begins, np.diff([*begins, len(keys)]))
    ranked = np.empty(len(keys), dtype=np.int64)
    ranked[order] = within
    return ranked


def join(
    detection_keys: Int64[np.ndarray, " d"], truth_keys: Int64[np.ndarray, " t"]
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Every pair (detection, truth) with the same key."""
    order = np.argsort(truth_keys, kind="stable")
    left = np.searchsorted(truth_keys[order], detection_keys, "left")
    counts = np.searchsorted(truth_keys[order], detection_keys, "right") - left
    detection = np.repeat(np.arange(len(detection_keys)), counts)
    offset = np.arange(len(detection)) - np.repeat(np.cumsum(counts) - counts, counts)
    return detection, order[np.repeat(left, counts) + offset]


def summarize(
    classes: Int64[np.ndarray, " c"],
    labels: Int64[np.ndarray, " d"],
    scores: Float64[np.ndarray, " d"],
    hits: Bool[np.ndarray, " d"],
    truth_labels: Int64[np.ndarray, " t"],
) -> AveragePrecisions:
    """AP of every class in `classes`, and of all of them pooled."""
    order = np.argsort(-scores, kind="stable")
    counted = order[np.isin(labels[order], classes)]
    per_class = {
        int(c): average_precision(hits[order][labels[order] == c], int((truth_labels == c).sum())) for c in classes
    }
    total = int(np.isin(truth_labels, classes).sum())
    return AveragePrecisions(per_class, average_precision(hits[counted], total))
