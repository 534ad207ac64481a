"""UAV123 and UAV20L: one tree of videos, annotation files that each cover a stretch of one of them.

UAV123 cuts long videos into several sequences (`car1_1`, `car1_2`, ... of video `car1`); UAV20L annotates long videos
whole. Rows of NaN are frames in which the target is out of view or hidden: they are left out of every mean.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from labkit.data.tracking.otb import one_based
from labkit.data.tracking.sequence import Sequence
from labkit.data.tracking.text import numbered_images, read_rows
from labkit.errors import DataError

STARTS: dict[str, tuple[int, ...]] = {
    "bird1": (1, 775, 1573),
    "car1": (1, 751, 1627),
    "car6": (1, 487, 1807, 2953, 3925),
    "car8": (1, 1357),
    "car16": (1, 415),
    "group1": (1, 1333, 2515, 3925),
    "group2": (1, 907, 1771),
    "group3": (1, 1567, 2827, 4369),
    "person2": (1, 1189),
    "person4": (1, 1501),
    "person5": (1, 877),
    "person7": (1, 1249),
    "person8": (1, 1075),
    "person12": (1, 601),
    "person14": (1, 847, 1813),
    "person17": (1, 1501),
    "person19": (1, 1243, 2791),
    "truck4": (1, 577),
    "uav1": (1, 1555, 2473),
}
"""First frame of each sequence cut from a video; its annotation gives the length [peer code: got10k]."""


def uav123(folder: Path) -> Iterator[Sequence]:
    """The 123 sequences below `anno/UAV123`."""
    return _uav(folder, "UAV123")


def uav20l(folder: Path) -> Iterator[Sequence]:
    """The 20 long sequences below `anno/UAV20L`; the frames are UAV123's."""
    return _uav(folder, "UAV20L")


def _uav(folder: Path, part: str) -> Iterator[Sequence]:
    annotations = sorted((folder / "anno" / part).glob("*.txt"))
    if not annotations:
        raise DataError(f"{folder / 'anno' / part} holds no annotation. Unpack anno/ beside data_seq/.")
    for path in annotations:
        video, start = _stretch(path.stem, folder / "data_seq" / "UAV123")
        rows = read_rows(path, 4)
        images = numbered_images(video)
        yield one_based(path.stem, images, rows, (start, start + len(rows) - 1), video)


def _stretch(name: str, videos: Path) -> tuple[Path, int]:
    """The folder of a sequence's frames and the number of its first one."""
    if (videos / name).is_dir():
        return videos / name, 1
    part = re.fullmatch(r"(.+)_(\d+)", name)
    if part is None or part[1] not in STARTS or not 1 <= int(part[2]) <= len(STARTS[part[1]]):
        raise DataError(f"{videos / name} is missing. Unpack UAV123's video of that name.")
    return videos / part[1], STARTS[part[1]][int(part[2]) - 1]
