"""OxUvA: minutes-long tracks with one annotated frame in about thirty, and targets that leave.

Boxes are fractions of the image size in the order xmin, xmax, ymin, ymax. Tasks (video, object, stretch, first box) are
published for both splits, annotations for the development split only; test results go to a server.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from labkit.data.tracking.sequence import ImageFiles, Sequence, sequence
from labkit.data.tracking.text import folder_name, frame_number, numbered_images, read_lines, span
from labkit.errors import DataError, InputError


@dataclass(frozen=True, eq=False)
class Track:
    """One task and, in the development split, what is known of it.

    first, last: frame numbers of the video, both inside. first_box: x, y, w, h as fractions of the image size.
    frames: numbers of the annotated frames, ascending. present: whether the target is in view there.
    boxes: x, y, w, h as fractions; NaN where it is absent.
    """

    video: str
    object: str
    first: int
    last: int
    first_box: Float64[np.ndarray, "4"]
    frames: Int64[np.ndarray, " k"]
    present: Bool[np.ndarray, " k"]
    boxes: Float64[np.ndarray, "k 4"]

    @property
    def name(self) -> str:
        return f"{self.video}_{self.object}"


def read_tracks(tasks: Path, annotations: Path | None = None) -> list[Track]:
    """The tracks of a tasks file, with their annotations where there is such a file.

    The annotation of a track's first frame is what the tracker is given: it is left out, as its scores leave it out.

    Raises DataError that names the file and line of anything that cannot be read.
    """
    known = {} if annotations is None else _annotations(annotations)
    tracks = []
    for number, row in _csv(tasks, 8):
        video, target = (folder_name(word, f"{tasks}, line {number}") for word in row[:2])
        first, last = (frame_number(word, f"{tasks}, line {number}") for word in row[2:4])
        labels = [label for label in known.get((video, target), []) if label[0] != first]
        labels.sort(key=lambda label: label[0])
        frames = np.array([frame for frame, _ in labels], dtype=np.int64)
        boxes = np.array([box for _, box in labels], dtype=np.float64).reshape(-1, 4)
        present = np.all(np.isfinite(boxes), axis=1)
        box = _box(tasks, number, row[4:8])
        tracks.append(Track(video, target, first, last, np.array(box), frames, present, boxes))
    if not tracks:
        raise DataError(f"{tasks} holds no task.")
    return tracks


def oxuva(folder: Path, split: str = "dev") -> Iterator[Sequence]:
    """A split as sequences: frames first..last of each track, boxes in pixels on the annotated frames, NaN elsewhere.

    meta['annotated']: True where the annotation says something, be it that the target is absent.
    """
    if split not in ("dev", "test"):
        raise InputError(f"OxUvA has the splits dev and test; got '{split}'.")
    annotations = folder / "annotations" / f"{split}.csv"
    for track in read_tracks(folder / "tasks" / f"{split}.csv", annotations if split == "dev" else None):
        yield as_sequence(track, folder / "images" / split / track.video)


def as_sequence(track: Track, directory: Path) -> Sequence:
    """A track with the frames of its video, images named by number: 000000.jpeg, 000001.jpeg, ..."""
    images = numbered_images(directory)
    wanted = span(images, track.first, track.last, directory)
    if len(track.frames) and not (track.first <= track.frames[0] and track.frames[-1] <= track.last):
        raise DataError(f"track {track.name} is annotated outside its frames {track.first} to {track.last}.")
    frames = ImageFiles([images[number] for number in wanted])
    height, width, _ = frames[0].shape
    size = np.array([width, height, width, height], dtype=np.float64)
    boxes = np.full((len(frames), 4), np.nan)
    annotated, absent = np.zeros((2, len(frames)), dtype=bool)
    boxes[0], annotated[0] = track.first_box * size, True
    at = track.frames - track.first
    boxes[at], annotated[at], absent[at] = track.boxes * size, True, ~track.present
    meta = {"first_pixel": 0, "first_frame": track.first, "annotated": annotated, "size": (width, height)}
    meta |= {"video": track.video, "object": track.object}
    return sequence(track.name, frames, boxes, where=directory, absent=absent, meta=meta)


def _annotations(path: Path) -> dict[tuple[str, str], list[tuple[int, list[float]]]]:
    """Frame number and box (NaN when absent) by video and object."""
    by_track: dict[tuple[str, str], list[tuple[int, list[float]]]] = {}
    for number, row in _csv(path, 12):
        frame = frame_number(row[6], f"{path}, line {number}")
        if row[7] not in ("present", "absent"):
            raise DataError(f"{path}, line {number}: '{row[7]}' is neither present nor absent.")
        box = _box(path, number, row[8:12]) if row[7] == "present" else [np.nan] * 4
        by_track.setdefault((row[0], row[1]), []).append((frame, box))
    return by_track


def _csv(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row."""
    for number, row in enumerate(csv.reader(read_lines(path)), 1):
        if len(row) != columns:
            raise DataError(f"{path}, line {number}: {len(row)} fields instead of {columns}.")
        yield number, [field.strip() for field in row]


def _numbers(path: Path, line: int, words: list[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        raise DataError(f"{path}, line {line}: {', '.join(words)} are not all numbers.") from None


def _box(path: Path, line: int, words: list[str]) -> list[float]:
    """xmin, xmax, ymin, ymax to x, y, w, h."""
    x1, x2, y1, y2 = _numbers(path, line, words)
    if not (x1 < x2 and y1 < y2):
        raise DataError(f"{path}, line {line}: {', '.join(words)} is no box in the order xmin, xmax, ymin, ymax.")
    return [x1, y1, x2 - x1, y2 - y1]
