"""Detect the actions in a video file; write the video with tubes drawn in, and the tubes as CSV."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit.errors import InputError
from labkit.files import given_path
from labkit.metrics.detection import Tube
from labkit.metrics.detection.tables import tubes_as_text
from labkit.papers.lstr.experiment.detector import Detector
from labkit.tracking.video import Show, check_places, encoder, silent
from labkit.vision.video import explain_errors, opened, pictures, rate

COLORS = ((31, 111, 180), (217, 119, 6), (46, 125, 50), (192, 57, 43), (127, 63, 191), (0, 150, 136))
"""Of tubes, by label."""
SHOWN = 3
"""Labels written on one box at most: tubes that lie on each other share it."""
Bar = Callable[[], AbstractContextManager[Show]]


@dataclass(frozen=True)
class Report:
    """frames: seen. tubes: found. by_label: how many of each."""

    frames: int
    tubes: int
    by_label: dict[str, int]


def detect(
    video: Path,
    out: Path,
    detector: Detector,
    least: float = 0.3,
    most: int = 5,
    overwrite: bool = False,
    show: Bar = silent,
) -> Report:
    """Read the video twice: to detect, then to draw. `out` and its CSV appear together, when both are whole.

    Raises:
        InputError: before anything is written: a video that cannot be read, an output that is there already or is of no
            known kind, numbers out of range.
        RunError: the output's folder cannot be written, or is full; nothing is left behind.
    """
    if not 0 <= least <= 1 or most < 1:
        raise InputError(f"--least lies between 0 and 1, --most is at least 1; got {least} and {most}.")
    out = given_path(out, "--out")
    table = given_path(out.with_suffix(".csv"), "--out")
    check_places(video, out, table, overwrite)
    counter = itertools.count()
    with opened(video) as (source, stream), show() as advance:
        frames = _counted(pictures(source, stream, video), counter, advance, int(stream.frames or 0))
        tubes = detector(frames, name=video.name, least=least, most=most)
    count = next(counter)
    with explain_errors(out), tempfile.TemporaryDirectory(prefix=".labkit-", dir=out.parent) as folder:
        video_part, table_part = Path(folder, f"video{out.suffix}"), Path(folder, "tubes.csv")
        _draw_all(video, video_part, out, tubes, detector.classes)
        table_part.write_text(tubes_as_text(tubes, detector.classes))
        for part in (video_part, table_part):
            with open(part, "rb") as whole:
                os.fsync(whole.fileno())
        os.replace(video_part, out)
        os.replace(table_part, table)
    names = [detector.classes[tube.label] for tube in tubes]
    return Report(count, len(tubes), {name: names.count(name) for name in dict.fromkeys(names)})


def _counted(frames: Iterable[np.ndarray], counter: Iterator[int], advance: Show, total: int) -> Iterator[np.ndarray]:
    for picture in frames:
        yield picture
        advance(next(counter) + 1, total)


def _draw_all(video: Path, part: Path, out: Path, tubes: Sequence[Tube], classes: Sequence[str]) -> None:
    with opened(video) as (source, stream):
        frames = pictures(source, stream, video)
        first = next(frames)
        with encoder(part, out, first, rate(stream)) as encode:
            for number, picture in enumerate(itertools.chain([first], frames)):
                encode(drawn(picture, tubes, number, classes))


def drawn(picture: np.ndarray, tubes: Sequence[Tube], frame: int, classes: Sequence[str]) -> np.ndarray:
    """The frame with the boxes of all tubes that are in it, each with its class and score."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    pen, thick = ImageDraw.Draw(image), max(1, round(max(image.size) / 250))
    size = max(8, min(image.size) // 28)
    here = [(tube.boxes[frame - tube.start], tube) for tube in tubes if tube.start <= frame < tube.end]
    for number, (box, tube) in enumerate(here[::-1]):  # the best on top
        color = COLORS[tube.label % len(COLORS)]
        x1, y1, x2, y2 = box.tolist()
        pen.rectangle((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)), outline=color, width=thick)
        beside = sum(np.abs(other - box).max() < size for other, _ in here[: len(here) - 1 - number])
        if beside < SHOWN:
            text = f"{classes[tube.label]} {tube.score:.2f}"
            pen.text((max(x1, 0), max(y1 - (1.2 + 1.1 * beside) * size, 0)), text, fill=color, font_size=size)
    return np.asarray(image)
