"""Types of the soft quantiser's bodies, its formula by plain autograd, and the two passes in PyTorch."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# Elements a thread takes at a time on a CPU: few enough for the temporaries to stay in cache, many enough to hide the
# cost of calling an operator. Measured from 2^13 to 2^30: 2^17 and 2^18 are best, 2^13 takes twice as long.
CHUNK = 1 << 17


def soft_quantize_reference(
    x: Float[Tensor, "*shape"],
    levels: Float[Tensor, " steps_and_one"],
    thresholds: Float[Tensor, " steps"],
    alpha: Float[Tensor, ""] | float,
    beta: Float[Tensor, ""] | float,
    temperature: Float[Tensor, ""] | float,
) -> Float[Tensor, "*shape"]:
    """The same function by plain autograd: what the kernel is tested against, and the rival in the benchmark."""
    inner = levels[0]
    for gap, threshold in zip(levels.diff(), thresholds, strict=True):
        inner = inner + gap * torch.sigmoid(temperature * (beta * x - threshold))
    return alpha * inner


class Staircase(NamedTuple):
    """All that the two passes need besides the memory they read and write; tensors of one element where not named."""

    levels: Tensor  # (steps + 1,)
    thresholds: Tensor  # (steps,)
    alpha: Tensor
    beta: Tensor
    temperature: Tensor
    bell_temperature: Tensor | None  # None: the same as `temperature`, so one sigmoid serves both
    bell_height: Tensor
    clamp: float


class Body(NamedTuple):
    """The two passes over flat memory. A CPU and a GPU have one each."""

    forward: Callable[[Tensor, Tensor, Staircase], None]
    """(x, y, staircase): writes y."""
    backward: Callable[[Tensor, Tensor, Tensor, Staircase, bool, bool], Tensor]
    """(dy, x, dx, staircase, need_scales, need_thresholds): writes dx; gives (2 + steps) sums over all elements of
    dy times: y / alpha, x times the slope, each bell. Slope and bells without the factor alpha T."""


def _forward(x: Tensor, y: Tensor, p: Staircase) -> None:
    """Chunk by chunk and in place: three passes in cache for each step.

    The identity sigmoid(z) = (1 + tanh(z / 2)) / 2 would spare binary weights one pass, but PyTorch's tanh takes five
    times as long as its sigmoid on a CPU (2.5 against 0.5 ns an element, measured).
    """
    gaps, steps, alpha = _gaps(p), _steps(p, p.temperature.item(), like=x), p.alpha.item()
    for x_part, y_part, (inner, z) in _chunks(2, x, y):
        x_part, total = x_part.to(z.dtype), p.levels[0].to(z.dtype)
        for gap, step in zip(gaps, steps, strict=True):
            total = torch.add(total, step(x_part, out=z), alpha=gap, out=inner)
        torch.mul(inner, alpha, out=y_part)


def _backward(dy: Tensor, x: Tensor, dx: Tensor, p: Staircase, need_scales: bool, need_thresholds: bool) -> Tensor:
    gaps, temperature = _gaps(p), p.temperature.item()
    bell_temperature = temperature if p.bell_temperature is None else p.bell_temperature.item()
    bells = _steps(p, bell_temperature, like=x)
    shared = bell_temperature == temperature  # one sigmoid serves the bell and y
    steps = bells if shared else _steps(p, temperature, like=x)
    factor = p.alpha.item() * p.beta.item() * p.bell_height.item()
    sums = [0.0] * (2 + len(gaps))  # Python floats: chunks add up in float64, one after the other
    for dy_part, x_part, dx_part, (inner, slope, z) in _chunks(3, dy, x, dx):
        x_part, total, rise = x_part.to(z.dtype), p.levels[0].to(z.dtype), z.new_zeros(())
        for i, (gap, step, bell_step) in enumerate(zip(gaps, steps, bells, strict=True)):
            if need_scales and not shared:
                total = torch.add(total, step(x_part, out=z), alpha=gap, out=inner)
            g = bell_step(x_part, out=z)
            if need_scales and shared:
                total = torch.add(total, g, alpha=gap, out=inner)
            bell = torch.addcmul(g, g, g, value=-1, out=g)  # g (1 - g)
            rise = torch.add(rise, bell, alpha=gap, out=slope)
            if need_thresholds:
                sums[2 + i] += gap * bell.mul_(dy_part).sum().item()
        slope.mul_(dy_part)
        if need_scales:
            sums[0] += inner.mul_(dy_part).sum().item()
            sums[1] += torch.mul(slope, x_part, out=z).sum().item()
        torch.mul(slope, factor, out=dx_part)
    return torch.tensor(sums, dtype=torch.float64, device=x.device)


TORCH_BODY = Body(_forward, _backward)


def _gaps(p: Staircase) -> list[float]:
    return p.levels.double().diff().tolist()


def _steps(p: Staircase, temperature: float, like: Tensor) -> list[Callable[..., Tensor]]:
    """One function x -> sigmoid(T (beta x - b)) per threshold; at infinite T the step 1[beta x > b]."""
    beta, c = p.beta.item(), p.clamp

    def hard(x: Tensor, out: Tensor, threshold: float) -> Tensor:
        torch.mul(x, beta, out=out)  # rounded as wherever else beta x is compared with a threshold
        return torch.gt(out, threshold, out=out)

    def soft(x: Tensor, out: Tensor, offset: Tensor) -> Tensor:
        torch.add(offset, x, alpha=temperature * beta, out=out)  # T beta x - T b in one pass
        return (out.clamp_(-c, c) if math.isfinite(c) else out).sigmoid_()

    if math.isinf(temperature):
        return [functools.partial(hard, threshold=threshold) for threshold in p.thresholds.tolist()]
    offsets = -temperature * p.thresholds.detach().to(compute_dtype(like))
    return [functools.partial(soft, offset=offset) for offset in offsets]


def _chunks(count: int, *wholes: Tensor) -> Iterator[tuple[Any, ...]]:
    """Chunk after chunk of each of `wholes`, and `count` temporaries of its length, used again each time."""
    n, dtype = wholes[0].numel(), compute_dtype(wholes[0])
    size = CHUNK * torch.get_num_threads() if wholes[0].device.type == "cpu" else max(n, 1)
    temporaries = torch.empty(count, min(size, n), dtype=dtype, device=wholes[0].device)
    for parts in zip(*(whole.split(size) for whole in wholes), strict=True):
        yield *parts, temporaries[:, : len(parts[0])]


def compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
