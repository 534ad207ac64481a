"""From four aligned references to one prediction: by least squares, or by a small network that decides by pixel."""

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.mlvc.experiment.blocks import SIDE, dct, rate_distortion
from labkit.papers.mlvc.experiment.closed_loop import REFERENCES, Aligned, Coded, Plane, Step, limited
from labkit.papers.mlvc.experiment.scenes import Clips
from labkit.progress import progress
from labkit.seeds import derive
from labkit.workbench.runs import Run, Stateful
from labkit.workbench.training import generator_at

CROPS, CROP = 31, 32
Loss = Literal["rate", "mse"]


@dataclass(frozen=True, eq=False)
class Lessons:
    """What combiners learn from: aligned references, the frame they should predict, the quantiser step."""

    aligned: Float[Tensor, "n refs height width"]
    target: Float[Tensor, "n 1 height width"]
    step: Float[Tensor, "n 1 1 1"]

    def __len__(self) -> int:
        return len(self.aligned)

    @classmethod
    def of(cls, clips: Clips, coded: Coded, step: Step) -> "Lessons":
        """Every P-frame of clips that were coded with `keep`."""
        if coded.aligned is None:
            raise InputError("combiners learn from clips that were coded with keep=True.")
        frames = len(coded.aligned)
        return cls(coded.aligned.flatten(0, 1), clips.frames[1:].flatten(0, 1), step.repeat(frames, 1, 1, 1))


# -- least squares ----------------------------------------------------------------------------------------------------


def neighbours(aligned: Aligned, n_refs: int) -> Float[Tensor, "n taps height width"]:
    """3 x 3 taps of each of `n_refs` references; of several, their median as well; a constant."""
    shown = aligned[:, :n_refs]
    taps = F.unfold(F.pad(shown, (1, 1, 1, 1), mode="replicate"), 3).view(len(aligned), 9 * n_refs, *aligned.shape[2:])
    more = [shown.median(1, keepdim=True).values] if n_refs > 1 else []
    return torch.cat([taps, *more, torch.full_like(aligned[:, :1], 255.0)], 1)


class LinearCombiner:
    """One set of weights for all pixels of all frames at a quantiser step, fitted by least squares.

    Args:
        weights: per quantiser step.
    """

    def __init__(self, n_refs: int, weights: dict[float, Tensor]) -> None:
        self.n_refs, self.weights = n_refs, weights

    @classmethod
    def fitted(cls, lessons: Lessons, n_refs: int) -> "LinearCombiner":
        weights = {}
        for step in lessons.step.unique().tolist():
            rows = lessons.step[:, 0, 0, 0] == step
            x = neighbours(lessons.aligned[rows], n_refs).transpose(0, 1).flatten(1).double()
            y = lessons.target[rows].flatten().double()
            gram = x @ x.T + torch.eye(len(x), dtype=torch.float64)
            weights[step] = torch.linalg.solve(gram, x @ y).float()
        return cls(n_refs, weights)

    def __call__(self, aligned: Aligned, step: Step) -> Plane:
        weights = torch.stack([self.weights[value] for value in step.flatten().tolist()])
        return (neighbours(aligned, self.n_refs) * weights[:, :, None, None]).sum(1, keepdim=True)


# -- a small network --------------------------------------------------------------------------------------------------


class PixelCombiner(nn.Module):
    """x̄ = w_1 + 8 net((w_1 - 128) / 64, (w_2 - w_1) / 8, (w_3 - w_1) / 8, (w_4 - w_1) / 8, log2(q / 10))

    w_k: references, aligned, newest first; q: the quantiser step, so that one network serves all of them. Three
    convolutions 3 x 3 and a fourth that starts at 0: training begins at the plain warp. MMC-Net in small. [ours]
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        sizes = (REFERENCES + 1, channels, channels, channels)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.1)]
        last = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(*layers, last)

    def forward(self, aligned: Aligned, step: Step) -> Plane:
        first = aligned[:, :1]
        inputs = [(first - 128) / 64, (aligned[:, 1:] - first) / 8, torch.log2(step / 10).expand_as(first)]
        return first + 8 * self.net(torch.cat(inputs, 1))


def loss_of(prediction: Plane, target: Plane, step: Step, kind: Loss) -> Float[Tensor, ""]:
    """rate: J of the residual's cosine coefficients, in bits a pixel. mse: the squared error, in units of 10 levels."""
    residual = target - prediction
    if kind == "rate":
        return rate_distortion(dct(residual), step).mean()
    return (residual / 10).square().mean()


def fit(
    net: PixelCombiner,
    lessons: Lessons,
    n_refs: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    run: Run,
    kind: Loss = "rate",
) -> PixelCombiner:
    """Adam with one cycle of the step size, on random crops of 32 x 32.  Resumes from the run's checkpoint.

    Arms that are compared see the same crops in the same order.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.15)
    state: dict[str, Stateful] = {"net": net, "optimizer": optimizer, "schedule": schedule}
    start = run.resume(state)
    for step in progress(range(start, steps), "combiner", total=steps, initial=start):
        aligned, target, q = _crops(lessons, batch, generator_at(seed, CROPS, step))
        loss = loss_of(net(limited(aligned, n_refs), q), target, q, kind)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            run.log(step, loss=loss.item())
        run.save_if_due(step + 1, state)
    return net.eval()


def _crops(lessons: Lessons, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Random frames, cut at one random place on the grid of blocks."""
    index = torch.randint(len(lessons), (batch,), generator=generator)
    top, left = (
        SIDE * int(torch.randint(0, max(0, side - CROP) // SIDE + 1, (), generator=generator))
        for side in lessons.target.shape[2:]
    )
    window = (..., slice(top, top + CROP), slice(left, left + CROP))
    return lessons.aligned[index][window], lessons.target[index][window], lessons.step[index]


def new_combiner(seed: int, channels: int) -> PixelCombiner:
    """Its random start, from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, CROPS))
        return PixelCombiner(channels)
