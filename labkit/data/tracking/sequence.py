"""One annotated video for single-object tracking, whatever its benchmark: frames on demand, boxes in one convention.

A box is (x, y, w, h) in pixels: continuous coordinates, 0-based, the top-left corner of the first pixel at (0, 0).
Benchmarks that count pixels from 1, or write corners or polygons, are converted where they are read.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from labkit.data.pictures import read_picture
from labkit.errors import DataError, InputError

Frame = UInt8[np.ndarray, "height width 3"]


class ImageFiles(Ordered[Frame]):
    """Frames as image files, decoded when asked for and never kept: index i is an RGB array (height, width, 3)."""

    def __init__(self, paths: Ordered[Path]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        """A frame, or for a slice the frames of that slice, still on disk.

        Raises DataError that names a damaged or missing file.
        """
        return ImageFiles(self.paths[index]) if isinstance(index, slice) else read_image(self.paths[index])


def read_image(path: Path) -> Frame:
    """An image file as RGB: trackers see three channels even where a benchmark holds grey pictures.

    Raises DataError that names a damaged or missing file, or a picture too large to be a frame.
    """
    picture = read_picture(path, "Unpack that sequence anew.")
    return np.array(picture)  # a copy: torch warns of arrays that may not be written to


@dataclass(frozen=True, eq=False)
class Sequence:
    """A video with one target.

    frames: `len(frames)` and `frames[i]` -> uint8 RGB (height, width, 3); a list of arrays will do.
    boxes: (x, y, w, h), one row a frame; NaN where the target is absent or the frame is not annotated.
    absent: True where the annotation says that the target cannot be seen; a NaN row without it was not annotated.
    polygons: the corners x1, y1, ..., x4, y4 where the benchmark has them; `boxes` are derived from these.
    meta: other annotations of the benchmark, e.g. full occlusion per frame, or how boxes were made from polygons.
    """

    name: str
    frames: Ordered[Any]
    boxes: Float64[np.ndarray, "t 4"]
    absent: Bool[np.ndarray, " t"]
    polygons: Float64[np.ndarray, "t 8"] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"frames": len(self.frames), "boxes": len(self.boxes), "absent": len(self.absent)}
        if self.polygons is not None:
            counts["polygons"] = len(self.polygons)
        if len(set(counts.values())) > 1:
            lengths = ", ".join(f"{count:,} {what}" for what, count in counts.items())
            raise InputError(f"Sequence '{self.name}' must hold one row per frame; got {lengths}.")
        if not len(self.boxes):
            raise InputError(f"Sequence '{self.name}' holds no frame.")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def annotated(self) -> Bool[np.ndarray, " t"]:
        """Frames with a usable box: finite, with positive width and height."""
        return np.isfinite(self.boxes).all(1) & (self.boxes[:, 2:] > 0).all(1)

    def part(self, start: int, stop: int) -> "Sequence":
        """Frames start..stop-1 as a sequence of their own; frames stay on disk.

        Raises InputError when that range is not inside the sequence.
        """
        if not 0 <= start < stop <= len(self):
            raise InputError(f"{self.name} has frames 0..{len(self) - 1}; asked for {start}..{stop - 1}.")
        polygons = None if self.polygons is None else self.polygons[start:stop]
        span = slice(start, stop)
        return replace(
            self, frames=self.frames[span], boxes=self.boxes[span], absent=self.absent[span], polygons=polygons
        )


def sequence(
    name: str, frames: Ordered[Any], boxes: Float64[np.ndarray, "t 4"], *, where: Path, **more: Any
) -> Sequence:
    """A Sequence from files: NaN rows are absent unless `absent` is given; a wrong count names the folder.

    Raises DataError when there are not as many rows as frames.
    """
    if len(frames) != len(boxes):
        raise DataError(
            f"{where}: {len(frames):,} frames but {len(boxes):,} annotated rows. Unpack sequence '{name}' anew."
        )
    absent = more.pop("absent", None)
    if absent is None:
        absent = np.isnan(boxes).any(1)
    return Sequence(name, frames, boxes, absent, **more)


# ---- conventions ----------------------------------------------------------------------------------------------------


def from_one_based(boxes: Float64[np.ndarray, "t 4"]) -> Float64[np.ndarray, "t 4"]:
    """(x, y, w, h) whose first pixel is 1: OTB, Temple-Color and UAV, in Matlab's way of counting."""
    return boxes - np.array([1.0, 1.0, 0.0, 0.0])


def from_inclusive_corners(corners: Float64[np.ndarray, "t 4"]) -> Float64[np.ndarray, "t 4"]:
    """(x1, y1, x2, y2), both corners inside the target: a box from 3 to 5 is three pixels wide."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2] + 1], axis=1)


def from_corners(corners: Float64[np.ndarray, "t 4"]) -> Float64[np.ndarray, "t 4"]:
    """(x1, y1, x2, y2) in continuous coordinates: w = x2 - x1."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def polygon_boxes(polygons: Float64[np.ndarray, "t 8"]) -> Float64[np.ndarray, "t 4"]:
    """Upright boxes for four-corner polygons, as most VOT entries derive them [peer code].

    The bounding box shrinks about the mean corner until its area is that of the rotated rectangle; then each side
    grows by one pixel.
    """
    corners = polygons.reshape(-1, 4, 2)
    low, high = corners.min(1), corners.max(1)
    first, second = (np.linalg.norm(corners[:, k] - corners[:, k + 1], axis=1) for k in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        shrink = np.sqrt(first * second / (high - low).prod(1))
    size = shrink[:, None] * (high - low) + 1
    return np.concatenate([corners.mean(1) - size / 2, size], axis=1)
