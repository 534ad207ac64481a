"""The I-frame: H.265 intra by PyAV, 4:4:4, with a colour conversion in integers of our own.

A decoder of H.265 is exact by its standard; FFmpeg's conversion from YUV to RGB is not, it differs between processors.
"""

from fractions import Fraction

import numpy as np

from labkit.errors import InputError
from labkit.papers.mlvc.method.range_coder import StreamError
from labkit.vision.video import av_module

_FORWARD = np.array([[19595, 38470, 7471], [-11058, -21710, 32768], [32768, -27439, -5329]])
"""RGB to YCbCr, BT.601, full range, in units of 2^-16."""


def to_yuv(frame: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) RGB to (3, height, width) YCbCr: BT.601, full range, integers only."""
    mixed = (np.einsum("ij,hwj->ihw", _FORWARD, frame.astype(np.int64)) + 2**15) >> 16
    mixed[1:] += 128
    return mixed.clip(0, 255).astype(np.uint8)


def to_rgb(planes: np.ndarray) -> np.ndarray:
    """The way back; a round trip is off by 1 at most."""
    y, cb, cr = (plane.astype(np.int64) for plane in planes)
    y, cb, cr = y << 16, cb - 128, cr - 128
    rgb = np.stack([y + 91881 * cr, y - 22554 * cb - 46802 * cr, y + 116130 * cb], axis=-1)
    return ((rgb + 2**15) >> 16).clip(0, 255).astype(np.uint8)


def encode_intra(frame: np.ndarray, qp: int) -> bytes:
    """One picture, uint8 RGB (height, width, 3), as an H.265 stream of its own, headers included.

    x265 works in one thread here, so that the same picture makes the same bytes on one machine.

    Raises:
        InputError: PyAV or its x265 is missing.
    """
    av = av_module()
    height, width = frame.shape[:2]
    try:
        context = av.CodecContext.create("libx265", "w")
    except (av.FFmpegError, ValueError):
        raise InputError("this PyAV was built without x265, which codes the first frame of a group.") from None
    context.width, context.height, context.pix_fmt = width, height, "yuv444p"
    context.time_base, context.color_range = Fraction(1, 25), 2
    # info=0: no kilobyte of settings in every frame. ipratio=1: the given quantiser and no better one
    params = f"qp={qp}:ipratio=1:keyint=1:info=0:log-level=none:pools=none:frame-threads=1:repeat-headers=1"
    context.options = {"preset": "medium", "tune": "zerolatency", "x265-params": params}
    picture = av.VideoFrame.from_ndarray(to_yuv(frame), format="yuv444p")
    picture.color_range = 2
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])


def decode_intra(data: bytes, height: int, width: int) -> np.ndarray:
    """The picture of `encode_intra`, which must have this size.

    Raises:
        StreamError: bytes that are not one picture of this size.
    """
    av = av_module()
    context = av.CodecContext.create("hevc", "r")
    # a hostile header could announce any size; 8 more rows and columns: FFmpeg counts in whole blocks
    context.options = {"max_pixels": str((height + 64) * (width + 64))}
    context.thread_count = 1
    try:
        frames = [*context.decode(av.Packet(data)), *context.decode(None)] if data else []
    except (av.FFmpegError, ValueError, MemoryError) as error:
        raise StreamError(f"the picture of an I-frame cannot be decoded ({type(error).__name__}).") from None
    sizes = [(frame.format.name, frame.height, frame.width) for frame in frames]
    if sizes not in ([("yuv444p", height, width)], [("yuvj444p", height, width)]):
        raise StreamError(f"an I-frame is one 4:4:4 picture of {height} x {width}; got {sizes or 'none'}.")
    return to_rgb(frames[0].to_ndarray())
