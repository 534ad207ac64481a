"""Augmentation of the first frame, so that both stages learn more than one view of the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labkit.papers.crt.method.crop import View, crop
from labkit.papers.crt.method.features import Features, Maps


@dataclass(frozen=True)
class Augmentation:
    """One transformation of the first frame.

    shift: in targets; angle: in degrees; blur: its sigma across and down, in pixels.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    pixels: tuple[float, float] = (0.0, 0.0)  # a shift in pixels of the search image
    angle: float = 0.0
    mirror: bool = False
    light: float = 1.0
    blur: tuple[float, float] = (0.0, 0.0)
    dropout: float = 0.0  # share of the channels


_LIGHT = (
    Augmentation(),
    *(Augmentation(pixels=p) for p in ((12.0, 0.0), (-12.0, 0.0), (0.0, 12.0), (0.0, -12.0))),
    Augmentation(mirror=True),
    Augmentation(light=0.85),
    Augmentation(light=1.15),
)
_ATOM = (
    Augmentation(),
    Augmentation(mirror=True),
    *(Augmentation(angle=sign * a) for a in (5.0, 10.0, 20.0, 30.0, 45.0, 60.0) for sign in (1, -1)),
    *(Augmentation(blur=b) for b in ((2.0, 0.2), (0.2, 2.0), (3.0, 1.0), (1.0, 3.0), (2.0, 2.0))),
    *(Augmentation(shift=(x, y)) for x in (0.6, -0.6) for y in (0.6, -0.6)),
    *(Augmentation(dropout=0.2) for _ in range(7)),
)
AUGMENTATIONS: dict[str, tuple[Augmentation, ...]] = {"light": _LIGHT, "atom": _ATOM}
"""light [ours]: 8 views.  atom [peer code]: flip, rotations, blurs, shifts, channel dropout: 30 views."""


def augmented(
    ways: Sequence[Augmentation],
    frames: Sequence[np.ndarray],
    view: View,
    target: Float[Tensor, "batch 2"],
    features: Features,
    generator: torch.Generator,
) -> tuple[list[Maps], list[Float[Tensor, "batch 2"]]]:
    """Features of the first frame in each way, and where each target stands (crop pixels).

    A shifted view is cut out around another centre, so that no border is made up.
    """
    maps, centres = [], []
    for way in ways:
        shift = target * target.new_tensor(way.shift) + target.new_tensor(way.pixels)
        moved = view._replace(centre=view.centre - shift * (view.side / view.size)[:, None])
        crops = (crop(frames, moved, way.angle, way.mirror) * way.light).clamp(0, 1)
        if max(way.blur) > 0:
            crops = blurred(crops, way.blur)
        current = features(crops)
        if way.dropout:
            current = Maps(_dropped(current.first, way.dropout, generator), current.second)
        maps.append(current)
        centres.append(view.size / 2 + shift)
    return maps, centres


def blurred(
    crops: Float[Tensor, "batch 3 size size"], sigma: tuple[float, float]
) -> Float[Tensor, "batch 3 size size"]:
    """Gaussian blur, its sigmas across and down in pixels; the border is repeated."""
    for value, down in zip(sigma, (False, True), strict=True):
        if value <= 0:
            continue
        reach = max(1, int(3 * value + 0.5))
        at = torch.arange(-reach, reach + 1, device=crops.device, dtype=crops.dtype)
        kernel = torch.exp(-at.square() / (2 * value**2))
        kernel = (kernel / kernel.sum()).expand(3, 1, -1)
        kernel = kernel[..., None] if down else kernel[:, :, None]
        pad = (0, 0, reach, reach) if down else (reach, reach, 0, 0)
        crops = F.conv2d(F.pad(crops, pad, mode="replicate"), kernel, groups=3)
    return crops


def _dropped(maps: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Whole channels set to 0, the others scaled up."""
    keep = torch.rand(maps.shape[:2], generator=generator).to(maps.device) >= share
    return maps * keep[:, :, None, None] / (1 - share)
