"""LaSOT (test split) and TrackingNet (test set): large sets of videos, one folder each."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from labkit.data.tracking.sequence import ImageFiles, Sequence, sequence
from labkit.data.tracking.text import numbered_images, read_lines, read_names, read_rows
from labkit.errors import DataError

TEST_SPLIT = """
airplane 1 9 13 15; basketball 1 6 7 11; bear 2 4 6 17; bicycle 2 7 9 18; bird 2 3 15 17; boat 3 4 12 17;
book 3 10 11 19; bottle 1 12 14 18; bus 2 5 17 19; car 2 6 9 17; cat 1 3 18 20; cattle 2 7 12 13; chameleon 3 6 11 20;
coin 3 6 7 18; crab 3 6 12 18; crocodile 3 4 10 14; cup 1 4 7 17; deer 4 8 10 14; dog 1 7 15 19; drone 2 7 13 15;
electricfan 1 10 18 20; elephant 1 12 16 18; flag 2 3 5 9; fox 2 3 5 20; frog 3 4 9 20; gametarget 1 2 7 13;
gecko 1 5 16 19; giraffe 2 10 13 15; goldfish 3 7 8 10; gorilla 4 6 9 13; guitar 3 8 10 16; hand 2 3 9 16;
hat 1 2 5 18; helmet 5 11 13 19; hippo 1 7 9 20; horse 1 4 12 15; kangaroo 2 5 11 14; kite 4 6 10 15;
leopard 1 7 16 20; licenseplate 6 12 13 15; lion 1 5 12 20; lizard 1 3 6 13; microphone 2 6 14 16; monkey 3 4 9 17;
motorcycle 1 3 9 18; mouse 1 8 9 17; person 1 5 10 12; pig 2 10 13 18; pool 3 7 12 15; rabbit 10 13 17 19;
racing 10 15 16 20; robot 1 5 8 19; rubicCube 1 6 14 19; sepia 6 8 13 16; shark 2 3 5 6; sheep 3 5 7 9;
skateboard 3 8 16 19; spider 14 16 18 20; squirrel 8 11 13 19; surfboard 4 5 8 12; swing 10 14 17 20; tank 6 9 14 16;
tiger 4 6 12 18; train 1 7 11 20; truck 3 6 7 16; turtle 5 8 9 16; umbrella 2 9 17 19; volleyball 1 13 18 19;
yoyo 7 15 17 19; zebra 10 14 16 17
"""
"""Class and numbers of the 280 test sequences (protocol II) [peer code: got10k]; `testing_set.txt` has precedence."""


def lasot_test_names(folder: Path) -> list[str]:
    """Names of the test sequences: LaSOT's own list where it lies in the folder, else the published split."""
    if (folder / "testing_set.txt").is_file():
        return read_names(folder / "testing_set.txt")
    split = (entry.split() for entry in TEST_SPLIT.split(";"))
    return [f"{name}-{number}" for name, *numbers in split for number in numbers]


def lasot(folder: Path) -> Iterator[Sequence]:
    """The test sequences. x, y are taken as they stand: no toolkit shifts them [peer code].

    Absent: fully occluded or out of view. Boxes without area are annotations of nothing and become NaN.

    Raises DataError for a sequence of the split that is not there.
    """
    for name in lasot_test_names(folder):
        directory = folder / name.rpartition("-")[0] / name
        boxes = read_rows(directory / "groundtruth.txt", 4)
        boxes[~(boxes[:, 2:] > 0).all(1)] = np.nan
        flags = {what: _flags(directory / f"{what}.txt", len(boxes)) for what in ("full_occlusion", "out_of_view")}
        frames = ImageFiles(tuple(numbered_images(directory / "img").values()))
        absent = flags["full_occlusion"] | flags["out_of_view"]
        yield sequence(name, frames, boxes, where=directory, absent=absent, meta={"first_pixel": 0, **flags})


def _flags(path: Path, count: int) -> Bool[np.ndarray, " t"]:
    """0 or 1 for each frame, all on one line or one a line."""
    words = [word for line in read_lines(path) for word in line.replace(",", " ").split()]
    if len(words) != count or set(words) - {"0", "1"}:
        raise DataError(f"{path} must hold 0 or 1 for each of {count:,} frames; it holds {len(words):,} values.")
    return np.array([word == "1" for word in words])


def trackingnet(folder: Path) -> Iterator[Sequence]:
    """The test videos: frames 0.jpg, 1.jpg, ...; only the first box is published, the rest is NaN and not absent."""
    annotations = sorted((folder / "TEST" / "anno").glob("*.txt"))
    if not annotations:
        raise DataError(f"{folder / 'TEST' / 'anno'} holds no annotation. Let the devkit fetch TEST anew.")
    for path in annotations:
        directory = folder / "TEST" / "frames" / path.stem
        images = numbered_images(directory)
        if list(images) != list(range(len(images))):
            raise DataError(
                f"{directory}: frames are numbered from 0 without gaps; found {min(images)} to {max(images)}."
            )
        rows = read_rows(path, 4)
        boxes = np.full((len(images), 4), np.nan)
        if len(rows) not in (1, len(images)):
            raise DataError(f"{path}: {len(rows):,} rows; the test set has 1, the training set one a frame.")
        boxes[: len(rows)] = rows
        absent = np.zeros(len(images), dtype=bool)
        frames = ImageFiles(tuple(images.values()))
        yield sequence(
            path.stem, frames, boxes, where=directory, absent=absent, meta={"first_pixel": 0, "server": True}
        )
