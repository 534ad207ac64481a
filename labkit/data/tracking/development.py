"""Five real sequences of three benchmarks, small enough for a lesson, and OxUvA's sparse annotations without frames.

They are below LABKIT_DATA in `tracking/<name>/img/0001.jpg ...`, beside one annotation file each. None carries a data
licence of its own: research only, never passed on.
"""

from collections.abc import Sequence as Ordered
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from labkit.data import registry
from labkit.data.tracking.sequence import (
    ImageFiles,
    Sequence,
    from_inclusive_corners,
    from_one_based,
    polygon_boxes,
    sequence,
)
from labkit.data.tracking.text import numbered_images, read_rows
from labkit.errors import InputError

DEVELOPMENT: dict[str, str] = {
    "Crossing": "groundtruth_rect.txt",
    "DragonBaby": "groundtruth_rect.txt",
    "Jogging2": "groundtruth_rect.txt",
    "TLD_pedestrian2": "gt.txt",
    "bag": "groundtruth.txt",
}
"""Name of each sequence and of its annotation file, whose name gives the format: OTB, TLD, VOT."""


def is_there() -> bool:
    """Whether LABKIT_DATA holds the sequences."""
    return registry.status("tracking").state == "present"


def development(names: Ordered[str] | None = None) -> list[Sequence]:
    """The real sequences, or those of these names.

    Raises DataError when they are not in LABKIT_DATA, InputError for a name that is none of theirs.
    """
    wanted = list(DEVELOPMENT) if names is None else list(names)
    for name in wanted:
        if name not in DEVELOPMENT:
            raise InputError(f"there is no development sequence '{name}'; there are {', '.join(DEVELOPMENT)}.")
    folder = registry.require("tracking")
    return [read(folder / name, DEVELOPMENT[name]) for name in wanted]


def read(folder: Path, annotation: str) -> Sequence:
    """One folder with `img/` and an annotation file in the format that its name gives.

    `groundtruth_rect.txt`: OTB, x y w h from pixel 1. `gt.txt`: TLD, inclusive corners x1 y1 x2 y2, NaN when absent.
    `groundtruth.txt`: VOT, eight polygon coordinates.
    """
    frames = ImageFiles(tuple(numbered_images(folder / "img").values()))
    path = folder / annotation
    if annotation == "groundtruth.txt":
        polygons = read_rows(path, 8)
        boxes = polygon_boxes(polygons)
        return sequence(folder.name, frames, boxes, where=folder, polygons=polygons, meta={"polygon_box": "area"})
    return sequence(folder.name, frames, _upright(path), where=folder)


def _upright(path: Path) -> Float64[np.ndarray, "t 4"]:
    rows = read_rows(path, 4)
    return from_inclusive_corners(rows) if path.name == "gt.txt" else from_one_based(rows)
