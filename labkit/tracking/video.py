"""Follow what is inside a box through any video; write the video with the box drawn in, and its boxes as CSV."""

import csv
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import InputError
from labkit.files import given_path
from labkit.tracking.tracker import Box, Tracked, Tracker
from labkit.vision.video import address as _address
from labkit.vision.video import av_module as _av
from labkit.vision.video import explain_errors as _explain_errors
from labkit.vision.video import opened as _opened
from labkit.vision.video import pictures as _pictures
from labkit.vision.video import rate as _rate
from labkit.vision.video import reason as _reason

PRESENT, ABSENT = (0, 200, 83), (255, 111, 0)
"""Colours of the box: green where the tracker reports its target as present, orange where as absent."""


@dataclass(frozen=True)
class Report:
    """frames: tracked, the given one included. absent: how many without the target. seconds: inside the tracker.

    missing: frames that the file announces and does not yield, as one that broke off does.
    """

    frames: int
    absent: int
    seconds: float
    missing: int = 0


MOST_FRAMES = 10**9
"""A year of video."""
Show = Callable[[int, int], None]
"""Called as show(frames done, frames in all or 0 where the file does not tell)."""


def follow(
    video: Path,
    box: Box,
    out: Path,
    tracker: Tracker,
    start: int = 0,
    frames: int = 0,
    overwrite: bool = False,
    show: Callable[[], AbstractContextManager[Show]] | None = None,
) -> Report:
    """Track through `video` from frame `start` on; write `out` and its CSV, which appear together when both are whole.

    Raises:
        InputError: before anything is written: a video that cannot be read, a box outside its first frame, an output
            that is there already or is of no known kind.
        RunError: the output's folder cannot be written, or is full; nothing is left behind.
    """
    if not (0 <= start <= MOST_FRAMES and 0 <= frames <= MOST_FRAMES):
        raise InputError(f"--start and --frames lie between 0 and {MOST_FRAMES:,}; got {start} and {frames}.")
    out = given_path(out, "--out")
    table = given_path(out.with_suffix(".csv"), "--out")
    check_places(video, out, table, overwrite)
    with _opened(video) as (source, stream):
        pictures = itertools.islice(_pictures(source, stream, video), start, start + frames if frames else None)
        first = next(pictures, None)
        if first is None:
            raise InputError(f"{video} has no frame {start} that can be decoded; --start counts from 0.")
        _check_inside(box, first)
        total = min(frames or stream.frames, max(stream.frames - start, 0)) if stream.frames else frames
        report = Report(0, 0, 0.0)
        with _output(out, table, first, _rate(stream)) as write, (show or silent)() as advance:
            for index, (picture, tracked, seconds) in enumerate(
                _tracked(tracker, box, itertools.chain([first], pictures))
            ):
                write(drawn(picture, tracked), _row(start + index, tracked))
                report = Report(index + 1, report.absent + (not tracked.present), report.seconds + seconds)
                advance(index + 1, total)
    ended = not frames or report.frames < frames
    return replace(report, missing=max(0, stream.frames - start - report.frames) if ended else 0)


def _tracked(tracker: Tracker, box: Box, pictures: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, Tracked, float]]:
    """Each frame with the tracker's answer and the seconds it took. The first frame has the given box."""
    for index, picture in enumerate(pictures):
        begun = time.perf_counter()
        if index == 0:
            tracker.init(picture, box)
            tracked = Tracked(box, 1.0, True)
        else:
            tracked = tracker.update(picture)
        yield picture, tracked, time.perf_counter() - begun


# ---- reading --------------------------------------------------------------------------------------------------------


def _check_inside(box: Box, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    x, y, w, h = box
    if x < 0 or y < 0 or x + w > width or y + h > height:
        raise InputError(
            f"the box {x:g},{y:g},{w:g},{h:g} does not lie inside the frame, which is {width} x {height} pixels: "
            f"x + w may be at most {width}, y + h at most {height}."
        )


def check_places(video: Path, out: Path, table: Path, overwrite: bool) -> None:
    if out.suffix == "" or out.suffix.lower() == ".csv":
        raise InputError(f"--out needs the ending of a video, such as {out.stem or 'out'}.mp4; got '{out}'.")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent} to write {out.name} to.")
    if out.exists() and video.exists() and out.samefile(video):
        raise InputError(f"--out is the video itself ({video}); give another name.")
    for path in (out, table):
        if path.is_dir():
            raise InputError(f"{path} is a folder. Give another --out.")
        if path.exists() and not overwrite:
            raise InputError(f"{path} is there already. Give another --out, or --overwrite.")


# ---- writing --------------------------------------------------------------------------------------------------------


def drawn(picture: np.ndarray, tracked: Tracked) -> np.ndarray:
    """The frame with box and score: a line as thick as 1/200 of the frame, green, or orange when not present."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    pen, colour = ImageDraw.Draw(image), PRESENT if tracked.present else ABSENT
    thick = max(2, round(max(image.size) / 200))
    x, y, w, h = tracked.box
    pen.rectangle((x, y, x + max(w, 1) - 1, y + max(h, 1) - 1), outline=colour, width=thick)
    text = f"{tracked.score:.2f}" if tracked.present else "absent"
    size = max(10, min(image.size) // 25)
    pen.text((max(x, 0), max(y - 1.3 * size, 0)), text, fill=colour, font_size=size)
    return np.asarray(image)


Write = Callable[[np.ndarray, list[Any]], None]
"""Called as write(picture, row of the table)."""
COLUMNS = ("frame", "x", "y", "w", "h", "score", "present")


def _row(frame: int, tracked: Tracked) -> list[Any]:
    return [frame, *(f"{value:.2f}" for value in tracked.box), f"{tracked.score:.4f}", int(tracked.present)]


@contextmanager
def _output(out: Path, table: Path, first: np.ndarray, rate: Any) -> Iterator[Write]:
    """Both files grow in a hidden folder beside `out` and are renamed at the end; after an error nothing is left."""
    with _explain_errors(out), tempfile.TemporaryDirectory(prefix=".labkit-", dir=out.parent) as folder:
        video_part, table_part = Path(folder, f"video{out.suffix}"), Path(folder, "boxes.csv")
        with open(table_part, "w", newline="") as file, encoder(video_part, out, first, rate) as encode:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(COLUMNS)

            def write(picture: np.ndarray, row: list[Any]) -> None:
                encode(picture)
                rows.writerow(row)

            yield write
        for part in (video_part, table_part):
            with open(part, "rb") as whole:
                os.fsync(whole.fileno())
        os.replace(video_part, out)
        os.replace(table_part, table)


@contextmanager
def encoder(part: Path, out: Path, first: np.ndarray, rate: Any) -> Iterator[Callable[[np.ndarray], None]]:
    """Encodes frames into the file `part`: H.264 as browsers and QuickTime play it, where there is an encoder."""
    av = _av()
    height, width = first.shape[:2]
    streamable = {"movflags": "faststart"} if out.suffix.lower() in (".mp4", ".m4v", ".mov") else {}
    try:
        sink = av.open(_address(part), "w", options=streamable)
        stream = sink.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", rate=rate)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        raise InputError(f"{out} cannot be written ({_reason(error)}). A name ending in .mp4 or .mkv works.") from None
    # chroma is stored at half size: both sides must be even, so the last row or column may be doubled
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    with sink:

        def encode(picture: np.ndarray) -> None:
            even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

        yield encode
        sink.mux(stream.encode())


# ---- progress -------------------------------------------------------------------------------------------------------


@contextmanager
def silent() -> Iterator[Show]:
    yield lambda done, total: None
