"""The tracker: stage 1 filters the search image, stage 2 double-checks what is left.

    crop -> features -> s1 = f * x -> candidates (local maxima) -> s2 = x_c^T w -> argmax (1 - m) s1 + m s2 -> learn

A winner below `present` means that the target is lost: its box rests, nothing is learned, and a wider area is searched
until some candidate scores nearly as high as the target did before.  So what stage 2 remembers is the judge, and an
occluder cannot become part of that memory. Where the usual score is low, the target has changed (light, a turn), and
stage 2 forgets faster. [ours, as long-term trackers do]

One implementation follows any number of targets side by side (`Cascade`); `CascadeTracker` is the case of one.  The
paper's body is not known to us: the order of the two stages, ridge regression and discrete samples are [paper], the
settings [ours], or defaults of ATOM and DCFST [peer code].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.crt.method.augmentation import AUGMENTATIONS, augmented
from labkit.papers.crt.method.convolution import Candidates, Convolution, Regression, State, candidates, localise
from labkit.papers.crt.method.crop import View, crop
from labkit.papers.crt.method.features import Features, HandMade, Maps
from labkit.papers.crt.method.prroi import descriptors
from labkit.papers.crt.method.refine import Refiner
from labkit.papers.crt.method.ridge_head import Head, Ridge, RidgeHead, Rivals, Rows
from labkit.papers.crt.method.sampling import admitted, away, boxes_at, labels, ring_boxes
from labkit.ranges import within
from labkit.tracking.tracker import Box, Tracked, check_box, check_frame


@dataclass(frozen=True)
class Settings:
    """All settings of a cascade.  The defaults need no training and no download."""

    size: int = 160  # of the search image, in pixels
    search: float = 5.0  # side of the search area, in targets [peer code]
    augmentation: Literal["light", "atom"] = "light"
    stage1: Convolution = field(default_factory=Convolution)
    learn_every: int = 2  # frames between two samples for the memories
    improve_every: int = 6  # frames between two improvements of stage 1's filter
    states: bool = False  # ATOM's localisation states decide what stage 1 learns
    kappa: float = 0.35  # a candidate reaches this share of the peak,
    floor: float = 0.08  # and this score
    most: int = 12  # candidates
    stage2: bool = True  # False: stage 1 alone
    dense: bool = False  # stage 2 scores every cell instead of the candidates
    skip_single: bool = False  # with one candidate there is nothing to decide: leave stage 2 out
    bins: int = 6  # of the RoI, per side
    scales: tuple[float, ...] = (1.0,)  # tried for each candidate
    damping: float = 0.4  # share of a change of size that is applied
    ridge: Ridge = field(default_factory=Ridge)
    mix: float = 0.7  # m: weight of stage 2
    confident: float = 0.25  # fused score from which a frame is learned from
    present: float = 0.25  # score of the winner (stage 2's, where there is one) from which the target counts as present
    widen: float = 2.0  # a lost target is searched in an area so many times as wide; 1: never lost, it goes on
    again: float = 0.8  # a lost target is found from this share of its usual score on
    misfit: float = 0.6  # with a usual score below this the target has changed: a frame counts twice for stage 2
    refine: bool = False  # box refinement by gradient ascent; needs a trained `Refiner`
    gate: tuple[float, float, float] = (0.4, 0.3, 0.5)  # mining: winner above, margin above, rival above

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= 1:
            raise InputError(f"mix must lie between 0 (stage 1 alone) and 1 (stage 2 alone); got {self.mix}")
        within(32, 4096, size=self.size)
        within(1.1, 100, search=self.search)
        within(1, 10**6, learn_every=self.learn_every, improve_every=self.improve_every, most=self.most)
        within(1, 64, bins=self.bins, number_of_scales=len(self.scales))
        within(0.01, 0.99, kappa=self.kappa)
        within(0, 1, damping=self.damping, again=self.again)
        within(1, 8, widen=self.widen)
        within(-1e6, 1e6, floor=self.floor, confident=self.confident, present=self.present, misfit=self.misfit)
        for scale in self.scales:
            within(0.1, 10, scales=scale)
        for value in self.gate:
            within(-1e6, 1e6, gate=value)


class Step(NamedTuple):
    """One frame of each target."""

    boxes: Float[np.ndarray, "batch 4"]
    score: Float[np.ndarray, " batch"]
    present: np.ndarray


class Decision(NamedTuple):
    """Each candidate at its best position (pixels of the search image), and the strongest of them."""

    at: Float[Tensor, "batch n 2"]
    valid: Bool[Tensor, "batch n"]
    s1: Float[Tensor, "batch n"]
    s2: Float[Tensor, "batch n"]
    """Stage 1's score where stage 2 was left out."""
    fused: Float[Tensor, "batch n"]
    winner: Int[Tensor, " batch"]
    zoom: Float[Tensor, " batch"]
    """Change of size of the winner."""
    single: Bool[Tensor, " batch"]
    """One candidate or none: nothing to decide."""

    @property
    def position(self) -> Float[Tensor, "batch 2"]:
        """Where the winner is."""
        return self.at.gather(1, self.winner[:, None, None].expand(-1, -1, 2))[:, 0]

    def of_winner(self, values: Float[Tensor, "batch n"]) -> Float[Tensor, " batch"]:
        return values.gather(1, self.winner[:, None])[:, 0]


class Diagnostics(NamedTuple):
    """What the last `update` computed: for pictures and statistics."""

    view: View
    target: Float[Tensor, "batch 2"]
    """Width and height in pixels of the search image."""
    scores: Float[Tensor, "batch rows columns"]
    """Of stage 1."""
    decision: Decision
    mined: Bool[Tensor, "batch n"]


USUAL = 0.05
"""How much a frame counts in a target's usual score: a running mean over about twenty frames. [ours]"""
AROUND = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
"""A cell and its eight neighbours, column and row; the cell itself is number 4."""


def neighbours(
    scores: Float[Tensor, "batch rows columns"], at: Int[Tensor, "batch n 2"], around: Int[Tensor, "j 2"] = AROUND
) -> tuple[Int[Tensor, "batch n j 2"], Float[Tensor, "batch n j"]]:
    """The cells around each candidate that lie inside of the map, and stage 1's scores there."""
    limits = torch.tensor([scores.shape[2] - 1, scores.shape[1] - 1], device=scores.device)
    cell = (at[:, :, None] + around.to(at.device)).clamp_min(0).minimum(limits)
    rows = torch.arange(len(scores), device=scores.device)[:, None, None]
    return cell, scores[rows, cell[..., 1], cell[..., 0]]


def fuse(
    s1: Float[Tensor, "*n j"], s2: Float[Tensor, "*n j"], m: float
) -> tuple[Float[Tensor, "*n"], Int[Tensor, "*n"]]:
    """max_j (1 - m) s1 + m s2, the best of a candidate's positions, and its number j."""
    fused = (1 - m) * s1 + m * s2
    best = fused.argmax(-1)
    return fused.gather(-1, best[..., None])[..., 0], best


class Cascade:
    """Targets tracked side by side; they may live in videos of different sizes.

    Args:
        head: makes the learner of stage 2 anew for each `init`; None: a `RidgeHead` with `settings.ridge`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        features: Features | None = None,
        refiner: Refiner | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
        head: Callable[[], Head] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.features: Features = features if features is not None else HandMade()
        self.device, self.seed, self.refiner = torch.device(device), seed, refiner
        self.make_head = head or (lambda: RidgeHead(self.settings.ridge))
        self.last: Diagnostics | None = None
        if self.settings.refine and refiner is None:
            raise InputError(
                "settings.refine needs a trained Refiner; train one with `learning.fit`, or leave refine off"
            )
        if self.settings.size % self.features.stride:
            raise InputError(
                f"size {self.settings.size} must be a multiple of the features' stride {self.features.stride}"
            )

    # -- first frame --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def init(self, frames: Sequence[np.ndarray], boxes: Sequence[Box | np.ndarray] | np.ndarray) -> None:
        """Learn each target from its first frame."""
        s = self.settings
        if len(frames) != len(boxes) or not len(frames):
            raise InputError(f"there must be one box per frame; got {len(frames)} frames and {len(boxes)} boxes")
        checked = [check_box(box, check_frame(frame)) for frame, box in zip(frames, boxes, strict=True)]
        box = torch.tensor(checked, dtype=torch.float32, device=self.device)
        self.centre, self.extent = box[:, :2] + box[:, 2:] / 2, box[:, 2:].clone()
        self.generator = torch.Generator().manual_seed(self.seed)
        self.age = 0
        self.lost = torch.zeros(len(box), dtype=torch.bool, device=self.device)
        self.usual = torch.ones(len(box), device=self.device)  # score; until there is one, what the labels ask for
        target = self.target_in(self.view())
        maps, centres = self.first_frame(frames)
        self.regression = Regression(s.stage1, self.features.channels, target / self.features.stride / 4)
        self.regression.first(
            torch.stack([each.first for each in maps]), torch.stack(centres) / self.features.stride, self.generator
        )
        if s.stage2:
            self.head = self.make_head()
            self.head.first([self.rows(m, c, target) for m, c in zip(maps, centres, strict=True)])
        if s.refine and self.refiner is not None:
            self.refiner.remember(maps[0].second, boxes_at(centres[0][:, None], target)[:, 0])

    def first_frame(self, frames: Sequence[np.ndarray]) -> tuple[list[Maps], list[Float[Tensor, "batch 2"]]]:
        """Features of the first frame in each of its augmentations, and the targets' centres in crop pixels."""
        ways, view = AUGMENTATIONS[self.settings.augmentation], self.view()
        return augmented(ways, frames, view, self.target_in(view), self.features, self.generator)

    def view(self) -> View:
        """Where the next search images lie."""
        return View(self.centre, self.settings.search * self.extent.prod(1).sqrt(), self.settings.size)

    def target_in(self, view: View) -> Float[Tensor, "batch 2"]:
        """Width and height of the target in crop pixels."""
        return self.extent * (view.size / view.side)[:, None]

    def describe(self, maps: Maps, boxes: Float[Tensor, "batch n 4"]) -> Float[Tensor, "batch n d"]:
        """Stage 2's vector of each box (crop pixels)."""
        return descriptors(maps.second, self.features.strides, boxes, self.settings.bins)

    def rows(self, maps: Maps, centre: Float[Tensor, "batch 2"], target: Float[Tensor, "batch 2"]) -> Rows:
        """Samples for stage 2 around `centre`, the target itself first."""
        boxes = ring_boxes(centre, target)
        return Rows(self.describe(maps, boxes), *labels(boxes, boxes[:, 0]))

    # -- every other frame --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def update(self, frames: Sequence[np.ndarray]) -> Step:
        """Find each target in the next frame of its video, then learn from it."""
        s, stride = self.settings, self.features.stride
        if not hasattr(self, "centre"):
            raise InputError("call init(frame, box) before update(frame)")
        if len(frames) != len(self.centre):
            raise InputError(f"there are {len(self.centre)} targets; got {len(frames)} frames")
        for frame in frames:
            check_frame(frame)
        self.age += 1
        if bool(self.lost.any()):
            self._search_again(frames)
        view = self.view()
        target = self.target_in(view)
        maps = self.features(crop(frames, view))
        scores = self.regression.score(maps.first)
        decision = self._decide(maps, scores, target)
        position = decision.position
        confidence = decision.of_winner(decision.fused)
        alive = decision.valid.any(1)
        present = alive & (self._judged(decision) >= torch.where(self.lost, s.again * self.usual, s.present))
        state = torch.full(alive.shape, int(State.NORMAL), device=self.device)
        if s.states:
            middle = torch.full_like(target, s.size / 2 / stride - self.regression.shift)
            at, state = localise(scores, target / stride, middle, s.search)
            if not s.stage2:
                position = (at + self.regression.shift) * stride
                alive = present = state != State.NOT_FOUND
        fresh = max(USUAL, 1 / self.age)  # a plain mean at first
        self.usual = torch.where(present, self.usual.lerp(self._judged(decision), fresh), self.usual)
        if s.widen > 1:
            alive, self.lost = alive & present, ~present
        self._move(frames, view, position, decision.zoom, alive, maps, target)
        mined = self._learn(maps, view, position, target, alive, confidence, state, decision)
        self.last = Diagnostics(view, target, scores, decision, mined)
        boxes = torch.cat([self.centre - self.extent / 2, self.extent], 1)
        return Step(boxes.double().cpu().numpy(), confidence.cpu().numpy(), present.cpu().numpy())

    def _judged(self, decision: Decision) -> Float[Tensor, " batch"]:
        """The winner's score by which presence is judged: stage 2's, where it counts."""
        return decision.of_winner(decision.s1 if self.settings.mix == 0 else decision.s2)

    def _search_again(self, frames: Sequence[np.ndarray]) -> None:
        """Look for the lost targets in a wider area, at the same resolution, and go where one is found."""
        s, near, stride = self.settings, self.view(), self.features.stride
        size = round(s.size * s.widen / stride) * stride
        wide = View(near.centre, near.side * (size / s.size), size)
        maps = self.features(crop(frames, wide))
        decision = self._decide(maps, self.regression.score(maps.first), self.target_in(wide))
        centre = wide.to_frame(decision.position[:, None])[:, 0]
        inside = ((centre > 0) & (centre < self._edges(frames))).all(1)
        recovered = self.lost & inside & decision.valid.any(1) & (self._judged(decision) >= s.again * self.usual)
        self.centre = torch.where(recovered[:, None], centre, self.centre)

    def _edges(self, frames: Sequence[np.ndarray]) -> Float[Tensor, "batch 2"]:
        """Width and height of each frame."""
        return torch.tensor([[f.shape[1], f.shape[0]] for f in frames], dtype=torch.float32, device=self.device)

    def _candidates(self, scores: Tensor) -> Candidates:
        s = self.settings
        if not s.dense:
            peaks = candidates(scores, s.kappa, s.floor, s.most)
            n = max(1, int(peaks.valid.sum(1).max()))
            return Candidates(peaks.at[:, :n], peaks.score[:, :n], peaks.valid[:, :n])
        rows, columns = scores.shape[1:]
        at = torch.cartesian_prod(torch.arange(columns), torch.arange(rows)).to(scores.device)
        at = at.expand(len(scores), -1, -1)
        values = scores[:, at[0, :, 1], at[0, :, 0]]
        return Candidates(at, values, torch.ones_like(values, dtype=torch.bool))

    def _decide(self, maps: Maps, scores: Tensor, target: Tensor) -> Decision:
        """Filter, double-check what is left, and take the strongest."""
        s, peaks = self.settings, self._candidates(scores)
        at = (peaks.at + self.regression.shift) * self.features.stride
        zoom, s2, fused = torch.ones_like(peaks.score), peaks.score, peaks.score
        single = peaks.valid.sum(1) <= 1
        checked = ~single if s.skip_single else torch.ones_like(single)
        if s.stage2 and bool(checked.any()):
            checked = checked[:, None]
            at2, zoom2, s2, fused = self._double_check(maps, scores, peaks, target)
            at, zoom = torch.where(checked[..., None], at2, at), torch.where(checked, zoom2, zoom)
            s2, fused = (torch.where(checked, each, peaks.score) for each in (s2, fused))
        winner = fused.masked_fill(~peaks.valid, -torch.inf).argmax(1)
        fused = fused.masked_fill(~peaks.valid, 0.0)
        zoom = zoom.gather(1, winner[:, None])[:, 0]
        return Decision(at, peaks.valid, peaks.score, s2, fused, winner, zoom, single)

    def _double_check(
        self, maps: Maps, scores: Tensor, peaks: Candidates, target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each candidate and its neighbours by one cell, at each scale: the best of them stands for the candidate.

        Returns its position, change of size, stage 2's and the fused score.
        """
        s = self.settings
        cell, s1 = neighbours(scores, peaks.at, AROUND[4:5] if s.dense else AROUND)  # (batch, n, j)
        centre = (cell + self.regression.shift) * self.features.stride
        shape, scales = cell.shape[:3], torch.tensor(s.scales, device=scores.device)
        size = (target[:, None, None, None] * scales[:, None]).expand(*shape, len(scales), 2)
        boxes = torch.cat([centre[..., None, :] - size / 2, size], -1)
        s2 = self.head.score(self.describe(maps, boxes.flatten(1, 3))).reshape(*shape, len(scales)).flatten(2)
        fused, best = fuse(s1[..., None].expand(*shape, len(scales)).flatten(2), s2, s.mix)
        cell, scale = (best // len(scales))[..., None, None], best % len(scales)
        at = centre.gather(2, cell.expand(-1, -1, -1, 2))[:, :, 0]
        return at, scales[scale], s2.gather(2, best[..., None])[..., 0], fused

    def _move(
        self, frames: Sequence[np.ndarray], view: View, position: Tensor, zoom: Tensor, moves: Tensor, maps: Maps,
        target: Tensor,
    ) -> None:  # fmt: skip
        """To `position`, where the target moves at all; never out of the frame."""
        s = self.settings
        centre, extent = view.to_frame(position[:, None])[:, 0], self.extent * (1 + s.damping * (zoom - 1))[:, None]
        if s.refine and self.refiner is not None:
            start = boxes_at(position[:, None], target)[:, 0]
            better = self.refiner.refine(maps.second, start, self.generator)
            centre = view.to_frame((better[:, :2] + better[:, 2:] / 2)[:, None])[:, 0]
            wanted = better[:, 2:] * (view.side / view.size)[:, None]
            extent = self.extent + s.damping * (wanted - self.extent)
        edge = self._edges(frames)
        centre = centre.clamp_min(0).minimum(edge)
        extent = extent.maximum(edge.new_tensor(4.0)).minimum(edge)
        self.centre = torch.where(moves[:, None], centre, self.centre)
        self.extent = torch.where(moves[:, None], extent, self.extent)

    def _learn(
        self, maps: Maps, view: View, position: Tensor, target: Tensor, alive: Tensor, confidence: Tensor,
        state: Tensor, decision: Decision,
    ) -> Bool[Tensor, "batch n"]:  # fmt: skip
        """Both stages, from the frames that are sure; the candidates that were mined as hard negatives."""
        s = self.settings
        sure = alive & (confidence > s.confident)
        learn = sure & (self.age % s.learn_every == 0)
        hard_state = state == State.HARD_NEGATIVE
        if s.states:
            sure = alive & ((state == State.NORMAL) | hard_state)
            learn = sure & ((self.age % s.learn_every == 0) | hard_state)
        if bool(learn.any()):
            rate = torch.where(hard_state, min(2 * s.stage1.rate, 0.5), s.stage1.rate)
            self.regression.remember(maps.first, position / self.features.stride, learn, rate)
        mined = torch.zeros_like(decision.valid)
        if s.stage2 and s.mix > 0:
            rivals = None
            if s.ridge.mining != "none":
                others = decision.valid & away(decision.at, position, target)
                mined = admitted(others, decision.fused, torch.where(sure, confidence, 0.0), s.gate)
                rivals = self._rivals(maps, view, target, decision.at, mined)
            if bool(learn.any()) or bool(mined.any()):
                counts = learn * torch.where(self.usual < s.misfit, 2.0, 1.0)
                self.head.update(self.rows(maps, position, target), counts, rivals)
        if self.age % s.improve_every == 0:
            self.regression.improve()
        elif bool(hard_state.any()):
            self.regression.improve(only=hard_state)
        return mined

    def _rivals(self, maps: Maps, view: View, target: Tensor, at: Tensor, mined: Tensor) -> Rivals:
        boxes = boxes_at(at, target)
        extent = boxes[..., 2:] * (view.side / view.size)[:, None, None]
        in_frame = torch.cat([view.to_frame(boxes[..., :2]), extent], -1)
        return Rivals(self.describe(maps, boxes), mined, in_frame, self.age)


class CascadeTracker:
    """One target: `init(frame, box)`, then `update(frame)` once per frame."""

    def __init__(
        self,
        settings: Settings | None = None,
        features: Features | None = None,
        refiner: Refiner | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
        head: Callable[[], Head] | None = None,
    ) -> None:
        self.cascade = Cascade(settings, features, refiner, device, seed, head)

    def init(self, frame: np.ndarray, box: Box) -> None:
        self.cascade.init([frame], [box])

    def update(self, frame: np.ndarray) -> Tracked:
        step = self.cascade.update([frame])
        x, y, w, h = (float(value) for value in step.boxes[0])
        return Tracked((x, y, w, h), float(step.score[0]), bool(step.present[0]))


def stage1_only(settings: Settings | None = None) -> Settings:
    """The ablation without stage 2."""
    return replace(settings or Settings(), stage2=False)
