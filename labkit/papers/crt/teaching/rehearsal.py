"""A short clip described once, so that stage 2 can be computed anew for other settings in a fraction of a second.

The tracker is put back onto the target after every frame.  Search images and samples then do not depend on any
decision: they are cut out and described once, and stage 1's candidates are kept for filters of a few sizes.  What is
left to do when a setting moves is ridge regression: a head that learns from the first frame to the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.data import tracking
from labkit.errors import InputError
from labkit.papers.crt.experiment.clips import KINDS, look_alikes
from labkit.papers.crt.method.cascade import Cascade, Settings, fuse, neighbours
from labkit.papers.crt.method.convolution import Convolution, Regression, candidates
from labkit.papers.crt.method.crop import crop
from labkit.papers.crt.method.features import Maps
from labkit.papers.crt.method.ridge_head import Mining, Ridge, RidgeHead, Rivals, Rows
from labkit.papers.crt.method.sampling import admitted, away, boxes_at
from labkit.papers.crt.teaching.scenes import best_milliseconds

KERNELS = (3, 5, 7, 11)
LEAST_KAPPA = 0.1
"""What is kept of stage 1's candidates; a larger kappa takes fewer of them."""
SETTINGS = Settings(stage2=False, bins=4)
"""4 x 4 bins instead of 6 x 6: d = 256 instead of 576, so that thirty solves fit into a move of a slider."""


class Options(NamedTuple):
    """What stage 1 lets through in one frame: n candidates, each with its eight `neighbours`."""

    at: Float[Tensor, "n 9 2"]
    """Pixels of the search image."""
    s1: Float[Tensor, "n 9"]
    x: Float[Tensor, "n 9 d"]
    peak: float
    """Of the whole score map."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """One clip, described.

    first: stage 2's rows of the first frame and its augmentations; rows: those of every later frame, around the target.
    position: the target in every later frame, (x, y) in pixels of the search image; size: its width and height.
    options: stage 1's candidates in every later frame, by the filter's size.
    milliseconds: of one d x d solve, as measured on this machine when the clip was described.
    """

    first: list[Rows]
    rows: list[Rows]
    position: list[Float[Tensor, "2"]]
    size: list[Float[Tensor, "2"]]
    options: dict[int, list[Options]]
    milliseconds: float


@cache
def example(kind: str = "plain", seed: int = 3, frames: int = 31) -> Rehearsal:
    """A generated clip, described."""
    return describe(look_alikes(replace(KINDS[kind], frames=frames), seed))


@torch.no_grad()
def describe(sequence: tracking.Sequence, kernels: Sequence[int] = KERNELS) -> Rehearsal:
    """Follow the annotated target once, with a stage 1 of each size side by side."""
    cascade = Cascade(SETTINGS)
    cascade.init([sequence.frames[0]], sequence.boxes[:1])
    target = cascade.target_in(cascade.view())
    maps, centres = cascade.first_frame([sequence.frames[0]])
    stages = {k: Regression(Convolution(kernel=k), cascade.features.channels, target / 16) for k in kernels}
    for stage in stages.values():
        stage.first(torch.stack([m.first for m in maps]), torch.stack(centres) / 4, cascade.generator)
    first = [cascade.rows(m, c, target) for m, c in zip(maps, centres, strict=True)]
    described = Rehearsal(first, [], [], [], {k: [] for k in kernels}, solve_milliseconds(first))
    for t in range(1, len(sequence)):
        box = torch.from_numpy(sequence.boxes[t]).float()
        _add_frame(t, cascade, sequence.frames[t], box[:2] + box[2:] / 2, stages, described)
    return described


def _add_frame(
    t: int, cascade: Cascade, frame: np.ndarray, centre: Tensor, stages: dict[int, Regression], described: Rehearsal
) -> None:
    """Frame t: candidates of every stage 1, rows around the target; then all learn, and the view moves on."""
    view = cascade.view()
    target, position = cascade.target_in(view), view.to_crop(centre[None, None])[:, 0]
    maps = cascade.features(crop([frame], view))
    for kernel, stage in stages.items():
        described.options[kernel].append(_options(cascade, maps, stage, target))
        if t % SETTINGS.learn_every == 0:
            stage.remember(maps.first, position / 4, torch.ones(1, dtype=torch.bool))
        if t % SETTINGS.improve_every == 0:
            stage.improve()
    described.rows.append(cascade.rows(maps, position, target))
    described.position.append(position[0])
    described.size.append(target[0])
    cascade.centre = centre[None]


def _options(cascade: Cascade, maps: Maps, stage: Regression, target: Tensor) -> Options:
    scores = stage.score(maps.first)
    kept = candidates(scores, LEAST_KAPPA, SETTINGS.floor)
    cells, s1 = neighbours(scores, kept.at[:, kept.valid[0]])
    at = (cells[0] + stage.shift) * 4
    x = cascade.describe(maps, boxes_at(at.reshape(1, -1, 2).float(), target))
    return Options(at, s1[0], x.reshape(*at.shape[:2], -1), float(scores.max()))


def solve_milliseconds(rows: list[Rows], rounds: int = 5) -> float:
    """CPU milliseconds of one solve of the running Gram, the best of some rounds."""
    head = RidgeHead(Ridge())
    head.first(rows)
    return best_milliseconds(head.solve, rounds)


# -- what a choice of settings makes of it ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Settings that can be moved.

    kappa: a candidate reaches this share of stage 1's peak. mix: m, weight of stage 2. lam: of the ridge.
    eta: how much a frame counts in the running Gram. kernel: side of stage 1's filter in cells.
    """

    kappa: float = 0.35
    mix: float = 0.7
    lam: float = 0.002
    eta: float = 0.02
    mining: Mining = "none"
    kernel: int = 7

    def __post_init__(self) -> None:
        if not (LEAST_KAPPA <= self.kappa < 1 and 0 <= self.mix <= 1):
            raise InputError(f"{LEAST_KAPPA} <= kappa < 1 and 0 <= m <= 1 are needed; got {self.kappa}, {self.mix}.")
        if not (self.lam > 0 and 0 <= self.eta < 1):
            raise InputError(f"lam > 0 and 0 <= eta < 1 are needed; got {self.lam}, {self.eta}.")


@dataclass
class Replay:
    """Frame by frame, with the tracker on the target before each; NaN and 0 where the target is not a candidate.

    lead1, lead: score of the target minus that of the best other candidate, for stage 1 alone and fused.
    left: candidates; mined: rivals admitted to the update, and whether the target itself was (`corrupted`).
    rows, features: n and d of the ridge regression.
    """

    lead1: list[float] = field(default_factory=list)
    lead: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    mined: list[int] = field(default_factory=list)
    corrupted: list[bool] = field(default_factory=list)
    rows: int = 0
    features: int = 0

    @property
    def right(self) -> float:
        """Share of the frames with the target among the candidates that are decided for it."""
        return _share(self.lead)

    @property
    def right1(self) -> float:
        """The same for stage 1 alone."""
        return _share(self.lead1)

    @property
    def skip_rate(self) -> float:
        """Share of the frames in which stage 2 has nothing to decide."""
        return float(np.mean(np.asarray(self.left) <= 1))


def _share(lead: list[float]) -> float:
    known = np.asarray(lead)[~np.isnan(lead)]
    return float((known > 0).mean()) if len(known) else float("nan")


@torch.no_grad()
def replay(rehearsal: Rehearsal, choice: Choice) -> Replay:
    """Decide and learn through the clip with these settings; nothing is random.

    Raises InputError for a filter's size that was not kept.
    """
    if choice.kernel not in rehearsal.options:
        raise InputError(
            f"stage 1 was kept for filters of {', '.join(map(str, rehearsal.options))}; got {choice.kernel}."
        )
    head = RidgeHead(Ridge(lam=choice.lam, eta=choice.eta, mining=choice.mining))
    head.first(rehearsal.first)
    result = Replay(rows=sum(rows.y.shape[1] for rows in rehearsal.first), features=rehearsal.first[0].x.shape[2])
    frames = zip(rehearsal.options[choice.kernel], rehearsal.rows, rehearsal.position, rehearsal.size, strict=True)
    for t, (options, rows, position, size) in enumerate(frames, start=1):
        decision = _decide(options, position, size, head.w[0], choice)
        result.lead1.append(_lead(decision.s1, decision.is_target))
        result.lead.append(_lead(decision.fused, decision.is_target))
        result.left.append(len(decision.fused))
        result.mined.append(int(decision.mined.sum()))
        result.corrupted.append(bool((decision.mined & decision.is_target).any()))
        learn = t % SETTINGS.learn_every == 0
        result.rows += learn * rows.y.shape[1] + result.mined[-1]
        if learn or result.mined[-1]:
            nowhere = torch.zeros(1, len(decision.mined), 4)
            head.update(rows, torch.tensor([float(learn)]), Rivals(decision.x[None], decision.mined[None], nowhere, t))
    return result


class FrameDecision(NamedTuple):
    """One frame: the candidates that this kappa leaves, each at the best of its nine places."""

    s1: Float[Tensor, " n"]
    fused: Float[Tensor, " n"]
    x: Float[Tensor, "n d"]
    is_target: Bool[Tensor, " n"]
    mined: Bool[Tensor, " n"]


def _decide(options: Options, position: Tensor, size: Tensor, w: Tensor, choice: Choice) -> FrameDecision:
    kept = options.s1[:, 4] > max(choice.kappa * options.peak, SETTINGS.floor)
    s1, at, x = options.s1[kept], options.at[kept], options.x[kept]
    fused, best = fuse(s1, x @ w, choice.mix)
    number = torch.arange(len(best))
    off = ((at[:, 4] - position) / size).norm(dim=1)
    is_target = (off < 0.5) & (off == off.min()) if len(off) else off > 0
    mined = torch.zeros_like(is_target)
    if choice.mining != "none" and len(off):
        at = at[number, best]
        others = away(at[None], at[None, fused.argmax()], size[None])
        sure = torch.where(fused.max() > SETTINGS.confident, fused.max(), 0.0)
        mined = admitted(others, fused[None], sure[None], SETTINGS.gate)[0]
    return FrameDecision(s1[:, 4], fused, x[number, best], is_target, mined)


def _lead(scores: Tensor, is_target: Tensor) -> float:
    """Score of the target minus the best of the others (0 without others); NaN without the target."""
    if not bool(is_target.any()):
        return float("nan")
    others = scores[~is_target]
    return float(scores[is_target].max() - (others.max() if len(others) else 0.0))
