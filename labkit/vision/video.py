"""Videos by PyAV (FFmpeg): opened with errors in the user's words, frame after frame, whatever the file is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import InputError, RunError
from labkit.files import given_path


def av_module() -> Any:
    try:
        import av
    except ImportError:
        raise InputError("videos need PyAV, which is not installed. Get it: pip install 'labkit[video]'") from None
    return av


@contextmanager
def opened(video: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream."""
    av = av_module()
    if not given_path(video, "VIDEO").is_file():
        raise InputError(f"there is no video {video}.")
    try:
        source = av.open(address(video))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{video} cannot be read as a video ({reason(error)}).") from None
    with source:
        if not source.streams.video:
            raise InputError(
                f"{video} holds no video stream, only {', '.join(s.type for s in source.streams) or 'nothing'}."
            )
        stream = source.streams.video[0]
        stream.thread_type = "AUTO"
        yield source, stream


def pictures(
    source: Any, stream: Any, video: Path, at: Callable[[float], None] = lambda seconds: None
) -> Iterator[np.ndarray]:
    """RGB frames, turned the way a player shows them. Damage in the middle of a file ends it with an error.

    at: is called with the time of each frame, where the file tells it.
    """
    av = av_module()
    count = 0
    try:
        for frame in source.decode(stream):
            if frame.time is not None:
                at(frame.time)
            picture = frame.to_ndarray(format="rgb24")
            yield np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90))) if frame.rotation else picture
            count += 1
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{video} cannot be decoded beyond {count} frames ({reason(error)}); with --frames you stop before that."
        ) from None


def rate(stream: Any) -> Any:
    """Frames a second; 25 where the file does not tell."""
    return stream.average_rate or stream.guessed_rate or 25


def address(path: Path) -> str:
    """The file for FFmpeg, which would take `tcp:1.mp4` or `pipe:1.mp4` for something else than a file's name."""
    return f"file:{path.absolute()}"


def reason(error: Exception) -> str:
    return str(error).partition("]")[2].split(":")[0].strip() or str(error)


@contextmanager
def explain_errors(out: Path) -> Iterator[None]:
    """The system's error as a sentence with the way out. FFmpeg's errors of writing are the system's."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {out}: {error.strerror or error}. Nothing was left there: free space or choose another "
            "folder, then repeat."
        ) from error
