"""Whole videos coded by the paper's networks and by the anchors: bits a pixel from bytes, PSNR, MS-SSIM.

Everybody codes the same frames in groups of the same length, and is judged in RGB by the same frames.
"""

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from labkit.papers.mlvc.experiment import anchors
from labkit.papers.mlvc.experiment.measures import luma_psnr, ms_ssim, rgb_psnr
from labkit.papers.mlvc.experiment.protocol import fitted
from labkit.papers.mlvc.experiment.video import Video, from_rgb
from labkit.papers.mlvc.method.codec import Codec
from labkit.papers.mlvc.method.intra import decode_intra, encode_intra
from labkit.papers.mlvc.method.network import INTRA_QP, LAMBDAS, Network
from labkit.papers.mlvc.method.references import References

Point = dict[str, Any]
PARTS = ("intra", "motion", "hyper", "residual")


def quality_of(lam: float) -> int:
    """1 to 4, for lambda 64, 40, 24, 16."""
    return LAMBDAS.index(int(lam)) + 1


def judged(frames: Float[Tensor, "time 3 height width"], coded: Float[Tensor, "time 3 height width"]) -> Point:
    """Means over frames: psnr (RGB), luma_psnr, and ms_ssim where the frames are large enough for it."""
    point: Point = {
        "psnr": float(rgb_psnr(frames, coded).mean()),
        "luma_psnr": float(luma_psnr(frames, coded).mean()),
    }
    similarity = ms_ssim(frames, coded)
    return point | ({} if similarity is None else {"ms_ssim": float(similarity.mean())})


# -- the paper's networks ---------------------------------------------------------------------------------------------


def code_really(
    codec: Codec, frames: Float[Tensor, "time 3 height width"], quality: int, gop: int, rate: float
) -> Point:
    """A file is written and decoded; every byte of it counts, headers and checksums included. I-frames come every `gop`
    frames and nowhere else.

    Returns:
        `judged`, bpp, and under "parts" the bits a pixel of each stream; "frame_bytes" of each frame.
    """
    sink = io.BytesIO()
    report = codec.write(sink, as_arrays(frames), quality, gop=gop, rate=rate, adaptive=False)
    decoded = as_tensor(codec.decode(sink.getvalue()))
    pixels = len(report.frames) * report.height * report.width
    parts = dict.fromkeys(PARTS, 0.0)
    for frame in report.frames:
        names = ("intra",) if frame.kind == "I" else ("motion", "hyper", "residual")
        for name, size in zip(names, frame.streams, strict=False):
            parts[name] += 8 * size / pixels
    return judged(frames, decoded) | {
        "bpp": report.bits_per_pixel, "parts": parts, "frame_bytes": [frame.bytes for frame in report.frames],
    }  # fmt: skip


@torch.no_grad()
def code_estimated(network: Network, frames: Float[Tensor, "time 3 height width"], quality: int, gop: int) -> Point:
    """As the official evaluation does: nothing is written but the I-frame; P-frames cost -log2 p of the float networks.

    Frames are padded inside; bits of the padding count, its error does not.
    """
    device = next(network.parameters()).device
    time, _, height, width = frames.shape
    padded = torch.nn.functional.pad(frames, (0, -width % 64, 0, -height % 64), mode="replicate").to(device)
    totals, shown, sizes = dict.fromkeys(PARTS, 0.0), [], []
    references: References | None = None
    for t in range(time):
        if references is None or t % gop == 0:
            stream = encode_intra(as_arrays(padded[t : t + 1])[0], INTRA_QP[quality - 1])
            references = References.start(as_tensor([decode_intra(stream, *padded.shape[2:])]).to(device))
            bits = {"intra": 8.0 * len(stream)}
        else:
            coded = network(padded[t : t + 1], references, quantization="round")
            references = references.push(coded.reconstruction, coded.flow)
            bits = {name: float(getattr(coded.bits, name)) for name in PARTS[1:]}
        shown.append(references.frames[0, 0, :, :height, :width].cpu())
        sizes.append(sum(bits.values()) / 8)
        for name, value in bits.items():
            totals[name] += value / (time * height * width)
    return judged(frames, torch.stack(shown)) | {
        "bpp": sum(totals.values()), "parts": totals, "frame_bytes": sizes,
    }  # fmt: skip


def as_arrays(frames: Float[Tensor, "time 3 height width"]) -> list[UInt8[np.ndarray, "height width 3"]]:
    """From tensors in [0, 1] to what the codec takes."""
    pixels = (frames * 255).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [np.ascontiguousarray(picture) for picture in pixels]


def as_tensor(pictures: Sequence[UInt8[np.ndarray, "height width 3"]]) -> Float[Tensor, "time 3 height width"]:
    """The way back."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def code_video(
    networks: Mapping[float, Network], codec: Codec, video: Video, gop: int, fit: str, bits: str
) -> list[Point]:
    """One video at every trade-off, from the largest lambda to the smallest: from few bits to many."""
    frames = fitted(video.rgb, fit)
    points = []
    for lam in sorted(networks, reverse=True):
        quality = quality_of(lam)
        point = (
            code_really(codec, frames, quality, gop, video.rate)
            if bits == "real"
            else code_estimated(networks[lam], frames, quality, gop)
        )
        points.append({"lambda": lam} | point)
    return points


# -- anchors ----------------------------------------------------------------------------------------------------------


def code_anchor(name: str, video: Video, gop: int) -> list[Point]:
    """One video by x264 or x265 at every rate factor, from few bits to many."""
    points = []
    for factor in sorted(anchors.ANCHORS[name].factors, reverse=True):
        coded = anchors.code(video, name, factor, gop)
        points.append({"factor": factor, "bpp": coded.bits_per_pixel, "frame_bytes": coded.bytes}
                      | judged(video.rgb, coded.frames))  # fmt: skip
    return points


def predictors(video: Video) -> dict[str, float]:
    """PSNR of a frame predicted from the original one before it, with no bit sent.

    copy: that frame. warp: moved by the flow of OpenCV's DIS, where OpenCV is installed.
    """
    frames = video.rgb
    ways = {"copy": anchors.copied} | ({"warp": anchors.warped} if find_spec("cv2") else {})
    return {name: float(rgb_psnr(frames[1:], predict(frames)).mean()) for name, predict in ways.items()}


def protocol_effects(video: Video, gops: Sequence[int] = (12, 100), anchor: str = "x265-veryfast") -> dict[str, Any]:
    """What choices of protocol do to the curve of one anchor: nothing is coded better, and yet the curves move.

    Returns:
        {"gop-12": points, "gop-100": points, "crop": points, "rescale": points}; the last two with the first group
        length, the source cropped to or shrunk to multiples of 64.
    """
    curves = {f"gop-{gop}": code_anchor(anchor, video, gop) for gop in gops}
    for fit in ("crop", "rescale"):
        source = from_rgb(f"{video.name}, {fit}", fitted(video.rgb, fit), video.rate)
        curves[fit] = code_anchor(anchor, source, gops[0])
    return curves
