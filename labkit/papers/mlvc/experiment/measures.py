"""Quality of coded video: PSNR of RGB and of luma, MS-SSIM.

Frames are RGB in [0, 1] unless said. Sequences are judged frame by frame and averaged, as the field does: the mean of
the frames' PSNR is not the PSNR of the mean error.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Frames = Float[Tensor, "frames 3 height width"]
LUMA = (0.299, 0.587, 0.114)
"""BT.601, for every size of frame, as the official evaluation converts.  [official code]"""
SMALLEST_FOR_MS_SSIM = 161
"""Sides that five scales with a window of 11 need."""


def psnr(mse: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """10 log10(255^2 / mse), mse on the scale 0..255; 100 dB where nothing differs."""
    return 10 * torch.log10(255**2 / mse.clamp_min(255**2 * 1e-10))


def rgb_psnr(frames: Frames, coded: Frames) -> Float[Tensor, " frames"]:
    """PSNR of each frame over its three channels; both sides are rounded to 8 bits first.  [official code]"""
    return psnr((_eight_bits(frames) - _eight_bits(coded)).square().flatten(1).mean(1))


def luma_psnr(frames: Frames, coded: Frames) -> Float[Tensor, " frames"]:
    """PSNR of each frame's luma, unrounded BT.601 of the 8-bit RGB."""
    weights = frames.new_tensor(LUMA)[:, None, None]
    y, z = ((_eight_bits(x) * weights).sum(1) for x in (frames, coded))
    return psnr((y - z).square().flatten(1).mean(1))


def ms_ssim(frames: Frames, coded: Frames) -> Float[Tensor, " frames"] | None:
    """Multi-scale structural similarity of each frame, by torchmetrics; None where a side is below 161 pixels.

    A side that small leaves less than the window at the fifth scale: there is no value, rather than one from another
    number of scales.
    """
    if min(frames.shape[2:]) < SMALLEST_FOR_MS_SSIM:
        return None
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    pairs = zip(_eight_bits(frames) / 255, _eight_bits(coded) / 255, strict=True)
    return torch.stack([measure(b[None], a[None], data_range=1.0) for a, b in pairs])


def _eight_bits(frames: Frames) -> Frames:
    return (frames * 255).clamp(0, 255).round()
