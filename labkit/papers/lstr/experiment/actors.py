"""Generated videos: one half of the label stands beside the actor, the other half in an earlier clip.  [ours]

A video has 5 clips of 2 frames. Two actors, disks of distinct colors, each with an object some way off: a solid
square, a cross or a hollow square. In one clip of the first three an actor may wear a white rim. The class of an actor
in a clip is 2 S + L:

    S in 0, 1, 2    the kind of its object, seen only beside it: short-term context
    L in 0, 1       whether it wore a rim in an *earlier* clip: long-term context

With events on the object it is not the actor who wears something, but its object that was orange in one earlier clip:
then even what happened long ago was seen beside the actor only.

Positions are drawn anew in each clip and the order of actors is random, so an actor is known again by its color alone.
The object lies outside of what the features of the actor's box can see; `check_reach` holds that.

In a *walking* video the actors go on walking from clip to clip and keep their objects: there are tubes to be linked.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.seeds import derive

COLORS = np.array(
    [[0.9, 0.3, 0.3], [0.3, 0.9, 0.3], [0.3, 0.4, 1.0], [0.9, 0.9, 0.2], [0.9, 0.3, 0.9], [0.2, 0.9, 0.9]], np.float32
)
KINDS = ("square", "cross", "hollow")
ORANGE = (1.0, 0.5, 0.1)
CLASSES = tuple(f"{kind}{event}" for kind in KINDS for event in ("", ", later"))
"""Names of the six classes 2 S + L: "later" is after the actor's event."""

TRAIN, TEST, WALKING = range(3)
"""What seeds are derived for: no video is both trained on and tested on."""


@dataclass(frozen=True)
class Actors:
    """How videos are made; lengths in pixels.

    size: side of a frame. box: half the side of an actor's box. reach: from an actor to its object. apart: least
    distance of two actors. object_apart: of an actor and the other's object. speed: largest step a frame.
    shake: standard deviation of the edges of the boxes that training is given. event: what an event is seen on.
    """

    size: int = 56
    frames: int = 2
    clips: int = 5
    radius: float = 4.0
    box: float = 5.0
    reach: float = 17.0
    apart: float = 14.0
    object_apart: float = 21.0
    speed: float = 0.6
    noise: float = 0.04
    shake: float = 0.5
    same_color: bool = False
    event: Literal["actor", "object"] = "actor"

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 64 or not 2 <= self.clips <= 64:
            raise InputError(f"1 to 64 frames a clip and 2 to 64 clips are possible; got {self.frames}, {self.clips}.")
        if not 0 < self.radius <= self.box < self.reach <= self.size / 3:
            raise InputError("0 < radius <= box < reach <= size / 3 is needed, or actor and object do not fit.")
        if self.apart + self.reach > self.size * 0.6 or self.object_apart > self.size * 0.45:
            raise InputError(f"two actors so far apart do not fit into a frame of {self.size} pixels.")


STANDARD = Actors()
NEARER = Actors(size=48, reach=10.5, object_apart=14.0, apart=12.0)
"""A first design of ours in which the box's own features see the object: `check_reach` refuses it."""


def least_reach(settings: Actors, cell: int, receptive_field: int) -> float:
    """How far an object must be for the features under the box not to see it.

    Half a box, one cell, and half of what a cell sees: RoIAlign interpolates between cells, hence the whole cell.
    """
    return settings.box + cell + (receptive_field - 1) / 2


def check_reach(settings: Actors, cell: int, receptive_field: int) -> None:
    """Raises InputError where an actor's own features see its object: then no relation is needed, and none measured."""
    least, nearest = least_reach(settings, cell, receptive_field), settings.reach - 2
    if nearest <= least:
        raise InputError(
            f"the object's edge is {nearest:g} pixels away, and the features of the box see {least:g} pixels: "
            f"the label would show without any context. Ask for a reach above {least + 2:g}."
        )


@dataclass(frozen=True, eq=False)
class Videos:
    """clips (n, clips, 3, frames, size, size) in 0..1; boxes and shaken boxes (n, clips, 2, frames, 4); labels 2 S + L.

    identity: color number of each actor, (n, clips, 2).
    """

    clips: Float[Tensor, "n clips 3 frames size size"]
    boxes: Float[Tensor, "n clips actors frames 4"]
    shaken: Float[Tensor, "n clips actors frames 4"]
    labels: Int[Tensor, "n clips actors"]
    identity: Int[Tensor, "n clips actors"]

    def __len__(self) -> int:
        return len(self.clips)


@cache
def videos(count: int, seed: int, purpose: int, settings: Actors = STANDARD) -> Videos:
    """`count` videos; video k is the same whatever `count` is."""
    each = [_video(np.random.default_rng(derive(seed, purpose, k)), settings, purpose == WALKING) for k in range(count)]
    return Videos(*(torch.from_numpy(np.stack(parts)) for parts in zip(*each, strict=True)))


def _video(rng: np.random.Generator, settings: Actors, walking: bool) -> tuple[np.ndarray, ...]:
    n, t = settings.clips, settings.frames
    colors = rng.permutation(len(COLORS))[:2]
    if settings.same_color:
        colors[1] = colors[0]
    event = np.where(rng.random(2) < 0.5, rng.integers(0, max(n - 2, 1), 2), n)  # n: never
    kinds = rng.integers(0, len(KINDS), (1 if walking else n, 2)).repeat(n if walking else 1, 0)
    path, offset = _paths(rng, settings, walking)
    frames = np.full((n, t, settings.size, settings.size, 3), 0.15, np.float32)
    frames += rng.normal(0, settings.noise, frames.shape).astype(np.float32)
    for c in range(n):
        for a in range(2):
            for s in range(t):
                rim, tint = (bool(event[a] == c and settings.event == on) for on in ("actor", "object"))
                _draw_disk(frames[c, s], path[c, a, s], COLORS[colors[a]], settings.radius, rim)
                at = path[c, a, s if walking else 0] + offset[c, a]
                _draw_object(frames[c, s], at, int(kinds[c, a]), ORANGE if tint else (0.95, 0.95, 0.95))
    boxes = np.concatenate([path - settings.box, path + settings.box], -1).astype(np.float32)
    shaken = boxes + rng.normal(0, settings.shake, boxes.shape).astype(np.float32)
    labels = 2 * kinds + (event[None] < np.arange(n)[:, None])
    order = np.arange(2)[None].repeat(n, 0) if walking else rng.permuted(np.arange(2)[None].repeat(n, 0), axis=1)
    rows = np.arange(n)[:, None]
    shown = frames.transpose(0, 4, 1, 2, 3).clip(0, 1)
    return shown, boxes[rows, order], shaken[rows, order], labels[rows, order].astype(np.int64), colors[order]


def _paths(rng: np.random.Generator, settings: Actors, walking: bool) -> tuple[np.ndarray, np.ndarray]:
    """Centers (clips, 2, frames, 2) and the offset of each object from its actor, (clips, 2, 2)."""
    if not walking:
        some = [_one_path(rng, settings, settings.frames) for _ in range(settings.clips)]
        return np.stack([path for path, _ in some]), np.stack([offset for _, offset in some])
    path, offset = _one_path(rng, settings, settings.clips * settings.frames)
    path = path.reshape(2, settings.clips, settings.frames, 2).transpose(1, 0, 2, 3)
    return path, np.broadcast_to(offset, (settings.clips, 2, 2))


def _one_path(rng: np.random.Generator, settings: Actors, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Centers (2, frames, 2) and offsets (2, 2) of one stretch: the first that fits of 64 drawn, or of 64 more."""
    edge = settings.box + settings.radius
    while True:
        start = rng.uniform(edge, settings.size - edge, (64, 2, 1, 2))
        step = rng.uniform(-settings.speed, settings.speed, (64, 2, 1, 2))
        path = start + step * np.arange(frames)[:, None]
        angle = rng.uniform(0, 2 * np.pi, (64, 2))
        offset = settings.reach * np.stack([np.cos(angle), np.sin(angle)], -1)
        thing = path + offset[:, :, None]
        good = (np.linalg.norm(path[:, 0] - path[:, 1], axis=-1) > settings.apart).all(-1)
        for a in range(2):
            good &= (np.linalg.norm(path[:, a] - thing[:, 1 - a], axis=-1) > settings.object_apart).all(-1)
        good &= ((thing > 3) & (thing < settings.size - 4)).all((1, 2, 3))
        good &= ((path > settings.box) & (path < settings.size - settings.box)).all((1, 2, 3))
        if good.any():
            first = int(good.argmax())
            return path[first], offset[first]


def _draw_disk(
    frame: Float32[np.ndarray, "h w 3"], center: np.ndarray, color: np.ndarray, radius: float, rim: bool
) -> None:
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    away = (x - center[0]) ** 2 + (y - center[1]) ** 2
    frame[away < radius**2] = color
    if rim:
        frame[(away < radius**2) & (away > radius**2 / 3)] = 1.0


def _draw_object(frame: Float32[np.ndarray, "h w 3"], center: np.ndarray, kind: int, color: tuple[float, ...]) -> None:
    x, y = center.round().astype(int)
    if kind == 0:
        frame[y - 1 : y + 2, x - 1 : x + 2] = color
    elif kind == 1:
        frame[y, x - 2 : x + 3] = frame[y - 2 : y + 3, x] = color
    else:
        frame[y - 2 : y + 3, x - 2 : x + 3] = color
        frame[y - 1 : y + 2, x - 1 : x + 2] = 0.15
