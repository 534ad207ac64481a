"""A codec small enough to watch: everything but the prediction is a textbook's, so that only the prediction differs.

Luma, 8 x 8 blocks. The flow is given (a sender's choice), averaged over blocks and sent at a quarter of a pixel as the
difference to what earlier flows predict. Four references are brought to the current frame along the chain of flows, a
*combiner* makes the prediction of them, and what is left is sent as quantised cosine coefficients. Coding is in closed
loop: references are decoded frames, rounded to 8 bits.

Symbols come out, not bits; `entropy` prices or writes them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int16
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.flow_warp import chained_warp, warp
from labkit.papers.mlvc.experiment.blocks import SIDE, dct, inverse_dct, quantize, rate_distortion
from labkit.papers.mlvc.experiment.scenes import Clips

REFERENCES = 4
MOTION_STEPS = 4
"""Steps in a pixel of a sent motion vector."""
FLAG_BITS = 1.5
"""What the combiner must save in a block before it is chosen over the plain warp: about the price of saying so."""

Step = Float[Tensor, "n 1 1 1"]
Aligned = Float[Tensor, "n refs height width"]
Plane = Float[Tensor, "n 1 height width"]
Combiner = Callable[[Aligned, Step], Plane]
"""From aligned references, newest first, and the quantiser step to the prediction."""


def limited(aligned: Aligned, n_refs: int) -> Aligned:
    """The same with `n_refs` different references, the oldest of them standing for the rest."""
    return aligned[:, torch.arange(REFERENCES).clamp(max=n_refs - 1)]


def newest(aligned: Aligned, step: Step) -> Plane:
    """The plain warp of the newest reference."""
    return aligned[:, :1]


@dataclass(frozen=True, eq=False)
class Symbols:
    """What is sent. residual: of 8 x 8 blocks, (clips, P-frames, 64, rows, columns). motion: in quarters of a pixel.

    flags: 1 where a block takes the combiner's prediction, 0 the plain warp's; None: no such choice, the combiner's.
    """

    residual: Int16[Tensor, "clips frames 64 rows columns"]
    motion: Int16[Tensor, "clips frames 2 rows columns"]
    flags: Float[Tensor, "clips frames 1 rows columns"] | None

    def part(self, clips: slice) -> "Symbols":
        return Symbols(self.residual[clips], self.motion[clips], None if self.flags is None else self.flags[clips])

    def __len__(self) -> int:
        return len(self.residual)


@dataclass(frozen=True, eq=False)
class Coded:
    """symbols: what is sent. error, prediction_error: mean squared, of what is shown and of the prediction.

    decoded: frames, the first one coded alone. aligned, predicted: what combiners learn from and pictures show; None
    unless asked for.
    """

    symbols: Symbols
    error: Float[Tensor, "clips frames"]
    prediction_error: Float[Tensor, "clips frames"]
    decoded: Float[Tensor, "time clips 1 height width"]
    aligned: Float[Tensor, "frames clips refs height width"] | None = None
    predicted: Float[Tensor, "frames clips 1 height width"] | None = None

    def part(self, clips: slice) -> "Coded":
        """Some of the clips."""
        aligned, predicted = (None if x is None else x[:, clips] for x in (self.aligned, self.predicted))
        return Coded(
            self.symbols.part(clips), self.error[clips], self.prediction_error[clips], self.decoded[:, clips],
            aligned, predicted,
        )  # fmt: skip


@dataclass
class _Kept:
    lists: dict[str, list[Tensor]] = field(default_factory=dict)

    def keep(self, **values: Tensor | None) -> None:
        for name, value in values.items():
            if value is not None:
                self.lists.setdefault(name, []).append(value)

    def stacked(self, name: str, dim: int) -> Tensor:
        return torch.stack(self.lists[name], dim)


def first_frame(frame: Plane, step: Step) -> Plane:
    """Frame 0, coded alone and decoded; the same for every combiner, and not counted."""
    return (inverse_dct(torch.round(dct(frame - 128) / step) * step) + 128).round().clamp(0, 255)


def predicted_motion(last: Float[Tensor, "n 2 height width"]) -> Float[Tensor, "n 2 height width"]:
    """v̄_t = W(v̂_{t-1}, v̂_{t-1}): what stood at p + v moved by v, and goes on moving so."""
    return warp(last, last)


def send_motion(
    flow: Float[Tensor, "n 2 height width"], predicted: Float[Tensor, "n 2 height width"]
) -> tuple[Float[Tensor, "n 2 rows columns"], Float[Tensor, "n 2 height width"]]:
    """Symbols, and the flow v̂ that both ends hold: prediction plus one vector a block."""
    symbols = torch.round(F.avg_pool2d(flow - predicted, SIDE) * MOTION_STEPS)
    return symbols, predicted + F.interpolate(symbols / MOTION_STEPS, scale_factor=SIDE, mode="nearest")


@torch.no_grad()
def code(
    clips: Clips,
    step: Step,
    combine: Combiner = newest,
    n_refs: int = REFERENCES,
    predict_motion: bool = True,
    flagged: bool = False,
    keep: bool = False,
) -> Coded:
    """Code clips, each with its own quantiser step.

    Args:
        clips: one channel, sides multiples of 8.
        n_refs: different references that `combine` sees among its four; the oldest stands for those that are left out.
            1: the newest, four times.
        predict_motion: code flows as differences to `predicted_motion`; else as they are.
        flagged: per block, the combiner's prediction or the plain warp, whichever J prefers.
        keep: aligned references and predictions too.
    """
    _check(clips, step, n_refs)
    frames, flows = clips.frames, clips.flows
    shown = first_frame(frames[0], step)
    references, zero = [shown] * REFERENCES, torch.zeros_like(flows[0])
    motion, kept = [zero] * (REFERENCES - 1), _Kept({"decoded": [shown]})
    for t in range(1, len(frames)):
        symbols, flow = send_motion(flows[t], predicted_motion(motion[0]) if predict_motion else zero)
        chain = torch.stack([flow, *motion], 1)
        aligned = chained_warp(torch.stack(references, 1), chain)[0][:, :, 0]
        aligned = limited(aligned, n_refs)
        prediction, flags = combine(aligned, step), None
        if flagged:
            prediction, flags = better_of(frames[t], prediction, aligned[:, :1], step)
        residual = quantize(dct(frames[t] - prediction), step)
        shown = (prediction + inverse_dct(residual * step)).round().clamp(0, 255)
        kept.keep(residual=residual.short(), motion=symbols.short(), flags=flags, decoded=shown,
                  error=_mse(shown, frames[t]), prediction_error=_mse(prediction, frames[t]))  # fmt: skip
        if keep:
            kept.keep(aligned=aligned, predicted=prediction)
        references, motion = [shown, *references[:-1]], [flow, *motion[:-1]]
    return Coded(
        Symbols(kept.stacked("residual", 1), kept.stacked("motion", 1), kept.stacked("flags", 1) if flagged else None),
        kept.stacked("error", 1),
        kept.stacked("prediction_error", 1),
        kept.stacked("decoded", 0),
        kept.stacked("aligned", 0) if keep else None,
        kept.stacked("predicted", 0) if keep else None,
    )


def better_of(target: Plane, ours: Plane, plain: Plane, step: Step) -> tuple[Plane, Float[Tensor, "n 1 rows columns"]]:
    """Block by block the prediction whose residual costs less, and the flags that say which."""
    costs = [rate_distortion(dct(target - p), step).sum(1, keepdim=True) for p in (ours, plain)]
    flags = (costs[0] + FLAG_BITS < costs[1]).float()
    mask = F.interpolate(flags, scale_factor=SIDE, mode="nearest")
    return plain + mask * (ours - plain), flags


def _mse(a: Plane, b: Plane) -> Float[Tensor, " n"]:
    return (a - b).square().flatten(1).mean(1)


def _check(clips: Clips, step: Step, n_refs: int) -> None:
    time, count, channels, height, width = clips.frames.shape
    if channels != 1 or height % SIDE or width % SIDE:
        raise InputError(
            f"the small codec takes luma with sides that are multiples of {SIDE}; got {channels} x {height} x {width}."
        )
    if time < 2 or len(step) != count or not bool((step > 0).all()):
        raise InputError(
            f"two frames or more, and a positive step for each of the {count} clips; got {time} and {len(step)}."
        )
    if not 1 <= n_refs <= REFERENCES:
        raise InputError(f"n_refs lies between 1 and {REFERENCES}; got {n_refs}.")
