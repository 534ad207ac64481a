"""Signing avatars: sentences of twelve glosses told apart by hands, face and motion, in front of a weather map.  [ours]

A gloss is a motion of both hands (3), a hand shape (2) and a mouth (2).  So every gloss has one partner that differs in
the hand shape alone, one that differs in the mouth alone, and two that differ in the motion alone: a network that
ignores a cue confuses exactly those.  Signs run into each other (co-articulation), a gloss is followed by six others
only (grammar), signers differ in place and clothing, and the map behind them is full of symbols that look like hands
(decoys), so that a hand's shape is worth something only to who knows where the hand is.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from labkit.data.sign import Sentence
from labkit.errors import InputError
from labkit.papers.stmc.method.architecture import PAPER
from labkit.ranges import within
from labkit.seeds import derive

MOTIONS, SHAPES, MOUTHS = ("LOWER", "CROSS", "RAISE"), ("RING", "PLUS"), ("SHUT", "OPEN")
KINDS = (MOTIONS, SHAPES, MOUTHS)
GLOSSES = tuple(f"{motion}-{shape}-{mouth}" for motion in MOTIONS for shape in SHAPES for mouth in MOUTHS)
CUES = ("hand", "face", "motion")
"""What can tell two glosses apart."""
POINTS = PAPER.points
FRAME = 40  # pixels of a side; other sizes are drawn from the same coordinates
SUCCESSORS = 6
GRAMMAR, SENTENCES = 7, 1  # seed of the grammar; what seeds are derived for

Number = int | float
_STARTS = (((12, 18), (28, 18)), ((16, 30), (24, 22)), ((9, 26), (31, 30)))
_ENDS = (((17, 28), (23, 28)), ((24, 22), (16, 30)), ((15, 18), (25, 18)))
_RESTS = ((13.0, 31.0), (27.0, 31.0))
_SKIN, _PALE, _DARK = (0.85, 0.7, 0.55), (0.9, 0.75, 0.6), (0.2, 0.2, 0.2)
_EYES, _LIPS = (0.1, 0.1, 0.1), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class World:
    """How hard the sentences are to read.

    size: side of a frame. decoys: symbols of the map, redrawn every third frame. noise: standard deviation of the
    pixels, of 1. jitter: standard deviation of the hands, in pixels of a frame of 40. label_noise: standard deviation
    of the key points that training is given, as a share of the frame; 0: exact.
    """

    size: int = FRAME
    decoys: int = 8
    noise: float = 0.1
    jitter: float = 0.5
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        within(20, 512, size=self.size)
        within(0, 100, decoys=self.decoys)
        within(0, 1, noise=self.noise, label_noise=self.label_noise)
        within(0, 5, jitter=self.jitter)


def cues_between(first: str, second: str) -> tuple[str, ...]:
    """The cues in which two glosses differ.

    >>> cues_between("LOWER-RING-SHUT", "LOWER-PLUS-SHUT")
    ('hand',)
    """
    motion, shape, mouth = (a != b for a, b in zip(first.split("-"), second.split("-"), strict=True))
    return tuple(cue for cue, differs in zip(CUES, (shape, mouth, motion), strict=True) if differs)


def grammar() -> dict[str, tuple[str, ...]]:
    """The six glosses that may follow each; never itself. The same in all runs."""
    random = np.random.default_rng(GRAMMAR)
    return {
        gloss: tuple(
            GLOSSES[k] for k in random.choice([j for j in range(len(GLOSSES)) if j != i], SUCCESSORS, replace=False)
        )
        for i, gloss in enumerate(GLOSSES)
    }


def sentences(count: int, seed: int, world: World | None = None) -> list[Sentence]:
    """Sentences of three to five glosses, each by a signer of its own; those of other seeds share nothing with them."""
    world, follows = world or World(), grammar()
    return [_sentence(k, np.random.default_rng(derive(seed, SENTENCES, k)), world, follows) for k in range(count)]


def clip(gloss: str, seed: int = 0, world: World | None = None) -> Sentence:
    """One gloss by itself.

    Raises:
        InputError: there is no such gloss.
    """
    if gloss not in GLOSSES:
        raise InputError(f"there is no gloss '{gloss}'; there are {', '.join(GLOSSES)}.")
    return _signed(gloss, (gloss,), np.random.default_rng(derive(seed, SENTENCES)), world or World())


def _sentence(index: int, random: np.random.Generator, world: World, follows: dict[str, tuple[str, ...]]) -> Sentence:
    glosses = [str(random.choice(GLOSSES))]
    for _ in range(int(random.integers(3, 6)) - 1):
        glosses.append(str(random.choice(follows[glosses[-1]])))
    return _signed(f"sentence-{index}", tuple(glosses), random, world)


def _signed(name: str, glosses: tuple[str, ...], random: np.random.Generator, world: World) -> Sentence:
    """Draw a sentence, frame by frame."""
    signer = _Signer(random, world)
    frames: list[np.ndarray] = []
    points, spans, at = [], [], np.array(_RESTS)
    for gloss in glosses:
        motion, shape, mouth = (kinds.index(word) for kinds, word in zip(KINDS, gloss.split("-"), strict=True))
        length, begun = int(random.integers(7, 11)), len(frames)
        for t in range(length):
            share = min(max((t - 2) / (length - 3), 0.0), 1.0)
            aim = np.array(_STARTS[motion]) * (1 - share) + np.array(_ENDS[motion]) * share
            at = at + (aim - at) * (0.55 if t < 2 else 0.9)  # the first two frames come from the gloss before
            frame, keys = signer.frame(len(frames), at, shape, mouth)
            frames.append(frame)
            points.append(keys)
        spans.append((begun, len(frames) - 1))
    labels = np.array(points, dtype=np.float32) / (FRAME - 1)
    if world.label_noise:
        labels = (labels + random.normal(0, world.label_noise, labels.shape)).clip(0, 1).astype(np.float32)
    return Sentence(name, "avatar", glosses, np.stack(frames), labels, meta={"spans": tuple(spans)})


class _Signer:
    """One signer in front of one map: clothing, place, light; draws a frame at a time."""

    def __init__(self, random: np.random.Generator, world: World) -> None:
        self.random, self.world = random, world
        self.off_x, self.off_y = (int(v) for v in random.integers(-2, 3, 2))
        self.cloth, self.ground = random.uniform(0.2, 0.6, 3), float(random.uniform(0.05, 0.25))
        self.decoys: list[tuple[int, int, int]] = []

    def frame(
        self, index: int, at: np.ndarray, shape: int, mouth: int
    ) -> tuple[UInt8[np.ndarray, "size size 3"], list[tuple[Number, Number]]]:
        """RGB, and the key points (column, row) in pixels of a frame of 40: nose, shoulders, elbows, wrists."""
        image = _Canvas(self.world.size, self.ground)
        if index % 3 == 0:
            centers = self.random.integers(3, FRAME - 3, (self.world.decoys, 2))
            self.decoys = [(int(x), int(y), int(self.random.integers(2))) for x, y in centers]
        for x, y, kind in self.decoys:
            image.glyph(x, y, kind)
        x, y = 20 + self.off_x, 11 + self.off_y
        image.box(12 + self.off_x, 24 + self.off_y, 17, FRAME, self.cloth)
        image.disc(x, y, 6, _SKIN)
        image.box(x - 3, y - 2, 1, 1, _EYES)
        image.box(x + 2, y - 2, 1, 1, _EYES)
        image.box(*((x - 1, y + 2, 3, 2) if mouth else (x - 2, y + 2, 5, 1)), _LIPS)
        shoulders = [(14.0 + 12 * side + self.off_x, 25.0 + self.off_y) for side in (0, 1)]
        wrists = [(self._shaken(hx, self.off_x), self._shaken(hy, self.off_y)) for hx, hy in at]
        elbows = []
        for (sx, sy), (hx, hy) in zip(shoulders, wrists, strict=True):
            for share in np.linspace(0, 1, 14):
                image.box(round(sx + (hx - sx) * share), round(sy + (hy - sy) * share), 1, 1, self.cloth * 0.7)
            image.glyph(hx, hy, shape)
            elbows.append(((sx + hx) / 2, (sy + hy) / 2))
        return image.finished(self.random, self.world.noise), [(x, y), *shoulders, *elbows, *wrists]

    def _shaken(self, value: float, off: int) -> int:
        return min(max(round(value + off + self.random.normal(0, self.world.jitter)), 3), FRAME - 4)


class _Canvas:
    """Flat shapes in coordinates of a frame of 40, drawn at any size."""

    def __init__(self, size: int, ground: float) -> None:
        self.scale = size / FRAME
        self.pixels = np.full((size, size, 3), ground, dtype=np.float32)

    def box(self, x: Number, y: Number, width: Number, height: Number, colour: tuple[float, ...] | np.ndarray) -> None:
        left, top, right, bottom = (max(0, round(v * self.scale)) for v in (x, y, x + width, y + height))
        self.pixels[top:bottom, left:right] = colour

    def disc(self, x: Number, y: Number, radius: Number, colour: tuple[float, ...]) -> None:
        side = np.arange(len(self.pixels)) / self.scale
        self.pixels[(side[None] - x) ** 2 + (side[:, None] - y) ** 2 < radius**2] = colour

    def glyph(self, x: int, y: int, kind: int) -> None:
        """A hand of 5 x 5: a ring, or a cross; the same square is covered by both."""
        outer, inner = (_PALE, _DARK) if kind == 0 else (_DARK, _PALE)
        self.box(x - 2, y - 2, 5, 5, outer)
        if kind == 0:
            self.box(x - 1, y - 1, 3, 3, inner)
        else:
            self.box(x, y - 2, 1, 5, inner)
            self.box(x - 2, y, 5, 1, inner)

    def finished(self, random: np.random.Generator, noise: float) -> UInt8[np.ndarray, "size size 3"]:
        values: Float32[np.ndarray, "size size 3"] = self.pixels
        if noise:
            values = values + noise * random.standard_normal(values.shape, dtype=np.float32)
        return (255 * values.clip(0, 1)).round().astype(np.uint8)
