"""Plain numbers of a tracked sequence, and their means with what lies behind them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from labkit.data import tracking
from labkit.metrics.intervals import bootstrap
from labkit.metrics.tracking import box_overlaps, one_pass, presence
from labkit.papers.crt.experiment.tracking import Track


def measures(track: Track, sequence: tracking.Sequence) -> dict[str, Any]:
    """One sequence.

    Returns:
        auc, success (the curve over 21 overlaps), precision (20 pixels), lost (share of visible frames without
        overlap), bad (1 when more than a tenth is lost); with rivals known: hit (nearer to a rival than to the
        target, and within half a target of it) and lost_to_rival, both as shares of all frames; with absent frames:
        tpr, tnr.
    """
    scores = one_pass(track.boxes, sequence.boxes, absent=sequence.absent)
    numbers: dict[str, Any] = {"auc": scores.auc, "precision": scores.precision_at_20, "lost": scores.lost}
    numbers |= {"bad": float(scores.lost > 0.1), "success": scores.success.tolist()}
    if "rivals" in sequence.meta and np.size(sequence.meta["rivals"]):
        hit = hits(track.boxes, sequence.boxes, np.asarray(sequence.meta["rivals"]))
        away = box_overlaps(track.boxes, sequence.boxes) <= 0
        numbers |= {"hit": float(hit.mean()), "lost_to_rival": float((hit & away).mean())}
    if sequence.absent.any():
        known = sequence.annotated | sequence.absent
        size = (float(sequence.frames[0].shape[1]), float(sequence.frames[0].shape[0]))
        counts = presence.count(
            ~sequence.absent[known], sequence.boxes[known], track.present[known], track.boxes[known], size=size
        )
        numbers |= {"tpr": counts.tpr, "tnr": counts.tnr, "max_gm": counts.max_gm}
    return numbers


def hits(
    boxes: Float64[np.ndarray, "t 4"], truth: Float64[np.ndarray, "t 4"], rivals: Float64[np.ndarray, "t r 2"]
) -> Bool[np.ndarray, " t"]:
    """Frames in which the tracker follows a rival.

    Nearer to it than to the target, and within half a target's width of it.
    """
    centre, wanted = boxes[:, :2] + boxes[:, 2:] / 2, truth[:, :2] + truth[:, 2:] / 2
    to_rival = np.linalg.norm(centre[:, None] - rivals, axis=2).min(1)
    return (to_rival < np.linalg.norm(centre - wanted, axis=1)) & (to_rival < 0.5 * truth[:, 2])


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over sequences, and each sequence's numbers under "each"."""
    keys = sorted(set().union(*rows))
    each = {key: [row[key] for row in rows if key in row] for key in keys}
    return {key: np.mean(values, axis=0).tolist() for key, values in each.items()} | {"each": each}


def difference(result: Mapping[str, Any], ours: str, theirs: str, value: str) -> tuple[float, float, float]:
    """Mean of ours minus theirs over the same sequences, with the 95 % interval of a paired bootstrap."""
    a, b = (np.asarray(result["arms"][arm]["each"][value]) for arm in (ours, theirs))
    interval = bootstrap([a - b])
    return interval.value, interval.low, interval.high
