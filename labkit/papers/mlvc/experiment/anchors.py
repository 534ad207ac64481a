"""What everybody compares with: H.264 and H.265 as x264 and x265 code them for low delay, and two trivial predictors.

The settings are those of the papers' anchors, which were made with FFmpeg: zero latency, so no B-frames and no
look-ahead; constant rate factor; an I-frame every `gop` frames. Without `-preset` FFmpeg means medium; the curves of
DVC and M-LVC are veryfast. Which one a curve was made with belongs to its name.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.mlvc.experiment.video import Video, to_rgb
from labkit.vision.video import av_module


@dataclass(frozen=True)
class Anchor:
    """library: libx264 or libx265. factors: constant rate factors, from the best quality to the least."""

    library: str
    preset: str
    factors: tuple[int, ...]


ANCHORS = {
    "x265-veryfast": Anchor("libx265", "veryfast", (15, 19, 23, 27, 31)),
    "x265-medium": Anchor("libx265", "medium", (15, 19, 23, 27, 31)),
    "x264-veryfast": Anchor("libx264", "veryfast", (15, 19, 23, 27, 31)),
    "x264-medium": Anchor("libx264", "medium", (15, 19, 23, 27, 31)),
}
"""Rate factors 15 to 27 are those of DVC's curves [recalled], 19 to 31 of its reimplementation [peer code]."""


@dataclass(frozen=True, eq=False)
class Coded:
    """frames: decoded, RGB in [0, 1]. bytes: of each frame's packets, in order; headers stand with the first."""

    frames: Float[Tensor, "time 3 height width"]
    bytes: list[int]

    @property
    def bits_per_pixel(self) -> float:
        time, _, height, width = self.frames.shape
        return 8 * sum(self.bytes) / (time * height * width)


def code(video: Video, anchor: str | Anchor, factor: int, gop: int) -> Coded:
    """Code and decode with an anchor.  Its packets are counted, not a container around them.

    Raises:
        InputError: no such anchor, or a PyAV without it; a group below 1.
    """
    if isinstance(anchor, str):
        if anchor not in ANCHORS:
            raise InputError(f"there is no anchor '{anchor}'; there are {', '.join(ANCHORS)}.")
        anchor = ANCHORS[anchor]
    if gop < 1:
        raise InputError(f"gop, frames from one I-frame to the next, must be at least 1; got {gop}.")
    encoder = _encoder(anchor, factor, gop, video)
    packets = []
    for planes in video.planes:
        packets += encoder.encode(_picture(planes))
    packets += encoder.encode(None)
    decoder = av_module().CodecContext.create("hevc" if anchor.library == "libx265" else "h264", "r")
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    planes = np.stack([frame.to_ndarray() for frame in decoded])
    return Coded(to_rgb(planes), [packet.size for packet in packets])


def _encoder(anchor: Anchor, factor: int, gop: int, video: Video) -> Any:
    av = av_module()
    try:
        context = av.CodecContext.create(anchor.library, "w")
    except (av.FFmpegError, ValueError):
        raise InputError(f"this PyAV was built without {anchor.library}.") from None
    context.height, context.width = video.size
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, max(1, round(video.rate)))
    context.thread_count, context.gop_size = 1, gop
    options = {"preset": anchor.preset, "tune": "zerolatency", "crf": str(factor)}
    if anchor.library == "libx265":  # info=0: no kilobyte of settings in front of a short clip
        # one thread of each kind, so that the same clip makes the same bytes
        options["x265-params"] = f"keyint={gop}:info=0:log-level=none:pools=none:frame-threads=1"
    else:
        options |= {"sc_threshold": "0", "x264-params": "log-level=none"}
    context.options = options
    return context


def _picture(planes: np.ndarray) -> Any:
    return av_module().VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv420p")


def copied(frames: Float[Tensor, "time 3 height width"]) -> Float[Tensor, "rest 3 height width"]:
    """The least a predictor can do: the frame before, for frames 1 on."""
    return frames[:-1]


def warped(frames: Float[Tensor, "time 3 height width"]) -> Float[Tensor, "rest 3 height width"]:
    """The frame before, moved by the flow that OpenCV's DIS finds; no residual, no bits.

    Raises:
        InputError: OpenCV is not installed.
    """
    from labkit.kernels.flow_warp import warp
    from labkit.papers.mlvc.method.motion_estimation import motion_estimator

    with torch.no_grad():
        return warp(frames[:-1], motion_estimator("dis")(frames[1:], frames[:-1]))
