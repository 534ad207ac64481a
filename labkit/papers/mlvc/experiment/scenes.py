"""Generated scenes whose motion is known exactly: textured layers that move, cover one another, and noise on top.

Frames are what a camera would deliver, whole grey levels 0..255. The backward flow of a pixel is that of the layer seen
there: pixel p of frame t shows what frame t-1 shows at p + v_t(p), unless that was covered then.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError

Texture = Literal["smooth", "rich", "fine"]
TEXTURES: dict[Texture, tuple[tuple[int, ...], float]] = {
    "smooth": ((5, 10, 20), 1.2),
    "rich": ((10, 20, 40, 80), 0.6),
    "fine": ((10, 20, 40, 80, 160), 0.3),
}
"""Cells of each octave of noise on the canvas; octave o has amplitude 1 / (1 + decay * o)."""
COLOR = 0.4
"""Amplitude of what the channels of a texture do not share."""
UNIT = 64
"""Frame side at which radii and distances below are in pixels; larger frames show everything larger, as fast."""


@dataclass(frozen=True)
class Family:
    """A kind of scene.

    layers: 1 a moving plane; 2 and a disc in front of it; 3 and a fence of thin bars before both.
    noise: of the camera, standard deviation in grey levels; drawn anew for every pixel of every frame.
    velocity: largest speed of a layer along each axis, pixels a frame. acceleration: largest a of a t^2.
    fence: speed of the bars beside that, pixels a frame.
    """

    layers: int = 2
    texture: Texture = "smooth"
    noise: float = 2.0
    velocity: float = 1.5
    acceleration: float = 0.025
    fence: float = 3.0


FAMILIES: dict[str, Family] = {
    "disc": Family(),
    "plain": Family(layers=1),
    "fine": Family(layers=1, texture="fine"),
    "fence": Family(layers=3, texture="rich"),
}
"""disc: something is uncovered in every frame. plain, fine: nothing ever is. fence: much is, and it moves fast."""


@dataclass(frozen=True, eq=False)
class Clips:
    """frames: 0..255. flows: v_t in pixels, channel 0 along x; v_0 belongs to a frame -1 that is not there.

    layer: number of the layer that is seen, 0 the plane behind.
    """

    frames: Float[Tensor, "time clips channels height width"]
    flows: Float[Tensor, "time clips 2 height width"]
    layer: Int[Tensor, "time clips height width"]

    def __len__(self) -> int:
        return self.frames.shape[1]

    def repeated(self, times: int) -> "Clips":
        """The same clips `times` over, one after the other."""
        return Clips(*(x.repeat(1, times, *[1] * (x.dim() - 2)) for x in (self.frames, self.flows, self.layer)))

    def part(self, clips: slice) -> "Clips":
        return Clips(self.frames[:, clips], self.flows[:, clips], self.layer[:, clips])


def scenes(
    family: Family | str, count: int, frames: int, seed: int, size: int = UNIT, channels: Literal[1, 3] = 1
) -> Clips:
    """`count` scenes of a family.

    Args:
        size: side of the square frames.
        channels: 1 luma, 3 RGB.

    Raises:
        InputError: no such family, or a number below 1.
    """
    if isinstance(family, str):
        if family not in FAMILIES:
            raise InputError(f"there is no family of scenes '{family}'; there are {', '.join(FAMILIES)}.")
        family = FAMILIES[family]
    if min(count, frames) < 1 or size < 16:
        raise InputError(
            f"scenes need count and frames of 1 or more and a size of 16 or more; got {count}, {frames}, {size}."
        )
    if family.layers not in (1, 2, 3):
        raise InputError(f"a family has 1, 2 or 3 layers; got {family.layers}.")
    generator = torch.Generator().manual_seed(seed)
    canvas = size * 5 // 2
    paint = [_texture(family.texture, count, channels, canvas, generator) for _ in range(family.layers)]
    drawn = torch.rand(3, count, 6, generator=generator)
    shots = [_frame(family, t, paint, drawn, size) for t in range(frames)]
    noisy = [
        (255 * picture + family.noise * torch.randn(picture.shape, generator=generator)).clamp(0, 255).round()
        for picture, _, _ in shots
    ]
    return Clips(torch.stack(noisy), torch.stack([s[1] for s in shots]), torch.stack([s[2] for s in shots]))


def uncovered(clips: Clips) -> Float[Tensor, "time clips height width"]:
    """1 where a pixel shows what was not visible one frame before: another layer stood at p + v_t(p)."""
    time, count, height, width = clips.layer.shape
    x, y = _grid(height, width)
    source_x = (x + clips.flows[1:, :, 0]).round().long().clamp(0, width - 1)
    source_y = (y + clips.flows[1:, :, 1]).round().long().clamp(0, height - 1)
    flat = clips.layer[:-1].reshape(time - 1, count, -1)
    before = flat.gather(2, (source_y * width + source_x).reshape(time - 1, count, -1)).view(
        time - 1, count, height, width
    )
    hidden = (before != clips.layer[1:]).float()
    return torch.cat([torch.zeros_like(hidden[:1]), hidden])


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return x.float(), y.float()


def _texture(name: Texture, count: int, channels: int, side: int, generator: torch.Generator) -> Tensor:
    """(count, channels, side, side) in 0..1: octaves of random cells, each enlarged smoothly, through a sigmoid.

    Three channels share most of it: colours of things differ less than their lightness.
    """
    octaves, decay = TEXTURES[name]
    total = torch.zeros(count, channels, side, side)
    for number, cells in enumerate(octaves):
        noise = torch.randn(count, channels if channels == 1 else channels + 1, cells, cells, generator=generator)
        mixed = noise if channels == 1 else noise[:, :1] + COLOR * noise[:, 1:]
        total += F.interpolate(mixed, (side, side), mode="bicubic", align_corners=False) / (1 + decay * number)
    return torch.sigmoid(0.9 * total)


def _position(family: Family, layer: int, t: int, drawn: Tensor) -> Tensor:
    """(count, 2): where a layer stands at time t, in pixels from where it stood at 0."""
    centred = drawn[layer] - 0.5
    at = 2 * family.velocity * t * centred[:, 0:2] + 2 * family.acceleration * t * t * centred[:, 2:4]
    if layer == 2:
        at = at + torch.stack([family.fence * t * centred[:, 4].sign(), torch.zeros(len(at))], 1)
    return at


def _frame(family: Family, t: int, paint: list[Tensor], drawn: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Picture in 0..1, flow to t-1, visible layer."""
    x, y = _grid(size, size)
    scale, canvas = size / UNIT, paint[0].shape[-1]
    offset = (canvas - size) / 2
    picture = flow = layer = None
    for number, texture in enumerate(paint):
        here, before = (_position(family, number, time, drawn) for time in (t, t - 1))
        at_x, at_y = x - here[:, 0, None, None], y - here[:, 1, None, None]
        grid = torch.stack([at_x + offset, at_y + offset], -1) * 2 / (canvas - 1) - 1
        color = F.grid_sample(texture, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
        motion = (before - here)[:, :, None, None].expand(-1, 2, size, size)
        if picture is None or flow is None or layer is None:
            picture, flow, layer = color, motion, torch.zeros_like(at_x, dtype=torch.long)
            continue
        cover = _disc(at_x, at_y, drawn[1], scale) if number == 1 else _bars(at_x, scale)
        picture = picture + cover[:, None] * (color - picture)
        flow = torch.where(cover[:, None] > 0.5, motion, flow)
        layer = torch.where(cover > 0.5, number, layer)
    assert picture is not None
    assert flow is not None
    assert layer is not None
    return picture, flow, layer


def _disc(x: Tensor, y: Tensor, drawn: Tensor, scale: float) -> Tensor:
    """A disc of radius 14 near the middle, with an edge about a pixel wide."""
    middle = scale * (32 + 16 * (drawn[:, 4:6] - 0.5))
    distance = torch.hypot(x - middle[:, 0, None, None], y - middle[:, 1, None, None])
    return torch.sigmoid(2 * (14 * scale - distance))


def _bars(x: Tensor, scale: float) -> Tensor:
    """Bars 5 pixels wide, 24 apart."""
    return torch.sigmoid(2 * (2.5 * scale - (x % (24 * scale) - 12 * scale).abs()))
