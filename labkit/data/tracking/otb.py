"""OTB-2013, OTB-2015 and Temple-Color 128: folders of images beside text files of x, y, w, h counted from pixel 1.

Traps of the layout, each with a test: numbers separated by commas, tabs or spaces; videos with two targets; videos of
which only a part is annotated or scored; an empty annotation file beside the real one; frame names of 4 or 5 digits.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from labkit.data.tracking.sequence import ImageFiles, Sequence, from_one_based, sequence
from labkit.data.tracking.text import frame_number, numbered_images, read_lines, read_rows, span
from labkit.errors import DataError

SPANS: dict[str, tuple[int, int]] = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Tiger1": (6, 354),
}
"""First and last frame number of the OTB videos that are not scored whole [peer code: pytracking, got10k]."""

_FIRST_EDITION = """
Basketball Bolt Boy Car4 CarDark CarScale Coke Couple Crossing David David2 David3 Deer Dog1 Doll Dudek FaceOcc1
FaceOcc2 Fish FleetFace Football Football1 Freeman1 Freeman3 Freeman4 Girl Ironman Jogging Jumping Lemming Liquor
Matrix Mhyang MotorRolling MountainBike Shaking Singer1 Singer2 Skating1 Skiing Soccer Subway Suv Sylvester Tiger1
Tiger2 Trellis Walking Walking2 Woman
"""
OTB2013 = frozenset(_FIRST_EDITION.split())
"""The 50 videos of the first edition; Jogging has two targets [peer code: got10k]."""


def otb2013(folder: Path) -> Iterator[Sequence]:
    """Those sequences of an OTB tree that belong to the first edition."""
    return _otb(folder, OTB2013)


def otb2015(folder: Path) -> Iterator[Sequence]:
    """Every sequence of an OTB tree, in alphabetical order."""
    return _otb(folder, None)


def _otb(folder: Path, names: frozenset[str] | None) -> Iterator[Sequence]:
    for directory in sorted(path for path in folder.iterdir() if (path / "img").is_dir()):
        if names is not None and directory.name not in names:
            continue
        targets = _targets(directory)
        images = numbered_images(directory / "img")
        for suffix, rows in targets.items():
            name = f"{directory.name}.{suffix}" if len(targets) > 1 else directory.name
            yield one_based(name, images, rows, SPANS.get(directory.name), directory)


def _targets(directory: Path) -> dict[str, Float64[np.ndarray, "t 4"]]:
    """Annotations of a video by target: '' for the only one, else '1' and '2'. Empty files are no targets."""
    targets = {}
    for path in sorted(directory.glob("groundtruth_rect*.txt")):
        if (number := re.fullmatch(r"groundtruth_rect\.?(\d*)\.txt", path.name)) and read_lines(path):
            targets[number[1]] = read_rows(path, 4)
    if not targets:
        raise DataError(f"{directory} holds no groundtruth_rect.txt with boxes in it. Unpack that sequence anew.")
    return targets


def tc128(folder: Path) -> Iterator[Sequence]:
    """Every sequence of a Temple-Color 128 tree; `<Seq>_frames.txt` holds the first and last annotated frame."""
    for annotation in sorted(folder.glob("*/*_gt.txt")):
        directory = annotation.parent
        stem = annotation.name.removesuffix("_gt.txt")
        path = directory / f"{stem}_frames.txt"
        first, last = (frame_number(value, str(path)) for value in read_rows(path, 2)[0])
        # a video with two targets has two annotation files; else the folder's name is the sequence's
        name = directory.name if len(list(directory.glob("*_gt.txt"))) == 1 else stem
        images = numbered_images(directory / "img")
        yield one_based(name, images, read_rows(annotation, 4), (first, last), directory)


def one_based(
    name: str,
    images: dict[int, Path],
    rows: Float64[np.ndarray, "t 4"],
    scored: tuple[int, int] | None,
    where: Path,
) -> Sequence:
    """Images by number, rows counted from pixel 1, and the frames first..last that are scored (None: all of them).

    The rows may belong to the kept frames or to all frames: their count decides.

    Raises DataError when it fits neither, or some of those frames are missing.
    """
    kept = list(images) if scored is None else span(images, *scored, where)
    if len(rows) != len(kept) and len(rows) == len(images):
        rows = rows[np.isin(list(images), kept)]
    frames = ImageFiles([images[number] for number in kept])
    return sequence(name, frames, from_one_based(rows), where=where, meta={"first_pixel": 1, "first_frame": kept[0]})
