"""Choices of an evaluation that move the curves: how a frame is made to fit, how long a group is, which bits count.

A codec with a stride of 64 cannot code 1080 lines. It may pad (and drop the padding after decoding), crop (and be
judged on less), or rescale. Rescaling takes the finest detail from the source that it is then judged by: higher PSNR,
fewer bits, without any better coding. The official evaluation rescales; its anchors were not rescaled.  [official code]
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError

Fit = Literal["pad", "crop", "rescale"]
FITS: tuple[Fit, ...] = ("pad", "crop", "rescale")
STRIDE = 64
Frames = Float[Tensor, "time 3 height width"]


def fitted(frames: Frames, fit: str, stride: int = STRIDE) -> Float[Tensor, "time 3 _ _"]:
    """The source as a protocol hands it to the codec and judges the result by.

    pad: as it is; the codec pads inside and gives back this size. crop: the middle, sides multiples of `stride`.
    rescale: all of it, shrunk to multiples of `stride`, bicubic with the filter widened as FFmpeg's scaler does.

    Raises:
        InputError: another word, or a frame smaller than the stride that cannot be cropped or shrunk.
    """
    if fit not in FITS:
        raise InputError(f"fit must be one of {', '.join(FITS)}; got {fit!r}.")
    if fit == "pad":
        return frames
    height, width = (side // stride * stride for side in frames.shape[2:])
    if min(height, width) < stride:
        raise InputError(f"frames of {tuple(frames.shape[2:])} are smaller than {stride}: pad them.")
    if fit == "rescale":
        return F.interpolate(frames, (height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    top, left = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
    return frames[:, :, top : top + height, left : left + width]
