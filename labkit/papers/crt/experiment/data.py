"""What is tracked at each scale, and pairs of search images from which networks train themselves."""

from collections.abc import Sequence as Ordered
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from labkit.data import tracking
from labkit.data.tracking import Sequence
from labkit.data.tracking.development import is_there
from labkit.errors import InputError
from labkit.papers.crt.experiment.clips import KINDS, look_alikes
from labkit.papers.crt.method.crop import View, crop
from labkit.seeds import derive

TRACKED, TRAINED_ON, FIRST_BOX = range(3)  # what seeds are derived for: no clip is both trained on and tracked


def clips(kind: str, count: int, seed: int, frames: int = 0) -> list[Sequence]:
    """Clips of one kind; those of another kind or seed share nothing with them. frames: 0 is the kind's own number."""
    if kind not in KINDS:
        raise InputError(f"there is no kind of clip '{kind}'; there are {', '.join(KINDS)}")
    settings = replace(KINDS[kind], frames=frames) if frames else KINDS[kind]
    keys = [(seed, TRACKED, list(KINDS).index(kind), k) for k in range(count)]
    return [replace(look_alikes(settings, derive(*key)), name=f"{kind}-{seed}-{key[-1]}") for key in keys]


def footage_is_there() -> bool:
    """Whether LABKIT_DATA holds the real sequences."""
    return is_there()


def footage(name: str, seed: int, frames: int = 0) -> Sequence:
    """A real sequence. Seeds other than 0 draw the first box anew, off by 2 % of its size.

    The noise of an annotation.
    """
    (sequence,) = tracking.development([name])
    sequence = sequence.part(0, min(frames, len(sequence))) if frames else sequence
    return (
        sequence if seed == 0 else replace(sequence, meta={**sequence.meta, "start": _shaken(sequence.boxes[0], seed)})
    )


def _shaken(box: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(derive(seed, FIRST_BOX)).normal(0, 0.02, 4)
    size = box[2:] * np.exp(noise[2:])
    return np.concatenate([box[:2] + box[2:] / 2 + noise[:2] * box[2:] - size / 2, size])


def start_of(sequence: Sequence) -> np.ndarray:
    """The box that a tracker is given."""
    return np.asarray(sequence.meta.get("start", sequence.boxes[0]), dtype=float)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two search images of one target at different times.  Places and sizes in crop pixels.

    first: the target stands in its middle. second: it stands at `position`, rivals at `rivals` where `visible`.
    """

    first: UInt8[Tensor, "n 3 size size"]
    second: UInt8[Tensor, "n 3 size size"]
    target: Float[Tensor, "n 2"]
    position: Float[Tensor, "n 2"]
    target_then: Float[Tensor, "n 2"]
    rivals: Float[Tensor, "n r 2"]
    visible: Bool[Tensor, "n r"]

    def __len__(self) -> int:
        return len(self.first)

    def pick(self, indices: Tensor, device: torch.device) -> "Pairs":
        return Pairs(*(getattr(self, name)[indices].to(device) for name in self.__dataclass_fields__))


def pairs(
    count: int, seed: int, kinds: Ordered[str] = ("plain", "walkers"), size: int = 160, search: float = 5.0
) -> Pairs:
    """Pairs from generated clips that are kept apart from those tracked.

    Ten pairs a clip, up to 23 frames between them.
    """
    rng = np.random.default_rng(derive(seed, TRAINED_ON))
    per_clip = 10
    rows: list[tuple[Tensor, ...]] = []
    most = max(KINDS[kind].rivals for kind in kinds)
    for number in range(-(-count // per_clip)):
        kind = KINDS[kinds[number % len(kinds)]]
        similarity = float(rng.uniform(0.5, 0.9))
        settings = replace(kind, frames=24, similarity=similarity, zoom=0.15)
        clip = look_alikes(settings, derive(seed, TRAINED_ON, number))
        rows += [_pair(clip, rng, size, search, most) for _ in range(min(per_clip, count - len(rows)))]
    return Pairs(*(torch.stack(parts) for parts in zip(*rows, strict=True)))


def pairs_from(
    sequences: Ordered[Sequence], count: int, seed: int, gap: int = 50, size: int = 160, search: float = 5.0
) -> Pairs:
    """Pairs from annotated videos, at most `gap` frames apart [peer code: DCFST, 50].

    Where rivals stand is not known there.
    """
    rng = np.random.default_rng(derive(seed, TRAINED_ON))
    usable = [s for s in sequences if s.annotated.sum() >= 2]
    if not usable:
        raise InputError("to train on, at least one sequence needs two annotated frames")
    rows = []
    for number in range(count):
        sequence = usable[number % len(usable)]
        usable_frames = np.flatnonzero(sequence.annotated)
        first = int(rng.choice(usable_frames))
        near = usable_frames[np.abs(usable_frames - first) <= gap]
        rows.append(_pair(sequence, rng, size, search, 1, (first, int(rng.choice(near)))))
    return Pairs(*(torch.stack(parts) for parts in zip(*rows, strict=True)))


def _pair(
    clip: Sequence, rng: np.random.Generator, size: int, search: float, most: int, times: tuple[int, int] | None = None
) -> tuple[Tensor, ...]:
    a, b = times or (int(t) for t in rng.integers(0, len(clip), 2))
    boxes = torch.from_numpy(clip.boxes[[a, b]]).float()
    centre, extent = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]
    side = search * extent.prod(1).sqrt()
    drift = torch.from_numpy(rng.uniform(-1, 1, 2)).float() * extent[1]
    views = (
        View(centre[:1], side[:1], size),
        View(centre[1:] + drift, side[:1] * float(np.exp(rng.normal(0, 0.05))), size),
    )
    crops = [crop([clip.frames[t]], view)[0] for t, view in zip((a, b), views, strict=True)]
    light = float(rng.uniform(0.8, 1.2))
    images = [(c * f).clamp(0, 1).mul(255).round().to(torch.uint8) for c, f in zip(crops, (1.0, light), strict=True)]
    rivals = torch.full((most, 2), -1e3)
    if "rivals" in clip.meta:
        centres = torch.from_numpy(np.asarray(clip.meta["rivals"])[b]).float()
        rivals[: len(centres)] = views[1].to_crop(centres[None])[0]
    inside = ((rivals > 0) & (rivals < size)).all(1)
    scale = [size / float(view.side) for view in views]
    return (images[0], images[1], extent[0] * scale[0], views[1].to_crop(centre[1][None, None])[0, 0],
            extent[1] * scale[1], rivals, inside)  # fmt: skip
