"""AVA's protocol: mean AP over 60 classes of atomic actions, boxes at one key-frame a second.

    video_id,timestamp,x1,y1,x2,y2,action_id[,person_id]      truth: one row a label, no header; boxes in [0, 1]
    video_id,timestamp,x1,y1,x2,y2,action_id,score            detections

A box stands there once for each of its labels. Overlap .5; a detection is compared with the one truth it overlaps most,
as in the evaluation server's code, which stems from TensorFlow's [peer code]. Timestamps on the list of exclusions
count for neither side.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from labkit.errors import InputError
from labkit.metrics.detection.average_precision import AveragePrecisions
from labkit.metrics.detection.frames import Boxes, frame_map
from labkit.metrics.detection.tables import finite, read_text, require_a_common_video, whole

MOST_CLASSES = 1000
Key = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Rows:
    """A table of AVA's: videos and timestamps (s) by row, boxes x1, y1, x2, y2 in [0, 1], action ids from 1 on.

    last: score of a detection; person id of a truth, NaN where the file has none.
    """

    keys: tuple[Key, ...]
    boxes: Float64[np.ndarray, "n 4"]
    actions: Int64[np.ndarray, " n"]
    last: Float64[np.ndarray, " n"]


def read(path: str | Path, scored: bool = False) -> Rows:
    """One of AVA's CSV files.

    Raises:
        InputError: the file is missing, or a line is damaged; names it.
    """
    keys: list[Key] = []
    numbers: list[tuple[float, ...]] = []
    actions: list[int] = []
    for line_number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        if not line.strip():
            continue
        where, cells = f"{path}, line {line_number}", line.split(",")
        if len(cells) not in ((8,) if scored else (7, 8)):
            asked = "video,timestamp,x1,y1,x2,y2,action_id," + ("score" if scored else "person_id")
            raise InputError(f"{where}: {asked} is expected; got {len(cells)} cells.")
        keys.append((cells[0], _second(cells[1], where)))
        box = [finite(cell, name, where) for cell, name in zip(cells[2:6], ("x1", "y1", "x2", "y2"), strict=True)]
        if not (box[0] <= box[2] and box[1] <= box[3] and min(box) >= -0.01 and max(box) <= 1.01):
            raise InputError(f"{where}: a box is x1,y1,x2,y2 with x1 <= x2, y1 <= y2, all in [0, 1]; got {cells[2:6]}.")
        actions.append(_action(cells[6], where))
        last = finite(cells[7], "score" if scored else "person_id", where) if len(cells) == 8 else float("nan")
        numbers.append((*box, last))
    table = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    return Rows(tuple(keys), table[:, :4], np.array(actions, dtype=np.int64), table[:, 4])


def _second(text: str, where: str) -> int:
    """A timestamp in seconds; some files write 902.0 or 0902."""
    value = finite(text, "timestamp", where)
    if value != int(value) or value < 0:
        raise InputError(f"{where}: a timestamp is a whole second; got '{text[:40]}'.")
    return int(value)


def _action(text: str, where: str) -> int:
    number = whole(text, "action_id", where)
    if not 1 <= number <= MOST_CLASSES:
        raise InputError(f"{where}: action ids count from 1 to {MOST_CLASSES} at most; got {number}.")
    return number


def read_label_map(path: str | Path) -> dict[int, str]:
    """Names of the evaluated classes by id, from AVA's pbtxt: `item { name: "..." id: n }`; 60 in the official list.

    Raises:
        InputError: the file is missing, or holds no items.
    """
    text = read_text(Path(path))
    names: dict[int, str] = {}
    for body in re.findall(r"(?:item|label)\s*\{([^{}]*)\}", text):
        name, number = re.search(r'name:\s*"([^"]*)"', body), re.search(r"(?:label_)?id:\s*(\d{1,9})", body)
        if name is None or number is None or not 1 <= int(number[1]) <= MOST_CLASSES:
            raise InputError(
                f'{path}: an item needs name: "..." and id: from 1 to {MOST_CLASSES}; got {body.strip()!r}.'
            )
        names[int(number[1])] = name[1]
    if not names:
        raise InputError(f'{path} holds no items such as item {{ name: "stand" id: 12 }}.')
    return names


def read_excluded(path: str | Path) -> set[Key]:
    """Timestamps that count for neither side: rows `video_id,timestamp`.

    Raises:
        InputError: the file is missing, or a line is damaged.
    """
    timestamps: set[Key] = set()
    for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        cells = line.split(",")
        if line.strip():
            if len(cells) != 2:
                raise InputError(f"{path}, line {number}: video_id,timestamp is expected; got '{line[:60]}'.")
            timestamps.add((cells[0], _second(cells[1], f"{path}, line {number}")))
    return timestamps


def evaluate(
    truth: str | Path | Rows,
    detections: str | Path | Rows,
    label_map: str | Path | None = None,
    excluded: str | Path | None = None,
    threshold: float = 0.5,
) -> AveragePrecisions:
    """AP by action id, and their mean.

    Args:
        label_map: pbtxt of the classes that count, AVA's 60. None: all that the truth holds.
        excluded: list of timestamps that are left out.

    Raises:
        InputError: a file is missing or damaged, or the two have no video in common.
    """
    tables = [
        rows if isinstance(rows, Rows) else read(rows, scored) for rows, scored in ((truth, False), (detections, True))
    ]
    require_a_common_video(*({video for video, _ in table.keys} for table in tables))
    dropped = read_excluded(excluded) if excluded else set()
    classes = sorted(read_label_map(label_map)) if label_map else None
    frames: dict[Key, int] = {}
    true, detected = (
        _boxes(table, frames, dropped, scored) for table, scored in zip(tables, (False, True), strict=True)
    )
    return frame_map(true, detected, threshold, classes, once=True)


def _boxes(rows: Rows, frames: dict[Key, int], dropped: set[Key], scored: bool) -> Boxes:
    numbers = np.array([frames.setdefault(key, len(frames)) for key in rows.keys], dtype=np.int64)
    table = Boxes(numbers, rows.actions, rows.boxes, rows.last if scored else None)
    if not dropped:
        return table
    return table.pick(np.array([key not in dropped for key in rows.keys], dtype=bool))
