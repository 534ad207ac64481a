"""Videos from files as the evaluation needs them: 4:2:0 planes, which anchors code, and RGB, which all are judged in.

One conversion for all: BT.601, limited range, by FFmpeg's scaler with its bicubic chroma. Whoever converts otherwise
moves PSNR by up to a decibel. A source in RGB becomes 4:2:0 first: the original is what is left of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from labkit.errors import DataError
from labkit.vision.video import address, av_module

NAMED = re.compile(r"_(\d+)x(\d+)_(\d+)")
"""Size and frame rate in the name of a raw file: BasketballDrive_1920x1080_50.yuv."""
ENDINGS = (".yuv", ".y4m", ".mkv", ".mp4", ".avi", ".mov", ".webm")
LARGEST = 8192


@dataclass(frozen=True, eq=False)
class Video:
    """planes: each frame's Y over U and V, as PyAV holds yuv420p. rate: frames a second."""

    name: str
    planes: UInt8[np.ndarray, "time rows width"]
    rate: float = 25.0

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.planes.shape[1] * 2 // 3, self.planes.shape[2]

    @property
    def rgb(self) -> Float[Tensor, "time 3 height width"]:
        """Frames in [0, 1]: the original that coded frames are compared with."""
        return to_rgb(self.planes)


def to_rgb(planes: UInt8[np.ndarray, "time rows width"]) -> Float[Tensor, "time 3 height width"]:
    """4:2:0 to RGB in [0, 1]."""
    av = av_module()
    frames = [
        av.VideoFrame.from_ndarray(np.ascontiguousarray(p), format="yuv420p").to_ndarray(format="rgb24") for p in planes
    ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


def from_rgb(name: str, frames: Float[Tensor, "time 3 height width"], rate: float = 25.0) -> Video:
    """A video from RGB frames in [0, 1]; an odd last row or column is left out, since chroma has half the size."""
    av = av_module()
    height, width = (side // 2 * 2 for side in frames.shape[2:])
    pixels = (frames[:, :, :height, :width] * 255).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    planes = [
        av.VideoFrame.from_ndarray(np.ascontiguousarray(p), format="rgb24").to_ndarray(format="yuv420p")
        for p in pixels.numpy()
    ]
    return Video(name, np.stack(planes), rate)


def read(path: Path, frames: int = 0) -> Video:
    """The first `frames` of a file, 0: all.

    A raw .yuv is 8-bit 4:2:0 and tells its size and rate in its name. Everything else says what it is.

    Raises:
        DataError: no such file, a name without a size, or something that is no video; names the file.
    """
    try:
        planes = np.stack([*_raw(path, frames)] if path.suffix == ".yuv" else [*_decoded(path, frames)])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a video ({error}).") from None
    if path.suffix == ".yuv":
        return Video(path.stem, planes, float(_named(path)[2]))
    return Video(path.stem, planes, _rate(path))


def _named(path: Path) -> tuple[int, int, int]:
    """Width, height and rate from a file's name."""
    match = NAMED.search(path.name)
    if match is None:
        raise DataError(
            f"the name of {path} does not tell its size and rate, as in NAME_1920x1080_50.yuv. Rename it, or use .y4m."
        )
    width, height, rate = map(int, match.groups())
    if not (2 <= width <= LARGEST and 2 <= height <= LARGEST) or width % 2 or height % 2:
        raise DataError(
            f"{path} is 4:2:0: width and height must be even and at most {LARGEST}; its name says {width} x {height}."
        )
    return width, height, rate


def _raw(path: Path, frames: int) -> Iterator[np.ndarray]:
    width, height, _ = _named(path)
    size = width * height * 3 // 2
    total = path.stat().st_size
    if not total or total % size:
        raise DataError(
            f"{path} has {total:,} bytes, no whole number of frames of {width} x {height} in 8-bit 4:2:0 "
            f"({size:,} bytes each)."
        )
    with path.open("rb") as stream:
        for _ in range(min(frames, total // size) if frames else total // size):
            yield np.frombuffer(stream.read(size), np.uint8).reshape(height * 3 // 2, width)


def _decoded(path: Path, frames: int) -> Iterator[np.ndarray]:
    av = av_module()
    if not path.is_file():
        raise DataError(f"there is no video {path}.")
    try:
        with av.open(address(path)) as source:
            if not source.streams.video:
                raise DataError(f"{path} holds no video.")
            stream = source.streams.video[0]
            width, height = (getattr(stream, side, 0) for side in ("width", "height"))  # without a codec: no sides
            if not (2 <= width <= LARGEST and 2 <= height <= LARGEST) or width % 2 or height % 2:
                raise DataError(f"{path} is {width} x {height}: sides must be even numbers from 2 to {LARGEST}.")
            for number, frame in enumerate(source.decode(video=0)):
                if frames and number == frames:
                    break
                if (frame.width, frame.height) != (width, height):
                    raise DataError(f"{path} changes its size at frame {number}.")
                yield (frame if frame.format.name == "yuv420p" else frame.reformat(format="yuv420p")).to_ndarray()
    except av.FFmpegError as error:
        raise DataError(f"{path} cannot be read as a video ({error}).") from None


def _rate(path: Path) -> float:
    with av_module().open(address(path)) as source:
        rate = source.streams.video[0].average_rate
        return float(rate) if rate else 25.0
