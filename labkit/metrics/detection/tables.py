"""Tables of detections as CSV files: what the commands read and write. Every fault is named with its line."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from labkit.errors import InputError
from labkit.metrics.detection.frames import Boxes
from labkit.metrics.detection.tubes import Tube

BOX_COLUMNS = ("video", "frame", "x1", "y1", "x2", "y2", "label", "score")
TUBE_COLUMNS = ("video", "tube", "frame", "x1", "y1", "x2", "y2", "label", "score")
LARGEST = 10**9
"""Frames, tubes and labels are whole numbers up to this."""


def read_boxes(truth: str | Path, detections: str | Path) -> tuple[Boxes, Boxes, list[str]]:
    """Two tables with the columns video, frame, x1, y1, x2, y2, label (and score), and the names of their labels.

    Labels are any text; they are numbered in alphabetical order over both files.

    Raises:
        InputError: a file is missing, or damaged; names the line. The two have no video in common.
    """
    tables = [list(read_rows(Path(path), BOX_COLUMNS[:-1], scored)) for path, scored in ((truth, 0), (detections, 1))]
    require_a_common_video(*({row["video"] for row in table} for table in tables))
    names = sorted({row["label"] for table in tables for row in table})
    number = {name: k for k, name in enumerate(names)}
    frames: dict[tuple[str, int], int] = {}
    both = [_boxes(table, number, frames, scored) for table, scored in zip(tables, (False, True), strict=True)]
    return both[0], both[1], names


def require_a_common_video(truth: Iterable[str], detections: Iterable[str]) -> None:
    """Raises InputError where every detection is in a video without truth: two ways to write one name, not an AP of 0.

    Without any detection, or any truth, there is nothing to compare.
    """
    true, detected = sorted(set(truth)), sorted(set(detections))
    if true and detected and not set(true) & set(detected):
        raise InputError(
            f"no video of the detections is one of the truth: '{detected[0]}' there, '{true[0]}' here. "
            "Write the names alike in both files."
        )


def _boxes(
    table: Sequence[dict[str, str]], number: dict[str, int], frames: dict[tuple[str, int], int], scored: bool
) -> Boxes:
    n = len(table)
    keys = [frames.setdefault((row["video"], int(row["frame"])), len(frames)) for row in table]
    boxes = np.array([[float(row[c]) for c in ("x1", "y1", "x2", "y2")] for row in table]).reshape(n, 4)
    labels = np.array([number[row["label"]] for row in table], dtype=np.int64)
    scores = np.array([float(row["score"]) for row in table]) if scored else None
    return Boxes(np.array(keys, dtype=np.int64), labels, boxes, scores)


def read_tubes(truth: str | Path, detections: str | Path) -> tuple[list[Tube], list[Tube], list[str]]:
    """Two tables with the columns video, tube, frame, x1, y1, x2, y2, label (and score): tubes, and label names.

    A tube is the rows of one video with one number; its frames follow one another without a gap, and its label and
    score are those of its first row.

    Raises:
        InputError: a file is missing, damaged, or a tube has a gap; names the line. The two have no video in common.
    """
    tables = [list(read_rows(Path(path), TUBE_COLUMNS[:-1], scored)) for path, scored in ((truth, 0), (detections, 1))]
    require_a_common_video(*({row["video"] for row in table} for table in tables))
    names = sorted({row["label"] for table in tables for row in table})
    number = {name: k for k, name in enumerate(names)}
    both = [list(_tubes(table, number, Path(path))) for table, path in zip(tables, (truth, detections), strict=True)]
    return both[0], both[1], names


def _tubes(table: Sequence[dict[str, str]], number: dict[str, int], path: Path) -> Iterator[Tube]:
    grouped: dict[tuple[str, int], list[dict[str, str]]] = {}
    for row in table:
        grouped.setdefault((row["video"], int(row["tube"])), []).append(row)
    for (video, tube), rows in grouped.items():
        rows.sort(key=lambda row: int(row["frame"]))
        frames = [int(row["frame"]) for row in rows]
        if frames != list(range(frames[0], frames[0] + len(frames))):
            raise InputError(
                f"{path}: tube {tube} of '{video}' has a gap, or a frame twice, between {frames[0]} and {frames[-1]}."
            )
        boxes = np.array([[float(row[c]) for c in ("x1", "y1", "x2", "y2")] for row in rows])
        yield Tube(video, number[rows[0]["label"]], frames[0], boxes, float(rows[0].get("score", "1")))


def tubes_as_text(tubes: Iterable[Tube], names: Sequence[str]) -> str:
    """The table that `read_tubes` reads, boxes with two decimals."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(TUBE_COLUMNS)
    for number, tube in enumerate(tubes):
        for t, box in enumerate(tube.boxes):
            cells = [f"{value:.2f}" for value in box]
            rows.writerow([tube.video, number, tube.start + t, *cells, names[tube.label], f"{tube.score:.4f}"])
    return stream.getvalue()


def read_rows(path: Path, columns: Sequence[str], scored: bool | int) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header; numbers are checked."""
    wanted = (*columns, *(("score",) if scored else ()))
    reader = csv.DictReader(read_text(path).splitlines(), strict=True)
    try:
        header = reader.fieldnames or []
        if missing := [name for name in wanted if name not in header]:
            raise InputError(
                f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} in its first line."
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: {len(header)} cells are expected, as the first line has.")
            for name in wanted:
                if name in ("frame", "tube"):
                    whole(row[name], name, where)
                elif name not in ("video", "label"):
                    finite(row[name], name, where)
            yield row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.") from None


def read_text(path: Path) -> str:
    """The text of a file.

    Raises InputError where there is none, or it is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no file '{path}'.") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read as text ({error}).") from None


def whole(text: str, name: str, where: str) -> int:
    """A whole number from 0 to 10^9."""
    if not (text.isascii() and text.isdigit()) or int(text[:12]) > LARGEST:
        raise InputError(f"{where}: {name} is a whole number from 0 on; got '{text[:40]}'.")
    return int(text)


def finite(text: str, name: str, where: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise InputError(f"{where}: {name} is a number; got '{text[:40]}'.")
    return value
