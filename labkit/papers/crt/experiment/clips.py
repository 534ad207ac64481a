"""Clips with look-alikes: a textured target, rivals that share part of its texture and swing past it again and again.

The target is drawn last, so nothing ever covers it: what is measured is telling it apart, not waiting for it.  At
similarity 1 no appearance can win, only motion could; it must stay below.  Everything is drawn from one seed. [ours]
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labkit.data.tracking import Sequence
from labkit.errors import InputError


@dataclass(frozen=True)
class LookAlikes:
    """One kind of clip.  Lengths in pixels, angles in radians, times in frames."""

    frames: int = 80
    rivals: int = 4
    similarity: float = 0.8  # share of the target's texture in each rival's
    sprite: int = 24  # height of target and rivals
    aspect: float = 1.0  # width over height
    texture: int = 4  # random cells per side of a sprite's texture
    height: int = 200
    width: int = 280
    gap: float = 1.0  # closest passing distance, in sprites; from 1 on nothing touches
    speed: float = 1.0
    turn: float = 0.0  # rotation per frame
    sway: float = 0.0  # articulation: the texture's rows swing sideways by so many sprites
    zoom: float = 0.0  # the target grows and shrinks by this share
    blur: float = 0.0  # exposure, share of a frame
    light: float = 0.15  # brightness swings by this share,
    own_light: bool = False  # of each object on its own
    noise: float = 4.0  # grey levels
    clutter: float = 40.0  # contrast of the background, grey levels
    edges: int = 0  # rectangles in the background
    pan: float = 0.0  # the camera moves by so many pixels to each side
    away: tuple[int, int] = (0, 0)  # the target is absent from the first of these frames to before the second

    def __post_init__(self) -> None:
        if not 0 <= self.similarity < 1:
            raise InputError(
                f"similarity must be in [0, 1): a perfect copy cannot be told apart; got {self.similarity}"
            )
        if self.frames < 2 or self.rivals < 0 or self.sprite < 6 or self.texture < 2:
            raise InputError("need frames >= 2, rivals >= 0, sprite >= 6, texture >= 2")
        if self.away != (0, 0) and not 1 <= self.away[0] <= self.away[1] <= self.frames:
            raise InputError(f"away must lie inside the clip and leave its first frame; got {self.away}")
        if min(self.height, self.width) < 4 * self.sprite:
            raise InputError(f"the picture must be at least 4 sprites ({4 * self.sprite} pixels) high and wide")


def look_alikes(settings: LookAlikes | None = None, seed: int = 0) -> Sequence:
    """A clip with its boxes; `meta["rivals"]` holds the rivals' centres, (frames, rivals, 2), `meta["settings"]` the
    kind.
    """
    s = settings or LookAlikes()
    rng = np.random.default_rng(seed)
    base = _texture(rng, s)
    textures = [base, *(s.similarity * base + (1 - s.similarity) * _texture(rng, s) for _ in range(s.rivals))]
    paths, camera = _paths(rng, s), _camera(rng, s)
    backdrop = background(rng, s)
    phases = rng.uniform(0, 2 * math.pi, (s.rivals + 1, 3))
    sprites = [_sprite(texture, paths[i], phases[i], phases[i if s.own_light else 0, 2], i, s)
               for i, texture in enumerate(textures)]  # fmt: skip
    absent = np.zeros(s.frames, dtype=bool)
    absent[slice(*s.away)] = True
    frames = []
    for t in range(s.frames):
        row, column = camera[t]
        picture = backdrop[row : row + s.height, column : column + s.width].copy()
        for i in (*range(1, s.rivals + 1), *([] if absent[t] else [0])):
            _paste(picture, sprites[i][t], paths[i, t], s)
        picture += s.noise * rng.standard_normal(picture.shape, dtype=np.float32)
        frames.append(np.clip(picture, 0, 255).astype(np.uint8))
    size = np.array([s.sprite * s.aspect, s.sprite]) * _zoom(s, phases[0, 1])[:, None]
    boxes = np.where(absent[:, None], np.nan, np.concatenate([paths[0] - size / 2, size], 1))
    meta = {"rivals": paths[1:].transpose(1, 0, 2), "settings": s}
    return Sequence(f"look-alikes-{seed}", frames, boxes, absent, meta=meta)


def _reach(s: LookAlikes) -> int:
    """Half the side of the square in which a sprite is drawn."""
    return math.ceil(s.sprite * max(1.0, s.aspect) * (1 + s.zoom) / 2 + s.sway * s.sprite) + 3


def _texture(rng: np.random.Generator, s: LookAlikes) -> Tensor:
    """Random colours on a coarse grid, smoothly interpolated: (3, side, side) grey levels."""
    coarse = torch.from_numpy(rng.integers(0, 256, (3, s.texture, s.texture)).astype(np.float32))
    side = 2 * s.sprite
    return F.interpolate(coarse[None], (side, side), mode="bicubic", align_corners=False)[0]


def _paths(rng: np.random.Generator, s: LookAlikes) -> np.ndarray:
    """Centres (objects, frames, 2).  Each rival passes the target on a straight line, never nearer than `gap`
    sprites.
    """
    t = np.arange(s.frames, dtype=float)
    margin = 1.5 * s.sprite
    rate, phase = rng.uniform(0.03, 0.06, 2) * s.speed, rng.uniform(0, 2 * math.pi, 2)
    middle = np.array([s.width, s.height]) / 2
    target = middle + (middle - margin) * np.sin(rate * t[:, None] + phase)
    paths = [target]
    for _ in range(s.rivals):
        angle, period = rng.uniform(0, 2 * math.pi), rng.uniform(40, 80) / s.speed
        swing = rng.uniform(3, 5) * s.sprite * np.sin(2 * math.pi * t / period + rng.uniform(0, 2 * math.pi))
        offset = s.gap * s.sprite * rng.uniform(1.0, 1.6) * rng.choice([-1, 1])
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([-along[1], along[0]])
        paths.append(target + swing[:, None] * along + offset * across)
    return np.stack(paths)


def _camera(rng: np.random.Generator, s: LookAlikes) -> np.ndarray:
    """Row and column of the picture in the larger background; objects stay in picture coordinates."""
    t, phase = np.arange(s.frames), rng.uniform(0, 2 * math.pi, 2)
    swing = np.sin(0.11 * t[:, None] + phase)
    return np.round(s.pan * (1 + swing)).astype(int)


def background(rng: np.random.Generator, s: LookAlikes) -> Float[np.ndarray, "rows columns 3"]:
    """Smooth random colours and rectangles, grey levels; larger than the picture by what the camera moves."""
    extra = 2 * math.ceil(s.pan) + 1
    rows, columns = s.height + extra, s.width + extra
    coarse = torch.from_numpy(rng.normal(128, s.clutter, (3, 30, 42)).astype(np.float32))
    smooth = F.interpolate(coarse[None], (rows, columns), mode="bicubic", align_corners=False)[0]
    picture = smooth.clamp(0, 255).permute(1, 2, 0).numpy().copy()
    for _ in range(s.edges):
        y, x = rng.integers(0, rows - 8), rng.integers(0, columns - 8)
        h, w = rng.integers(6, s.sprite * 2, 2)
        picture[y : y + h, x : x + w] = 0.4 * picture[y : y + h, x : x + w] + 0.6 * rng.integers(0, 256, 3)
    return picture


def _zoom(s: LookAlikes, phase: float) -> np.ndarray:
    return 1 + s.zoom * np.sin(0.07 * np.arange(s.frames) + phase) if s.zoom else np.ones(s.frames)


def _sprite(
    texture: Tensor, path: np.ndarray, phase: np.ndarray, light: float, number: int, s: LookAlikes
) -> np.ndarray:
    """One object in each frame: (frames, side, side, 4), colours in grey levels and coverage in [0, 1].

    Exposure averages the object at three places along its motion.
    """
    reach = _reach(s)
    at = torch.arange(-reach, reach + 1, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    whole = torch.from_numpy(np.floor(path)).float()
    velocity = torch.from_numpy(np.gradient(path, axis=0)).float()
    t = torch.arange(s.frames, dtype=torch.float32)
    total = torch.zeros(s.frames, 4, 2 * reach + 1, 2 * reach + 1)
    moments = (-0.5, 0.0, 0.5) if s.blur else (0.0,)
    zoom = torch.from_numpy(_zoom(s, phase[1])).float() if number == 0 else torch.ones(s.frames)
    for moment in moments:
        offset = torch.from_numpy(path).float() - whole + moment * s.blur * velocity
        u, v = x - offset[:, 0, None, None], y - offset[:, 1, None, None]
        half = s.sprite / 2 * zoom[:, None, None]
        u = u - s.sway * s.sprite * torch.sin(0.35 * t[:, None, None] + float(phase[0])) * (v / half).clamp(-1, 1)
        u, v = u / (half * s.aspect), v / half  # [-1, 1] across the sprite
        radius = torch.sqrt(u * u + v * v)
        cover = ((1 - radius) * half + 0.5).clamp(0, 1)
        angle = (s.turn * t * (1 if number % 2 == 0 else -1))[:, None, None]
        turned = torch.stack(
            [u * torch.cos(angle) + v * torch.sin(angle), v * torch.cos(angle) - u * torch.sin(angle)], -1
        )
        colours = F.grid_sample(
            texture[None].expand(s.frames, -1, -1, -1), turned, padding_mode="border", align_corners=False
        )
        total += torch.cat([colours * cover[:, None], cover[:, None]], 1) / len(moments)
    colours = total[:, :3] / total[:, 3:].clamp_min(1e-6)
    shine = 1 + s.light * torch.sin(0.1 * t + light)
    return torch.cat([colours * shine[:, None, None, None], total[:, 3:]], 1).permute(0, 2, 3, 1).numpy()


def _paste(picture: np.ndarray, sprite: np.ndarray, centre: np.ndarray, s: LookAlikes) -> None:
    reach = _reach(s)
    left, top = math.floor(centre[0]) - reach, math.floor(centre[1]) - reach
    side = 2 * reach + 1
    rows = slice(max(top, 0), min(top + side, s.height))
    columns = slice(max(left, 0), min(left + side, s.width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    piece = sprite[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    cover = piece[..., 3:]
    picture[rows, columns] = picture[rows, columns] * (1 - cover) + piece[..., :3] * cover


PLAIN = LookAlikes(rivals=6, similarity=0.8, sprite=24)
"""The sheet's confirmed setting: seeds 10 to 17 there showed no repair by stage 2."""
WALKERS = LookAlikes(
    rivals=4, similarity=0.65, sprite=30, aspect=0.6, texture=5, sway=0.12, clutter=25.0, edges=60, pan=20.0, blur=0.3,
    light=0.2, own_light=True, noise=6.0,
)  # fmt: skip
"""Closer to real footage: upright, swinging figures, a camera that moves, a background with edges, blur."""
KINDS: dict[str, LookAlikes] = {"plain": PLAIN, "walkers": WALKERS}
