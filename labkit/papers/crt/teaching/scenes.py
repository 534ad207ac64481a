"""What the notebook shows besides the comparison: the inside of single frames, one scene that can be moved about."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labkit import devices
from labkit.data import tracking
from labkit.errors import InputError
from labkit.metrics.intervals import Interval, bootstrap
from labkit.papers.crt.experiment import data
from labkit.papers.crt.experiment.clips import KINDS, LookAlikes, background, look_alikes
from labkit.papers.crt.experiment.config import ARMS, Config
from labkit.papers.crt.experiment.evaluate import difference
from labkit.papers.crt.experiment.tracking import track_together
from labkit.papers.crt.method import ridge
from labkit.papers.crt.method.cascade import Cascade, Settings
from labkit.papers.crt.method.crop import View, crop
from labkit.papers.crt.method.ridge_head import RidgeHead, Rows
from labkit.papers.crt.method.sampling import boxes_at
from labkit.workbench.records import load_all


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One frame inside the cascade.  Positions in crop pixels, candidates in the order of stage 1's scores.

    target: which candidate is the target, -1 when none is within half a target of it.
    """

    number: int
    picture: np.ndarray
    scores: np.ndarray
    at: np.ndarray
    s1: np.ndarray
    s2: np.ndarray
    winner: int
    target: int
    size: tuple[float, float]


def snapshots(
    sequence: tracking.Sequence, frames: int, settings: Settings | None = None, guided: bool = False
) -> list[Snapshot]:
    """Track, and keep the inside of each frame.

    Args:
        guided: put the tracker back onto the annotated target after every frame: then all frames show the same contest.
    """
    cascade, kept = Cascade(settings or Settings()), []
    first = data.start_of(sequence)
    cascade.init([sequence.frames[0]], first[None])
    for t in range(1, min(frames, len(sequence))):
        cascade.update([sequence.frames[t]])
        kept.append(_snapshot(t, sequence, cascade))
        if guided and sequence.annotated[t]:
            box = torch.from_numpy(sequence.boxes[t]).float()
            cascade.centre = (box[:2] + box[2:] / 2)[None]
    return kept


def _snapshot(t: int, sequence: tracking.Sequence, cascade: Cascade) -> Snapshot:
    last = cascade.last
    assert last is not None
    decision, picture = last.decision, (crop([sequence.frames[t]], last.view)[0].permute(1, 2, 0) * 255).round().byte()
    valid = decision.valid[0]
    at, target = decision.at[0][valid].numpy(), -1
    if sequence.annotated[t] and len(at):
        box = torch.from_numpy(sequence.boxes[t]).float()
        truth = last.view.to_crop((box[:2] + box[2:] / 2)[None, None])[0, 0].numpy()
        distance = np.linalg.norm((at - truth) / last.target[0].numpy(), axis=1)
        target = int(distance.argmin()) if distance.min() < 0.5 else -1
    width, height = last.target[0].tolist()
    s1, s2 = decision.s1[0][valid].numpy(), decision.s2[0][valid].numpy()
    winner = int(decision.winner[0])
    return Snapshot(t, picture.numpy(), last.scores[0].numpy(), at, s1, s2, winner, target, (width, height))


def most_ambiguous(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The frame in which a rival's score in stage 1 is nearest to the target's, or farthest above it."""
    best, chosen = -np.inf, snapshots[0]
    for each in snapshots:
        if each.target < 0 or len(each.s1) < 2:
            continue
        margin = float(np.delete(each.s1, each.target).max() - each.s1[each.target])
        if margin > best:
            best, chosen = margin, each
    return chosen


@cache
def example(kind: str = "plain", seed: int = 3, frames: int = 40) -> tuple[Snapshot, ...]:
    """A short generated clip, tracked with the tracker kept on the target."""
    clip = look_alikes(replace(KINDS[kind], frames=frames), seed)
    return tuple(snapshots(clip, frames, replace(Settings(), kappa=0.1, floor=0.03), guided=True))


@dataclass(frozen=True, eq=False)
class Situation:
    """The search image of the first frame, the target in its middle, and a later frame."""

    first: np.ndarray
    snapshot: Snapshot


@cache
def two_outcomes(kind: str = "plain", seed: int = 3) -> Situation:
    """The frame of a generated clip in which a rival leads in stage 1 by most, and both stages choose the target."""
    shots = example(kind, seed)
    split = [each for each in shots if each.winner == each.target != int(each.s1.argmax())]
    if not split:
        raise InputError(f"in no frame of the clip {kind}, {seed} do the two stages choose differently.")
    clip = look_alikes(replace(KINDS[kind], frames=2), seed)
    cascade = Cascade(Settings(stage2=False))
    cascade.init([clip.frames[0]], clip.boxes[:1])
    first = (crop([clip.frames[0]], cascade.view())[0].permute(1, 2, 0) * 255).round().byte().numpy()
    return Situation(first, most_ambiguous(split))


def headline(config: Config, frames: int = 110) -> tuple[str, list[Snapshot]]:
    """The sequence that the notebook opens up, and its name: a generated clip, or real footage if asked for and there.

    Frames of real footage may not be passed on, hence never by default.
    """
    if config.show_footage and config.footage and data.footage_is_there():
        sequence = data.footage(config.footage[0], 0, config.footage_frames)
    else:
        (sequence,) = data.clips(config.kinds[0] if config.kinds else "plain", 1, config.seed)
    return sequence.name, snapshots(sequence, min(frames, len(sequence)))


# -- a scene that can be moved about ----------------------------------------------------------------------------------


class Scene:
    """One target, learned; and a rival that can be put anywhere, as similar as wanted."""

    SIDE = 200

    def __init__(self, seed: int = 5) -> None:
        rng = np.random.default_rng(seed)
        kind = LookAlikes(rivals=0, sprite=32, height=self.SIDE, width=self.SIDE, clutter=12.0)
        coarse = (torch.from_numpy(rng.integers(0, 256, (3, 4, 4)).astype(np.float32)) for _ in range(2))
        self.textures = [F.interpolate(x[None], (32, 32), mode="bicubic")[0].clamp(0, 255) for x in coarse]
        self.empty = background(rng, kind)[: self.SIDE, : self.SIDE]
        y, x = np.mgrid[:32, :32] - 15.5
        self.cover = np.clip(16.5 - np.hypot(x, y), 0, 1)[..., None]
        self.box = np.array([84.0, 84.0, 32.0, 32.0])
        self.cascade = Cascade(Settings())
        self.cascade.init([self.picture(None, 0.0)], self.box[None])

    def picture(self, rival: tuple[float, float] | None, similarity: float) -> np.ndarray:
        """The scene with the target in its middle and a rival's centre at `rival` (pixels)."""
        picture = self.empty.copy()
        base, other = self.textures
        if rival is not None:
            mixed = similarity * base + (1 - similarity) * other
            self._paste(picture, mixed, int(rival[0]) - 16, int(rival[1]) - 16)
        self._paste(picture, base, 84, 84)
        return picture.clip(0, 255).astype(np.uint8)

    def _paste(self, picture: np.ndarray, texture: Tensor, left: int, top: int) -> None:
        left, top = (min(max(v, 0), self.SIDE - 32) for v in (left, top))
        piece = picture[top : top + 32, left : left + 32]
        piece[:] = piece * (1 - self.cover) + texture.permute(1, 2, 0).numpy() * self.cover

    @torch.no_grad()
    def maps(self, rival: tuple[float, float], similarity: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture of the search area, stage 1's scores, and stage 2's score of a box around every second cell."""
        if not 0 <= similarity <= 1:
            raise InputError(f"similarity must lie in [0, 1]; got {similarity}.")
        cascade = self.cascade
        view = View(torch.tensor([[100.0, 100.0]]), torch.tensor([160.0]), 160)
        pixels = crop([self.picture(rival, similarity)], view)
        maps = cascade.features(pixels)
        scores = cascade.regression.score(maps.first)[0]
        at = torch.arange(10, 152, 6).float()
        rows, columns = torch.meshgrid(at, at, indexing="ij")
        centres = torch.stack([columns, rows], -1).reshape(1, -1, 2)
        x = cascade.describe(maps, boxes_at(centres, torch.tensor([[32.0, 32.0]])))
        second = cascade.head.score(x)[0].reshape(len(at), len(at))
        return (pixels[0].permute(1, 2, 0) * 255).byte().numpy(), scores.numpy(), second.numpy()


@cache
def scene(seed: int = 5) -> Scene:
    return Scene(seed)


# -- hard negatives, and samples for ridge regression -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class HardNegative:
    """One row of the buffer: the frame it comes from, its patch, and its score in stage 2 at the end."""

    frame: int
    patch: np.ndarray
    score: float


def hard_negatives(sequence: tracking.Sequence, frames: int = 60, most: int = 8) -> list[HardNegative]:
    """The hardest negatives that the anchored variant admitted while tracking."""
    open_gate = replace(ARMS["anchored"].settings, gate=(0.3, 0.1, 0.2))
    cascade = Cascade(open_gate)
    track_together(cascade, [sequence.part(0, min(frames, len(sequence)))])
    head = cascade.head
    assert isinstance(head, RidgeHead)
    scores = head.score(head.hard.x)[0]
    kept = []
    for k in range(min(most, int(head.hard.valid[0].sum()))):
        box, number = head.hard.box[0, k], int(head.hard.frame[0, k])
        view = View((box[:2] + box[2:] / 2)[None], box[2:].prod().sqrt()[None] * 1.2, 48)
        patch = (crop([sequence.frames[number]], view)[0].permute(1, 2, 0) * 255).byte().numpy()
        kept.append(HardNegative(number, patch, float(scores[k])))
    return kept


@cache
def frame_rows(seed: int = 0) -> Rows:
    """Stage 2's samples of one frame of a generated clip, in float64: for everything that is proved about ridge."""
    clip = look_alikes(replace(KINDS["plain"], frames=2), seed)
    cascade = Cascade(Settings(stage2=False))
    cascade.init([clip.frames[0]], clip.boxes[:1])
    maps, centres = cascade.first_frame([clip.frames[0]])
    rows = cascade.rows(maps[0], centres[0], cascade.target_in(cascade.view()))
    return Rows(*(each.double() for each in rows))


def success_curves(result: dict, kind: str) -> dict[str, Float[np.ndarray, "n 21"]]:
    """Each arm's success curves, one row a clip."""
    arms = result["clips"][kind]["arms"]
    return {arm: np.asarray(scores["each"]["success"]) for arm, scores in arms.items()}


def recorded_gains(label: str, theirs: str, value: str) -> dict[str, Interval]:
    """Per arm of the record with that label: `value` minus that of the arm `theirs`; empty without such a record.

    The interval is a paired bootstrap over the clips of all seeds.
    """
    gains = {}
    for record in load_all("crt"):
        if record.label != label:
            continue
        parts = [part["arms"] for result in record.results for part in result["clips"].values()]
        for arm in parts[0].keys() - {theirs}:
            apart = [np.subtract(arms[arm]["each"][value], arms[theirs]["each"][value]) for arms in parts]
            gains[arm] = bootstrap([np.concatenate(apart)])
    return gains


def recorded_differences(label: str, theirs: str, value: str) -> list[str]:
    """`recorded_gains` as rows of a Markdown table, in the order of `ARMS`."""
    gains = recorded_gains(label, theirs, value)
    return [
        f"| {arm} | {signed(gain.value)} | [{signed(gain.low)}, {signed(gain.high)}] | {gain.replicates} |"
        for arm, gain in ((arm, gains[arm]) for arm in ARMS if arm in gains)
    ]


def compared(result: dict, theirs: str = "stage-1", value: str = "lost") -> list[str]:
    """Of one run: `value` of each arm minus that of `theirs` on the same clips, as rows of a Markdown table."""
    rows = []
    for kind, part in result.get("clips", {}).items():
        for arm in (arm for arm in part["arms"] if arm != theirs):
            mean, low, high = (signed(each) for each in difference(part, arm, theirs, value))
            rows.append(f"| {kind} | {arm} | {mean} | [{low}, {high}] |")
    return rows


def recorded_footage(sequence: str = "TLD_pedestrian2") -> list[str]:
    """Success and lost frames of every arm and seed in the records, as rows of a Markdown table."""
    return [
        f"| {record.name} | {seed} | {arm} | {values['auc']:.3f} | {values['lost']:.1%} |"
        for record in load_all("crt")
        for seed, outcome in zip(record.seeds, record.results, strict=True)
        for arm, values in outcome.get("footage", {}).get(sequence, {}).get("arms", {}).items()
    ]


def work_left(result: dict, arm: str = "cascade") -> list[str]:
    """What stage 2 has to do in one run, as rows of a Markdown table."""
    return [
        f"| {name} | {arms[arm]['candidates']:.1f} | {arms[arm]['skip_rate']:.0%} |"
        for group in ("footage", "clips")
        for name, arms in ((name, part["arms"]) for name, part in result.get(group, {}).items())
    ]


def signed(value: float) -> str:
    """Three decimals and a sign; a zero is +0.000."""
    return f"{round(value, 3) + 0.0:+.3f}"


# -- what a solve costs -----------------------------------------------------------------------------------------------

DIMENSIONS = (64, 256, 576, 1024, 2304, 4608)
MOST = 3e8  # operations of one measured solve: some ten milliseconds


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one ridge solve with n rows and d features, by one form."""

    form: str
    n: int
    d: int
    milliseconds: float


def operations(form: str, n: Any, d: int) -> Any:
    """Of one solve. primal: n d^2 + d^3 / 3; dual: n^2 d + n^3 / 3; their Gram matrix and its Cholesky factor."""
    return n * d**2 + d**3 / 3 if form == "primal" else n**2 * d + n**3 / 3


@cache
def ridge_costs(rows: tuple[int, ...] = (30, 100, 300, 1000, 3000), rounds: int = 3) -> tuple[Cost, ...]:
    """Both forms, measured here for every d of `DIMENSIONS` where it takes no time: CPU time, the best of a few."""
    costs = []
    generator = torch.Generator().manual_seed(0)
    with devices.one_thread():
        for form, n, d in itertools.product(("primal", "dual"), rows, DIMENSIONS):
            if operations(form, n, d) > MOST:
                continue
            x, y = torch.randn(1, n, d, generator=generator), torch.randn(1, n, generator=generator)
            solve = partial(ridge.fit, x, y, 0.1, form=form)
            costs.append(Cost(form, n, d, best_milliseconds(solve, rounds)))
    return tuple(costs)


def best_milliseconds(call: Callable[[], Any], rounds: int) -> float:
    """CPU time of one call, the best of some rounds."""
    spent = []
    for _ in range(rounds):
        start = time.process_time_ns()
        call()
        spent.append(time.process_time_ns() - start)
    return min(spent) / 1e6
