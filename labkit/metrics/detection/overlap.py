"""Overlap of boxes x1, y1, x2, y2 and of tubes, one box a frame. Coordinates are continuous: no pixel is added."""

import numpy as np
from jaxtyping import Float64

Rows = Float64[np.ndarray, "n 4"]


def row_iou(first: Rows, second: Rows) -> Float64[np.ndarray, " n"]:
    """Intersection over union, row by row; boxes without area overlap nothing."""
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    shared = np.clip(sides, 0, None).prod(1)
    union = area(first) + area(second) - shared
    return np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)


def pairwise_iou(first: Float64[np.ndarray, "m 4"], second: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "m n"]:
    """Intersection over union of every box with every other."""
    m, n = len(first), len(second)
    return row_iou(np.repeat(first, n, axis=0), np.tile(second, (m, 1))).reshape(m, n)


def area(boxes: Rows) -> Float64[np.ndarray, " n"]:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)


def tube_overlap(
    first_start: int, first: Float64[np.ndarray, "m 4"], second_start: int, second: Float64[np.ndarray, "n 4"]
) -> float:
    """Overlap of the frame spans times the mean overlap of the boxes in the frames both have [peer code: ACT].

    A tube begins with frame `start` and has one box a frame: its last frame is start + len - 1, which belongs to it.
    """
    begin = max(first_start, second_start)
    end = min(first_start + len(first), second_start + len(second))
    if end <= begin:
        return 0.0
    frames = max(first_start + len(first), second_start + len(second)) - min(first_start, second_start)
    boxes = row_iou(first[begin - first_start : end - first_start], second[begin - second_start : end - second_start])
    return float((end - begin) / frames * boxes.mean())
