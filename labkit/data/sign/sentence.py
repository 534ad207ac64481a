"""A signed sentence: frames, the glosses that a person wrote down, and key points where there are any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from labkit.data.pictures import read_picture
from labkit.errors import DataError

Frames = UInt8[np.ndarray, "time height width 3"]
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


@dataclass(frozen=True, eq=False)
class Sentence:
    """One sentence.

    frames: RGB in memory, or a folder of pictures or a video file that `read_frames` opens. points: (time, K, 2), each
    point (column, row) as shares of the width and the height, as pose estimators give them; None without.
    text: the spoken-language translation, where the corpus has one.
    """

    name: str
    signer: str
    glosses: tuple[str, ...]
    frames: Frames | Path
    points: Float32[np.ndarray, "time points 2"] | None = None
    text: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_frames(sentence: Sentence, size: int = 0) -> Frames:
    """All frames of a sentence, resized to size x size pixels when `size` is given.

    Raises:
        DataError: no frames, a damaged one, or frames of several sizes; names the sentence.
    """
    source = sentence.frames
    if isinstance(source, Path):
        pictures = video_frames(source, size) if source.suffix.lower() in VIDEOS else folder_frames(source, size)
    else:
        pictures = [resized(frame, size) for frame in source]
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1:
        raise DataError(f"{sentence.name}: frames of {len(shapes)} sizes; a sentence's frames are all of one.")
    return np.stack(pictures)


def frame_count(sentence: Sentence) -> int:
    """How many frames a sentence has; a video that does not say so is decoded for it.

    Raises:
        DataError: there are none.
    """
    source = sentence.frames
    if not isinstance(source, Path):
        return len(source)
    if source.suffix.lower() in VIDEOS:
        return _announced(source) or len(video_frames(source, 8))
    return len(_pictures(source))


def folder_frames(folder: Path, size: int = 0) -> list[np.ndarray]:
    """The pictures of a folder in the order of their names.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    return [resized(np.asarray(read_picture(path, "Copy it again.")), size) for path in _pictures(folder)]


def _pictures(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES) if folder.is_dir() else []
    if not paths:
        raise DataError(f"{folder} holds no pictures ({', '.join(PICTURES)}), and one a frame is expected.")
    return paths


def video_frames(path: Path, size: int = 0) -> list[np.ndarray]:
    """The frames of a video file.

    Raises:
        DataError: it cannot be read, has no frame, or PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise DataError("reading videos needs PyAV. Get it: pip install 'labkit[video]'") from None
    if not path.is_file():
        raise DataError(f"there is no video {path}.")
    pictures: list[np.ndarray] = []
    try:
        with av.open(f"file:{path.absolute()}") as source:  # a bare name such as tcp:1.mp4 would be an address
            for frame in source.decode(video=0):
                pictures.append(resized(frame.to_ndarray(format="rgb24"), size))
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise DataError(f"{path} cannot be read as a video beyond {len(pictures)} frames ({error}).") from None
    if not pictures:
        raise DataError(f"{path} holds no frame.")
    return pictures


def _announced(path: Path) -> int:
    """Frames that a video's header announces; 0 where it does not tell, or cannot be read: decoding says why."""
    try:
        import av
    except ImportError:
        return 0
    try:
        with av.open(f"file:{path.absolute()}") as source:
            return source.streams.video[0].frames
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return 0


def frame_rate(path: Path) -> float:
    """Frames a second of a video; 25 where the file does not tell."""
    import av

    with av.open(f"file:{path.absolute()}") as source:
        rate = source.streams.video[0].average_rate
    return float(rate) if rate else 25.0


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """A square of size x size, bilinear, by area when it gets smaller; 0: as it is."""
    if not size or picture.shape[:2] == (size, size):
        return picture
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))


def vocabulary(sentences: Sequence[Sentence]) -> tuple[str, ...]:
    """All glosses, in alphabetical order."""
    return tuple(sorted({gloss for sentence in sentences for gloss in sentence.glosses}))
