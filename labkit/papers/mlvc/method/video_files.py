"""Video files to coded files and back, a frame at a time."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import InputError
from labkit.files import given_path, growing
from labkit.papers.mlvc.method.codec import Codec, Report, Shown
from labkit.papers.mlvc.method.container import Data, FileBytes, read_header
from labkit.vision.video import address, av_module, explain_errors, opened, pictures, rate, reason

Watch = Callable[[Iterable[Any], int | None], Iterable[Any]]
"""Wraps an iteration over so many frames (None: nobody knows) in a progress bar."""
MOST_FRAMES = 2**24 - 1
ENDING = ".mlvc"


@dataclass(frozen=True)
class Decoded:
    """frames: written. concealed: of these, how many repeat the one before. problem: the first reason for it."""

    frames: int
    concealed: int
    problem: str


def encode_file(
    codec: Codec,
    video: Path,
    out: Path,
    quality: int = 2,
    *,
    gop: int = 12,
    frames: int = 0,
    overwrite: bool = False,
    watch: Watch = lambda items, total: items,
) -> tuple[Report, list[str]]:
    """Code the first `frames` of a video (0: all) into `out`, which appears when it is whole.

    Returns:
        What was written, and what of the video did not come along: sound, an alpha channel, bits beyond 8, frame times
        that vary.

    Raises:
        InputError: before anything is written: a video that cannot be read or holds no frame, an `out` that is there
            already or has another ending, a quality that the codec does not have.
        RunError: the folder cannot be written, or is full; nothing is left behind.
    """
    if not 0 <= frames <= MOST_FRAMES:
        raise InputError(f"--frames lies between 0 (all) and {MOST_FRAMES:,}; got {frames}.")
    out = _free(out, video, overwrite)
    if out.suffix.lower() != ENDING:
        raise InputError(f"OUT needs the ending {ENDING}, which no player takes for something else; got '{out}'.")
    with opened(video) as (source, stream):
        times = _Times()
        shown = itertools.islice(pictures(source, stream, video, times.add), frames or None)
        first = next(shown, None)
        if first is None:
            raise InputError(f"{video} holds no frame that can be decoded.")
        total = min(frames or stream.frames, stream.frames) or frames or None
        speed, left_out = Fraction(rate(stream)), _left_out(source, stream)
        with explain_errors(out), growing(out) as part, open(part, "w+b") as sink:
            watched = watch(itertools.chain([first], shown), total)
            report = codec.write(sink, watched, quality, gop=gop, rate=speed)
            sink.flush()
    if times.vary:
        left_out.append(f"varying frame times ({float(speed):.4g} frames a second throughout)")
    return report, left_out


@dataclass
class _Times:
    """Gaps between the times of frames, in seconds."""

    last: float | None = None
    shortest: float = math.inf
    longest: float = 0.0

    def add(self, time: float) -> None:
        if self.last is not None:
            gap = time - self.last
            self.shortest, self.longest = min(self.shortest, gap), max(self.longest, gap)
        self.last = time

    @property
    def vary(self) -> bool:
        """Beyond what comes of times in whole milliseconds."""
        return self.longest > 1.5 * self.shortest + 0.002


def decode_file(
    codec: Codec,
    coded: Path,
    out: Path,
    *,
    conceal: bool = False,
    overwrite: bool = False,
    watch: Watch = lambda items, total: items,
) -> Decoded:
    """Decode a coded file into a video that players read: FFV1 in .mkv and .avi, which changes no pixel; H.264 else.

    Raises:
        DamagedFile, WrongModel: see `Codec.play`; nothing is written.
        InputError: an `out` that is there already, or whose ending no video has.
        RunError: the folder cannot be written, or is full; nothing is left behind.
    """
    out = _free(out, coded, overwrite)
    with opened_coded(coded) as data:
        header = read_header(data)
        if not header.frames:
            raise InputError(f"{coded} holds no frame, and a video without a frame cannot be written.")
        shown = codec.play(data, conceal=conceal)
        first = next(shown)  # errors of the first frame come before a file is begun
        size, speed = first.picture.shape[:2], Fraction(*header.rate)
        count, lost, problem = 0, 0, ""
        with explain_errors(out), growing(out) as part, _writer(part, out, size, speed) as write:
            one: Shown
            for one in watch(itertools.chain([first], shown), header.frames):
                write(one.picture)
                count, lost = count + 1, lost + bool(one.problem)
                problem = problem or one.problem
    return Decoded(count, lost, problem)


@contextmanager
def opened_coded(path: Path) -> Iterator[Data]:
    """The bytes of a coded file, which are read as they are needed; those of a pipe at once.

    Raises InputError where there is none, or it cannot be read.
    """
    with ExitStack() as files:
        try:
            stream = files.enter_context(open(given_path(path, "IN"), "rb"))
        except FileNotFoundError:
            raise InputError(f"there is no file {path}.") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
        yield FileBytes(stream) if stream.seekable() else stream.read()


def is_lossless(out: Path) -> bool:
    """Whether `decode_file` writes exactly the decoded pixels to a file of this name."""
    return out.suffix.lower() in (".mkv", ".avi")


def _free(out: Path, source: Path, overwrite: bool) -> Path:
    out = given_path(out, "OUT")
    if not out.suffix:
        raise InputError(f"OUT needs an ending, such as {out.name}{ENDING} or {out.name}.mkv; got '{out}'.")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent} to write {out.name} to.")
    if out.is_dir():
        raise InputError(f"{out} is a folder. Give another OUT.")
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"OUT is the input itself ({source}); give another name.")
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there already. Give another OUT, or --overwrite.")
    return out


def _left_out(source: Any, stream: Any) -> list[str]:
    """What of a file its RGB frames do not show, in words."""
    lost = [f"{kind} ({len(tracks)} tracks)" for kind in ("audio", "subtitles", "data")
            if (tracks := [s for s in source.streams if s.type == kind.rstrip("s") or s.type == kind])]  # fmt: skip
    more = len(source.streams.video) - 1
    lost += [f"{more} further video tracks"] if more else []
    pixels = stream.codec_context.format
    if pixels is not None and any(component.is_alpha for component in pixels.components):
        lost.append("the alpha channel")
    if pixels is not None and max(component.bits for component in pixels.components) > 8:
        lost.append(f"precision beyond 8 bits ({pixels.name})")
    return lost


@contextmanager
def _writer(part: Path, out: Path, size: tuple[int, int], speed: Fraction) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes RGB frames into the file `part`; its ending is that of `out`, which the errors name."""
    av = av_module()
    height, width = size
    lossless = is_lossless(out)
    name = "ffv1" if lossless else "libx264" if "libx264" in av.codecs_available else "mpeg4"
    streamable = {"movflags": "faststart"} if out.suffix.lower() in (".mp4", ".m4v", ".mov") else {}
    try:
        sink = av.open(address(part), "w", options=streamable)
        stream = sink.add_stream(name, rate=speed)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        raise InputError(f"{out} cannot be written ({reason(error)}). A name ending in .mkv or .mp4 works.") from None
    # H.264 stores chroma at half size: both sides must be even, so the last row or column may be doubled
    more = (0, 0) if lossless else (height % 2, width % 2)
    stream.height, stream.width, stream.pix_fmt = height + more[0], width + more[1], "bgr0" if lossless else "yuv420p"
    if name == "libx264":
        stream.options = {"crf": "12"}
    with sink:

        def write(picture: np.ndarray) -> None:
            even = np.pad(picture, ((0, more[0]), (0, more[1]), (0, 0)), mode="edge")
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

        yield write
        sink.mux(stream.encode())
