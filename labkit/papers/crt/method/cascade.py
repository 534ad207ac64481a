"""The tracker: stage 1 filters the search image, stage 2 double-checks what is left.

    crop -> features -> s1 = f * x -> candidates (local maxima) -> s2 = x_c^T w -> argmax (1 - m) s1 + m s2 -> learn

One implementation follows any number of targets side by side (`Cascade`); `CascadeTracker` is the case of one.  The
paper's body is not known to us: the order of the two stages, ridge regression and discrete samples are [paper], the
settings [ours], or defaults of ATOM and DCFST [peer code].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.crt.experiment.sgd_head import Sgd, SgdHead
from labkit.papers.crt.method.augmentation import AUGMENTATIONS, augmented
from labkit.papers.crt.method.convolution import Candidates, Convolution, Regression, State, candidates, localise
from labkit.papers.crt.method.crop import View, crop
from labkit.papers.crt.method.features import Features, HandMade, Maps
from labkit.papers.crt.method.prroi import descriptors
from labkit.papers.crt.method.refine import Refiner
from labkit.papers.crt.method.ridge_head import Ridge, RidgeHead, Rivals, Rows
from labkit.papers.crt.method.sampling import Label, boxes_at, draw_boxes, grid_boxes, label, ring_boxes
from labkit.tracking.tracker import Box, Tracked, check_box, check_frame


@dataclass(frozen=True)
class Settings:
    """Everything a cascade can be told.  The defaults need no training and no download."""

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
    stage2: Literal["ridge", "sgd", "none"] = "ridge"
    dense: bool = False  # stage 2 looks at every cell instead of the candidates
    skip_single: bool = False  # with one candidate there is nothing to decide: leave stage 2 out
    bins: int = 6  # of the RoI, per side
    samples: Literal["rings", "grid", "random"] = "rings"  # random: 50 near the target, 100 far from it
    label: Label = "gaussian"
    scales: tuple[float, ...] = (1.0,)  # tried for each candidate
    damping: float = 0.4  # share of a change of size that is believed
    ridge: Ridge = field(default_factory=Ridge)
    sgd: Sgd = field(default_factory=Sgd)
    mix: float = 0.7  # m: weight of stage 2
    confident: float = 0.25  # fused score from which a frame is learned from
    present: float = 0.25  # score of the winner (stage 2's, where there is one) from which the target counts as present
    stay_when_lost: bool = False  # keep the box where the target is not present, and
    widen: float = 1.0  # search in an area so many times as wide
    refine: bool = False  # box refinement by gradient ascent; needs a trained `Refiner`
    gate: tuple[float, float, float] = (0.4, 0.3, 0.5)  # mining: winner above, margin above, rival above

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= 1:
            raise InputError(f"mix must lie between 0 (stage 1 alone) and 1 (stage 2 alone); got {self.mix}")
        if self.size < 32 or self.search <= 1 or self.bins < 1 or min(self.learn_every, self.improve_every) < 1:
            raise InputError("need size >= 32, search > 1, bins >= 1, learn_every and improve_every >= 1")


class Step(NamedTuple):
    """One frame of each target."""

    boxes: Float[np.ndarray, "batch 4"]
    score: Float[np.ndarray, " batch"]
    present: np.ndarray


@dataclass
class Seen:
    """What the last `update` looked at: for pictures and statistics.  Places in pixels of the search image."""

    view: View
    target: Float[Tensor, "batch 2"]
    scores: Float[Tensor, "batch rows columns"]
    at: Float[Tensor, "batch n 2"]
    valid: Tensor
    s1: Float[Tensor, "batch n"]
    s2: Float[Tensor, "batch n"]
    fused: Float[Tensor, "batch n"]
    winner: Tensor
    skipped: Tensor
    mined: Tensor


class Cascade:
    """Targets tracked side by side; they may live in videos of different sizes."""

    def __init__(
        self,
        settings: Settings | None = None,
        features: Features | None = None,
        refiner: Refiner | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        self.settings = settings or Settings()
        self.features: Features = features if features is not None else HandMade()
        self.device, self.seed, self.refiner = torch.device(device), seed, refiner
        self.seen: Seen | None = None
        if self.settings.refine and refiner is None:
            raise InputError(
                "settings.refine needs a trained Refiner; train one with `refine.fit`, or leave refine off"
            )
        if self.settings.size % self.features.stride:
            raise InputError(
                f"size {self.settings.size} must be a multiple of the features' stride {self.features.stride}"
            )

    # -- first frame --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def init(self, frames: Sequence[np.ndarray], boxes: Sequence[Box] | np.ndarray) -> None:
        """Learn each target from its first frame."""
        s = self.settings
        if len(frames) != len(boxes) or not len(frames):
            raise InputError(f"there must be one box per frame; got {len(frames)} frames and {len(boxes)} boxes")
        checked = [check_box(box, check_frame(frame)) for frame, box in zip(frames, boxes, strict=True)]
        box = torch.tensor(checked, dtype=torch.float32, device=self.device)
        self.centre, self.extent = box[:, :2] + box[:, 2:] / 2, box[:, 2:].clone()
        self.generator = torch.Generator().manual_seed(self.seed)
        self.age, self.lost = 0, torch.zeros(len(box), dtype=torch.bool, device=self.device)
        view = self.view()
        target = self.target_in(view)
        self.regression = Regression(s.stage1, self.features.channels, target / self.features.stride / 4)
        maps, centres = augmented(AUGMENTATIONS[s.augmentation], frames, view, target, self.features, self.generator)
        self.regression.first(
            torch.stack([found.first for found in maps]), torch.stack(centres) / self.features.stride, self.generator
        )
        if s.stage2 != "none":
            self.head = RidgeHead(s.ridge) if s.stage2 == "ridge" else SgdHead(s.sgd, self.seed)
            self.head.first([self._rows(m, c, target) for m, c in zip(maps, centres, strict=True)])
        if s.refine and self.refiner is not None:
            self.refiner.remember(maps[0].second, boxes_at(centres[0][:, None], target)[:, 0])

    def view(self) -> View:
        """Where the next search images lie."""
        side = self.settings.search * self.extent.prod(1).sqrt()
        return View(self.centre, torch.where(self.lost, side * self.settings.widen, side), self.settings.size)

    def target_in(self, view: View) -> Float[Tensor, "batch 2"]:
        """Width and height of the target in crop pixels."""
        return self.extent * (view.size / view.side)[:, None]

    def describe(self, maps: Maps, boxes: Float[Tensor, "batch n 4"]) -> Float[Tensor, "batch n d"]:
        """Stage 2's vector of each box (crop pixels)."""
        return descriptors(maps.second, self.features.strides, boxes, self.settings.bins)

    def _rows(self, maps: Maps, centre: Tensor, target: Tensor) -> Rows:
        """Samples around `centre`, the target itself first."""
        s = self.settings
        boxes = ring_boxes(centre, target)
        if s.samples == "grid":
            boxes = torch.cat([boxes[:, :1], grid_boxes(centre, target)], 1)
        elif s.samples == "random":
            drawn = [draw_boxes(box, 50, 100, self.generator).boxes for box in boxes[:, 0]]
            boxes = torch.cat([boxes[:, :1], torch.stack(drawn)], 1)
        y, omega = label(boxes, boxes[:, 0], s.label)
        return Rows(self.describe(maps, boxes), y, omega)

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
        view = self.view()
        target = self.target_in(view)
        maps = self.features(crop(frames, view))
        scores = self.regression.score(maps.first)
        found = self._candidates(scores)
        place, zoom, seen = self._decide(maps, scores, found, view, target)
        confidence = seen.fused.gather(1, seen.winner[:, None])[:, 0]
        alive = found.valid.any(1)
        surest = seen.s1 if s.stage2 == "none" or s.mix == 0 else seen.s2
        present = alive & (surest.gather(1, seen.winner[:, None])[:, 0] >= s.present)
        state = torch.full(alive.shape, int(State.NORMAL), device=self.device)
        if s.states:
            middle = torch.full_like(target, s.size / 2 / stride - self.regression.shift)
            at, state = localise(scores, target / stride, middle, s.search)
            if s.stage2 == "none":
                place = (at + self.regression.shift) * stride
                alive = present = state != State.NOT_FOUND
        self._move(frames, view, place, zoom, alive if not s.stay_when_lost else alive & present, maps, target)
        self.lost = ~present
        self._learn(maps, view, place, target, alive, confidence, state, seen)
        self.seen = seen
        boxes = torch.cat([self.centre - self.extent / 2, self.extent], 1)
        return Step(boxes.double().cpu().numpy(), confidence.cpu().numpy(), present.cpu().numpy())

    def _candidates(self, scores: Tensor) -> Candidates:
        s = self.settings
        if not s.dense:
            found = candidates(scores, s.kappa, s.floor, s.most)
            n = max(1, int(found.valid.sum(1).max()))
            return Candidates(found.at[:, :n], found.score[:, :n], found.valid[:, :n])
        rows, columns = scores.shape[1:]
        at = torch.cartesian_prod(torch.arange(columns), torch.arange(rows)).to(scores.device)
        at = at.expand(len(scores), -1, -1)
        values = scores[:, at[0, :, 1], at[0, :, 0]]
        return Candidates(at, values, torch.ones_like(values, dtype=torch.bool))

    def _decide(
        self, maps: Maps, scores: Tensor, found: Candidates, view: View, target: Tensor
    ) -> tuple[Tensor, Tensor, Seen]:
        """Place (crop pixels) and change of size of each target, and all that led there."""
        s, stride = self.settings, self.features.stride
        at = (found.at + self.regression.shift) * stride
        count = found.valid.sum(1)
        skipped = count <= 1
        zoom = torch.ones_like(view.side)
        if s.stage2 == "none" or (s.skip_single and bool(skipped.all())):
            s2, fused = torch.zeros_like(found.score), found.score
        else:
            at, zooms, _, s2, fused = self._double_check(maps, scores, found, target)
            if s.skip_single:
                plain = (found.at + self.regression.shift) * stride
                at = torch.where(skipped[:, None, None], plain, at)
                zooms = torch.where(skipped[:, None], torch.ones_like(zooms), zooms)
                fused = torch.where(skipped[:, None], found.score, fused)
                s2 = torch.where(skipped[:, None], found.score, s2)
        fused = fused.masked_fill(~found.valid, -torch.inf)
        winner = fused.argmax(1)
        if s.stage2 != "none" and not (s.skip_single and bool(skipped.all())):
            zoom = zooms.gather(1, winner[:, None])[:, 0]
        fused = fused.masked_fill(~found.valid, 0.0)
        place = at.gather(1, winner[:, None, None].expand(-1, -1, 2))[:, 0]
        nothing = torch.zeros_like(found.valid)
        seen = Seen(view, target, scores, at, found.valid, found.score, s2, fused, winner, skipped, nothing)
        return place, zoom, seen

    def _double_check(
        self, maps: Maps, scores: Tensor, found: Candidates, target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Each candidate and its neighbours by one cell, at each scale: the best of them stands for the candidate."""
        s, stride = self.settings, self.features.stride
        around = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2)).to(scores.device)
        around = around[4:5] if s.dense else around
        limits = torch.tensor([scores.shape[2] - 1, scores.shape[1] - 1], device=scores.device)
        cell = (found.at[:, :, None] + around).clamp_min(0).minimum(limits)  # (batch, n, j, 2)
        rows = torch.arange(len(scores), device=scores.device)[:, None, None]
        s1 = scores[rows, cell[..., 1], cell[..., 0]]
        centre = (cell + self.regression.shift) * stride
        shape, scales = cell.shape[:3], torch.tensor(s.scales, device=scores.device)
        size = target[:, None, None, None] * scales[:, None]  # (batch, 1, 1, scales, 2)
        size = size.expand(*shape, len(scales), 2)
        boxes = torch.cat([centre[..., None, :] - size / 2, size], -1)
        s2 = self.head.score(self.describe(maps, boxes.flatten(1, 3))).reshape(*shape, len(scales))
        fused = (1 - s.mix) * s1[..., None] + s.mix * s2
        best = fused.flatten(2).argmax(2, keepdim=True)
        j, k = best // len(scales), (best % len(scales))[..., 0]
        place = centre.gather(2, j[..., None].expand(-1, -1, -1, 2))[:, :, 0]
        pick = [x.flatten(2).gather(2, best)[..., 0] for x in (s2, fused)]
        return place, scales[k], s1.gather(2, j)[..., 0], pick[0], pick[1]

    def _move(
        self, frames: Sequence[np.ndarray], view: View, place: Tensor, zoom: Tensor, moves: Tensor, maps: Maps,
        target: Tensor,
    ) -> None:  # fmt: skip
        """To `place`, where the target moves at all; never out of the frame."""
        s = self.settings
        centre, extent = view.to_frame(place[:, None])[:, 0], self.extent * (1 + s.damping * (zoom - 1))[:, None]
        if s.refine and self.refiner is not None:
            start = boxes_at(place[:, None], target)[:, 0]
            better = self.refiner.refine(maps.second, start, self.generator)
            centre = view.to_frame((better[:, :2] + better[:, 2:] / 2)[:, None])[:, 0]
            wanted = better[:, 2:] * (view.side / view.size)[:, None]
            extent = self.extent + s.damping * (wanted - self.extent)
        edge = torch.tensor([[f.shape[1], f.shape[0]] for f in frames], dtype=centre.dtype, device=self.device)
        centre = centre.clamp_min(0).minimum(edge)
        extent = extent.maximum(edge.new_tensor(4.0)).minimum(edge)
        self.centre = torch.where(moves[:, None], centre, self.centre)
        self.extent = torch.where(moves[:, None], extent, self.extent)

    def _learn(
        self, maps: Maps, view: View, place: Tensor, target: Tensor, alive: Tensor, confidence: Tensor, state: Tensor,
        seen: Seen,
    ) -> None:  # fmt: skip
        s = self.settings
        sure = alive & (confidence > s.confident)
        learn = sure & (self.age % s.learn_every == 0)
        hard_state = state == State.HARD_NEGATIVE
        if s.states:
            sure = (state == State.NORMAL) | hard_state
            learn = sure & ((self.age % s.learn_every == 0) | hard_state)
        if bool(learn.any()):
            rate = torch.where(hard_state, min(2 * s.stage1.rate, 0.5), s.stage1.rate)
            self.regression.remember(maps.first, place / self.features.stride, learn, rate)
        if s.stage2 != "none" and s.mix > 0:
            rivals = self._rivals(maps, view, target, sure, confidence, place, seen)
            if bool(learn.any()) or bool(rivals.valid.any()):
                self.head.update(self._rows(maps, place, target), learn, rivals)
        if self.age % s.improve_every == 0:
            self.regression.improve()
        elif bool(hard_state.any()):
            self.regression.improve(only=hard_state)

    def _rivals(
        self, maps: Maps, view: View, target: Tensor, sure: Tensor, confidence: Tensor, place: Tensor, seen: Seen
    ) -> Rivals:
        """Candidates away from the winner that may be mined: only where the winner is beyond doubt."""
        if self.settings.stage2 != "ridge" or self.settings.ridge.mining == "none":
            seen.mined = torch.zeros_like(seen.valid)
            d = self.head.w.shape[1] if isinstance(self.head, RidgeHead) else 1
            empty = target.new_zeros(len(target), 0, d)
            none = torch.zeros(len(target), 0, dtype=torch.bool, device=target.device)
            return Rivals(empty, none, target.new_zeros(len(target), 0, 4), self.age)
        away = ((seen.at - place[:, None]) / target[:, None]).norm(dim=2) > 0.6
        mined = admitted(seen.valid & away, seen.fused, torch.where(sure, confidence, 0.0), self.settings.gate)
        seen.mined = mined
        boxes = boxes_at(seen.at, target)
        corner = view.to_frame(boxes[..., :2])
        extent = boxes[..., 2:] * (view.side / view.size)[:, None, None]
        return Rivals(self.describe(maps, boxes), mined, torch.cat([corner, extent], -1), self.age)


def admitted(
    others: Bool[Tensor, "batch n"],
    fused: Float[Tensor, "batch n"],
    confidence: Float[Tensor, " batch"],
    gate: tuple[float, float, float],
) -> Bool[Tensor, "batch n"]:
    """Candidates that may be mined: only where the winner is beyond doubt. [ours]

    Args:
        others: candidates away from the winner; fused: their scores.
        confidence: the winner's fused score; 0 where nothing is to be learned.
        gate: least confidence; least lead over the best of the others and least score to be mined, both as shares of
            the confidence.
    """
    least, margin, hardness = gate
    second = fused.masked_fill(~others, 0.0).amax(1)
    clear = (confidence > least) & (confidence - second > margin * confidence)
    return others & clear[:, None] & (fused > hardness * confidence[:, None])


class CascadeTracker:
    """One target: `init(frame, box)`, then `update(frame)` once per frame."""

    def __init__(
        self,
        settings: Settings | None = None,
        features: Features | None = None,
        refiner: Refiner | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        self.cascade = Cascade(settings, features, refiner, device, seed)

    def init(self, frame: np.ndarray, box: Box) -> None:
        self.cascade.init([frame], [box])

    def update(self, frame: np.ndarray) -> Tracked:
        step = self.cascade.update([frame])
        x, y, w, h = (float(value) for value in step.boxes[0])
        return Tracked((x, y, w, h), float(step.score[0]), bool(step.present[0]))


def stage1_only(settings: Settings | None = None) -> Settings:
    """The ablation without stage 2."""
    return replace(settings or Settings(), stage2="none")
