"""VOT2018 and VOT2019: rotated boxes as four corners, per-frame tags, one list of sequences."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from labkit.data.tracking.sequence import ImageFiles, Sequence, polygon_boxes, sequence
from labkit.data.tracking.text import numbered_images, read_lines, read_names, read_rows
from labkit.errors import DataError


def vot(folder: Path) -> Iterator[Sequence]:
    """The sequences named in `list.txt`, or every folder with a `groundtruth.txt` where there is no list.

    Polygons are kept, overlaps are computed with them; `boxes` (area-preserving) are what a tracker is started with.
    Rows of four numbers are upright boxes x, y, w, h; their polygons are their corners.
    """
    for name in vot_names(folder):
        directory = folder / name
        frames = ImageFiles(
            tuple(numbered_images(directory / "color" if (directory / "color").is_dir() else directory).values())
        )
        rows = read_rows(directory / "groundtruth.txt", (8, 4))
        upright = rows.shape[1] == 4
        polygons = box_corners(rows) if upright else rows
        meta = {"first_pixel": 0, "polygon_box": "upright" if upright else "area", "tags": _tags(directory, len(rows))}
        boxes = rows if upright else polygon_boxes(rows)
        yield sequence(name, frames, boxes, where=directory, polygons=polygons, meta=meta)


def vot_names(folder: Path) -> list[str]:
    """The sequences in the benchmark's order.

    Raises DataError for one of the list that is not there.
    """
    if (folder / "list.txt").is_file():
        names = read_names(folder / "list.txt")
    else:
        names = sorted(path.parent.name for path in folder.glob("*/groundtruth.txt"))
    if missing := [name for name in names if not (folder / name / "groundtruth.txt").is_file()]:
        raise DataError(f"{folder} lacks {', '.join(missing[:5])} of its list.txt. Fetch the dataset anew.")
    return names


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """(t, 4) boxes x, y, w, h as (t, 8) corners, clockwise from the top left."""
    x, y, w, h = boxes.T
    return np.stack([x, y, x + w, y, x + w, y + h, x, y + h], axis=1)


def _tags(directory: Path, count: int) -> dict[str, Bool[np.ndarray, " t"]]:
    """Per-frame tags such as 'occlusion', from `<tag>.tag` or `<tag>.label` files of 0 and 1; shorter ones end in 0."""
    tags = {}
    for path in sorted((*directory.glob("*.tag"), *directory.glob("*.label"))):
        flags = np.zeros(count, dtype=bool)
        values = [line.strip() == "1" for line in read_lines(path)][:count]
        flags[: len(values)] = values
        tags[path.stem] = flags
    return tags
