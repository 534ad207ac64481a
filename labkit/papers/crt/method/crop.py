"""Search images: a square of the frame, resampled to a fixed size, and the exact way back.

All coordinates are continuous: pixel i covers [i, i + 1), in frames and in crops alike.  That is what
`align_corners=False` means, so no half pixel is lost between a box in the frame and its place in the crop (a
rounding there looks like a slow drift of the tracker).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError


class View(NamedTuple):
    """Squares of `side` frame pixels around `centre`, each shown as `size` x `size` crop pixels."""

    centre: Float[Tensor, "batch 2"]
    """x, y in frame pixels."""
    side: Float[Tensor, " batch"]
    size: int

    def to_frame(self, points: Float[Tensor, "batch n 2"]) -> Float[Tensor, "batch n 2"]:
        """Points of the crop (x, y in crop pixels) as points of the frame."""
        return self.centre[:, None] + (points - self.size / 2) * (self.side / self.size)[:, None, None]

    def to_crop(self, points: Float[Tensor, "batch n 2"]) -> Float[Tensor, "batch n 2"]:
        """The inverse of `to_frame`."""
        return (points - self.centre[:, None]) * (self.size / self.side)[:, None, None] + self.size / 2


def crop(
    frames: Sequence[np.ndarray], view: View, angle: float = 0.0, mirror: bool = False
) -> Float[Tensor, "batch 3 size size"]:
    """Cut each view out of its frame with one bilinear resampling; outside of the frame its border is repeated.

    Args:
        frames: uint8 RGB (height, width, 3), one per view; they may differ in size.
        angle: turns the crop's content about its centre, in degrees, counter-clockwise.
        mirror: swaps left and right, after the turn.

    Returns:
        RGB in [0, 1].  A view more than twice as large as the crop is averaged first, so that nothing aliases [ours].
    """
    if len(frames) != len(view.side):
        raise InputError(f"there must be one frame per view; got {len(frames)} frames and {len(view.side)} views")
    device = view.centre.device
    places = torch.cat([view.centre, view.side[:, None]], 1).tolist()
    if device.type == "cuda" and len({f.shape for f in frames}) == 1 and float(view.side.max()) < 2 * view.size:
        whole = torch.from_numpy(np.stack(frames)).to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        return _sample(whole, torch.tensor(places, device=device), view.size, angle, mirror)
    pieces = [
        _cut(frame, (position[0], position[1], position[2]), view.size, angle, mirror, device)
        for frame, position in zip(frames, places, strict=True)
    ]
    return torch.cat(pieces)


def _cut(
    frame: np.ndarray, position: tuple[float, float, float], size: int, angle: float, mirror: bool, device: torch.device
) -> Tensor:
    """One crop from the part of the frame that it needs.

    Converting a whole large frame would cost more than the rest.
    """
    x, y, side = position
    reach = side / 2 * (math.sqrt(2) if angle else 1) + 2
    rows, columns = frame.shape[:2]
    left, right = _span(x - reach, x + reach, columns)
    top, bottom = _span(y - reach, y + reach, rows)
    window = torch.from_numpy(np.ascontiguousarray(frame[top:bottom, left:right])).to(device)
    window = window.permute(2, 0, 1)[None].float() / 255
    x, y, block = x - left, y - top, int(side // size)
    if block >= 2:
        fill = (-window.shape[3] % block, -window.shape[2] % block)
        window = F.avg_pool2d(F.pad(window, (0, fill[0], 0, fill[1]), mode="replicate"), block)
        x, y, side = x / block, y / block, side / block
    return _sample(window, torch.tensor([[x, y, side]], device=device), size, angle, mirror)


def _span(low: float, high: float, end: int) -> tuple[int, int]:
    """Whole pixels that cover [low, high], inside of 0..end and never empty."""
    first = min(max(math.floor(low), 0), end - 1)
    return first, min(max(math.ceil(high), first + 1), end)


def _sample(images: Tensor, places: Tensor, size: int, angle: float, mirror: bool) -> Tensor:
    """places: x, y, side in pixels of `images`.

    Normalized coordinates run from -1 at the first edge to 1 at the last.
    """
    extent = torch.tensor([images.shape[3], images.shape[2]], device=images.device, dtype=images.dtype)
    turn = math.radians(angle)
    rotation = torch.tensor(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], device=images.device, dtype=images.dtype
    )
    if mirror:
        rotation = rotation * torch.tensor([-1.0, 1.0], device=images.device)
    linear = rotation * places[:, 2, None, None] / extent[:, None]
    shift = 2 * places[:, :2] / extent - 1
    grid = F.affine_grid(torch.cat([linear, shift[..., None]], 2), [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
