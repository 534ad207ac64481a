"""How well one region fits another: overlap of boxes and of rotated boxes, distance of centres."""

import numpy as np
from jaxtyping import Float64

from labkit.errors import InputError

Boxes = Float64[np.ndarray, "_ 4"]
Polygons = Float64[np.ndarray, "_ 8"]


def box_overlaps(first: Boxes, second: Boxes) -> Float64[np.ndarray, "_"]:
    """Intersection over union of boxes (x, y, w, h), row by row; NaN where a box is.

    Coordinates are continuous. Counting pixels instead, both corners inside, shifts both boxes alike: same result.
    """
    corner = np.maximum(first[:, :2], second[:, :2])
    opposite = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    shared = np.clip(opposite - corner, 0, None).prod(1)
    return _ratio(shared, first[:, 2:].prod(1) + second[:, 2:].prod(1) - shared)


def centre_errors(predicted: Boxes, truth: Boxes, *, normalized: bool = False) -> Float64[np.ndarray, "_"]:
    """Distance of the centres in pixels, or with each component divided by the true width or height."""
    difference = (predicted[:, :2] + predicted[:, 2:] / 2) - (truth[:, :2] + truth[:, 2:] / 2)
    if normalized:
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = difference / truth[:, 2:]
    return np.hypot(difference[:, 0], difference[:, 1])


def box_polygons(boxes: Boxes) -> Polygons:
    """Boxes as corners x1, y1, ..., x4, y4, clockwise on the screen from the top left."""
    x, y, w, h = boxes.T
    return np.stack([x, y, x + w, y, x + w, y + h, x, y + h], axis=1)


def polygon_overlaps(
    first: Polygons, second: Polygons, size: tuple[float, float] | None = None
) -> Float64[np.ndarray, "_"]:
    """Intersection over union of convex quadrilaterals, row by row, exactly (VOT's toolkit counts pixels).

    size: width and height of the image; what lies outside it counts for neither, as in VOT. NaN where a polygon is.

    Raises InputError when the counts differ.
    """
    if first.shape != second.shape:
        raise InputError(f"two sets of as many polygons are needed; got {len(first):,} and {len(second):,}.")
    one, other = (_counter_clockwise(polygons.reshape(-1, 4, 2)) for polygons in (first, second))
    bad = ~(np.isfinite(first).all(1) & np.isfinite(second).all(1))
    one[bad], other[bad] = 0.0, 0.0
    if size is not None:
        frame = np.array([[0.0, 0.0], [size[0], 0.0], [size[0], size[1]], [0.0, size[1]]])
        one, clipped = (_clip(polygons, np.broadcast_to(frame, other.shape)) for polygons in (one, other))
    else:
        clipped = other
    shared = _area(_clip(one, other))
    overlaps = _ratio(shared, _area(one) + _area(clipped) - shared)
    overlaps[bad] = np.nan
    return overlaps


def _counter_clockwise(corners: np.ndarray) -> np.ndarray:
    """Corners (t, 4, 2) in mathematically positive order, so that the inside is to the left of each edge."""
    return np.where((_area(corners, signed=True) < 0)[:, None, None], corners[:, ::-1], corners)


def _area(corners: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """Shoelace formula; repeated corners add nothing."""
    centred = corners - corners[:, :1]  # far from the origin the products would cancel badly
    following = np.roll(centred, -1, axis=1)
    area = (centred[..., 0] * following[..., 1] - centred[..., 1] * following[..., 0]).sum(1) / 2
    return area if signed else np.abs(area)


def _clip(corners: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Convex polygons (t, n, 2) cut to convex windows (t, m, 2), edge by edge (Sutherland and Hodgman).

    Each edge adds one corner at most. Unused places repeat a corner, which changes neither shape nor area.
    """
    for k in range(window.shape[1]):
        start, end = window[:, k], window[:, (k + 1) % window.shape[1]]
        corners = _cut(corners, start[:, None], (end - start)[:, None])
    return corners


def _cut(corners: np.ndarray, start: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The part to the left of the line through `start` in direction `along`."""
    offset = corners - start
    side = along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]  # positive: to the left
    following, side_there = np.roll(corners, -1, axis=1), np.roll(side, -1, axis=1)
    inside, crosses = side >= 0, (side >= 0) != (side_there >= 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(crosses, side / (side - side_there), 0.0)
    crossing = corners + share[..., None] * (following - corners)
    both = np.stack([corners, crossing], axis=2).reshape(len(corners), -1, 2)  # each corner, then the cut after it
    kept = np.stack([inside, crosses], axis=2).reshape(len(corners), -1)
    order = np.argsort(~kept, axis=1, kind="stable")[:, : corners.shape[1] + 1]
    kept = np.take_along_axis(kept, order, axis=1)
    both = np.take_along_axis(both, order[..., None], axis=1)
    return np.where(kept[..., None], both, both[:, :1])


def _ratio(shared: np.ndarray, union: np.ndarray) -> np.ndarray:
    """shared / union; two regions without area share nothing. Never above 1: rounding must not pass a strict S(1)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(union > 0, np.minimum(shared / union, 1.0), np.where(np.isnan(union), np.nan, 0.0))
