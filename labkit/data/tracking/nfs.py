"""Need for Speed, the version of 30 frames a second: each row is an identity, two corners, a frame number and flags."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from labkit.data.tracking.sequence import ImageFiles, Sequence, from_corners, sequence
from labkit.data.tracking.text import numbered_images, read_lines
from labkit.errors import DataError

STEP = 8  # 240 frames a second to 30


def nfs(folder: Path) -> Iterator[Sequence]:
    """Every `<seq>/30/<seq>.txt` with the frames beside it. Width is x2 - x1 [peer code].

    An annotation file of this version holds a row for every frame at 240 a second (then each eighth belongs to a frame
    here), or for every frame here. One row or one frame too many at the end is cut off [peer code: got10k].
    """
    annotations = sorted(folder.glob("*/30/*.txt"))
    if not annotations:
        raise DataError(f"{folder} holds no <seq>/30/<seq>.txt. Unpack each video's zip below it.")
    for path in annotations:
        directory = path.with_suffix("")
        images = tuple(numbered_images(directory).values())
        corners = at_thirty(_corners(path), len(images), path)
        count = min(len(images), len(corners))
        frames = ImageFiles(images[:count])
        yield sequence(path.stem, frames, from_corners(corners[:count]), where=directory, meta={"first_pixel": 0})


def at_thirty(rows: Float64[np.ndarray, "t 4"], frames: int, path: Path) -> Float64[np.ndarray, "s 4"]:
    """The rows that belong to frames at 30 a second.

    Raises DataError when their count fits neither frame rate.
    """
    for kept in (rows, rows[::STEP]):
        if abs(len(kept) - frames) <= 1:
            return kept
    raise DataError(
        f"{path}: {len(rows):,} rows fit neither {frames:,} frames at 30 a second nor {STEP * frames:,} at 240."
    )


def _corners(path: Path) -> Float64[np.ndarray, "t 4"]:
    """x1, y1, x2, y2 of each row: the second to fifth word; the last one is a label in quotes, with spaces perhaps."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        words = line.replace(",", " ").split()
        try:
            rows.append([float(word) for word in words[1:5]])
        except ValueError:
            raise DataError(f"{path}, line {number}: '{line.strip()[:60]}' is not an identity and corners.") from None
        if len(rows[-1]) < 4:
            raise DataError(f"{path}, line {number}: {len(words)} words; an identity and four corners are needed.")
    return np.array(rows)
