"""Stage 2's learner: ridge regression over the frames seen, with every reading of "adaptive" and of hard negative
mining.

Of the paper's adaptive ridge regression and hard negative mining only the names are known [paper]; the variants are
readings:

    none        running Gram, eta = .02                                                           [peer code: DCFST]
    naive       rivals join the frame's rows with four times the weight, the frame counts with eta = .1      [ours]
    rate        the frame's eta is raised where a rival was mined                                 [peer code: DCFST]
    negatives   a second Gram of rivals alone, label 0                                                       [ours]
    anchored    after each solve a low-rank correction: rivals to 0, frame-1 positives keep their scores     [ours]
    irls        rows weigh (|residual| + eps)^gamma                                                          [ours]
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.papers.crt.method import ridge
from labkit.papers.crt.method.sampling import HardNegatives
from labkit.ranges import within

Mining = Literal["none", "naive", "rate", "negatives", "anchored", "irls"]
Solver = Literal["gram", "dual"]


@dataclass(frozen=True)
class Ridge:
    """Settings of stage 2's learner."""

    lam: float = 0.002  # rows have length 1, a frame's weights sum to 1
    eta: float = 0.02  # how much a frame counts
    keep_first: float = 0.25  # share that the first frame keeps
    solver: Solver = "gram"  # gram: no memory of rows; dual: all rows of the last `frames` frames
    frames: int = 40
    mining: Mining = "none"
    hard_eta: float = 0.04  # eta of a frame with a rival (rate); naive takes .1
    hard_weight: float = 0.2
    anchor_lam: float = 0.5
    gamma: float = 1.0
    capacity: int = 16  # hard negatives kept

    def __post_init__(self) -> None:
        within(1e-12, 1e6, lam=self.lam, anchor_lam=self.anchor_lam)
        within(0, 1, eta=self.eta, hard_eta=self.hard_eta, keep_first=self.keep_first)
        within(0, 1e6, hard_weight=self.hard_weight, gamma=self.gamma)
        within(1, 10_000, frames=self.frames, capacity=self.capacity)


class Rows(NamedTuple):
    """Samples of one frame: features, labels, weights that sum to 1; a weight of 0 leaves a row out."""

    x: Float[Tensor, "batch n d"]
    y: Float[Tensor, "batch n"]
    omega: Float[Tensor, "batch n"]


class Rivals(NamedTuple):
    """Candidates of this frame that are surely not the target."""

    x: Float[Tensor, "batch k d"]
    valid: Bool[Tensor, "batch k"]
    box: Float[Tensor, "batch k 4"]
    """In frame pixels, for pictures."""
    frame: int


class Head(Protocol):
    """A learner for stage 2: `first`, then `update` once a frame."""

    def first(self, frames: list[Rows]) -> None:
        """Learn from the first frame and its augmentations."""
        ...

    def score(self, x: Float[Tensor, "batch n d"]) -> Float[Tensor, "batch n"]: ...

    def update(self, rows: Rows, counts: Float[Tensor, " batch"], rivals: Rivals | None) -> None:
        """Learn from a frame that counts so much for each target: 1 as usual, 0 where its place is not sure.

        rivals: None where nothing is mined.
        """
        ...


class RidgeHead:
    """w of each target, by ridge regression."""

    def __init__(self, settings: Ridge) -> None:
        self.settings = settings

    def first(self, frames: list[Rows]) -> None:
        """Learn from the first frame and its augmentations, each counting the same."""
        if self.settings.solver == "gram":
            grams = [ridge.gram(*rows) for rows in frames]
            mean = [torch.stack(parts).mean(0) for parts in zip(*grams, strict=True)]
            self.running = ridge.RunningGram((mean[0], mean[1]), self.settings.keep_first)
        self.positives = torch.cat([rows.x[:, :1] for rows in frames], 1)  # each frame's first row is the target itself
        self.history = [Rows(*(torch.cat(parts, 1) for parts in zip(*frames, strict=True)))]
        self.hard = HardNegatives(len(self.positives), self.settings.capacity, self.positives)
        self.w = self.solve()

    def score(self, x: Float[Tensor, "batch n d"]) -> Float[Tensor, "batch n"]:
        return (x @ self.w[..., None])[..., 0]

    def update(self, rows: Rows, counts: Float[Tensor, " batch"], rivals: Rivals | None) -> None:
        """See `Head`; `rivals` were admitted by the gate."""
        s = self.settings
        hard = torch.zeros_like(counts, dtype=torch.bool) if rivals is None else rivals.valid.any(1)
        mined = rivals if bool(hard.any()) else None
        eta = (s.eta * counts.to(rows.x.dtype)).clamp_max(1)
        if s.mining in ("naive", "irls") and mined is not None:
            rows = self._joined(rows, mined)
        if s.mining == "naive":
            eta = torch.where(hard, torch.full_like(eta, 0.1), eta)
        if s.mining == "rate":
            eta = torch.where(hard, torch.full_like(eta, s.hard_eta), eta)
        if s.mining == "irls":
            rows = rows._replace(omega=ridge.hardness_weights(rows.omega, rows.y - self.score(rows.x), s.gamma))
        if s.solver == "gram":
            self.running.update(*rows, eta)
        else:
            self.history.append(rows._replace(omega=rows.omega * counts[:, None]))
            self.history = self.history[:1] + self.history[1:][-s.frames :]
        if mined is not None:
            self.hard.push(*mined, self.w)
        self.w = self.solve()

    def solve(self) -> Float[Tensor, "batch d"]:
        s = self.settings
        extra = None
        if s.mining == "negatives" and self.hard.valid.any():
            x = self.hard.x * self.hard.valid[..., None]
            extra = s.hard_weight * (x.mT @ x) / self.hard.valid.sum(1).clamp_min(1)[:, None, None]
        w = self.running.solve(s.lam, extra) if s.solver == "gram" else self._from_history()
        return self._anchored(w) if s.mining == "anchored" and bool(self.hard.valid.any()) else w

    def _joined(self, rows: Rows, rivals: Rivals) -> Rows:
        """The rivals as further rows of the frame, label 0."""
        times = 4.0 if self.settings.mining == "naive" else 1.0
        each = times / rows.y.shape[1] * rivals.valid
        omega = torch.cat([rows.omega, each], 1)
        y = torch.cat([rows.y, torch.zeros_like(each)], 1)
        return Rows(torch.cat([rows.x, rivals.x], 1), y, omega / omega.sum(1, keepdim=True))

    def _from_history(self) -> Float[Tensor, "batch d"]:
        """All rows kept, by the dual, with the weights that eta and `keep_first` give each frame."""
        s, count = self.settings, len(self.history) - 1
        ages = torch.arange(count - 1, -1, -1)
        late = s.eta * (1 - s.eta) ** ages
        weights = [s.keep_first + (1 - s.keep_first) * (1 - s.eta) ** count, *((1 - s.keep_first) * late).tolist()]
        first = self.history[0].omega / self.history[0].omega.sum(1, keepdim=True)
        omegas = [first, *(rows.omega for rows in self.history[1:])]
        omega = torch.cat([w * o for w, o in zip(weights, omegas, strict=True)], 1)
        x, y = (torch.cat([getattr(rows, name) for rows in self.history], 1) for name in ("x", "y"))
        return ridge.fit(x, y, s.lam, omega, form="dual")

    def _anchored(self, w: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """min hard_weight |X_hard w' |^2 + |P w' - P w|^2 + lam |w' - w|^2."""
        s = self.settings
        x = torch.cat([self.hard.x, self.positives], 1)
        keep = torch.ones(self.positives.shape[:2], dtype=x.dtype, device=x.device)
        omega = torch.cat([s.hard_weight * self.hard.valid.to(x.dtype), keep], 1)
        y = torch.cat([torch.zeros_like(self.hard.valid, dtype=x.dtype), (self.positives @ w[..., None])[..., 0]], 1)
        return ridge.fit(x, y, s.anchor_lam, omega, anchor=w, form="dual")
