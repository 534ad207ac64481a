"""The soft quantiser of Quantization Networks (1911.09464), fused: forward and backward each read the input once.

    g_i = sigmoid(T (beta x - b_i))          y = alpha (Y_1 + sum_i s_i g_i),   s_i = Y_{i+1} - Y_i

    dy/dx     =  alpha beta T sum_i s_i g_i (1 - g_i)          dy/dalpha = y / alpha
    dy/dbeta  =  alpha x    T sum_i s_i g_i (1 - g_i)          dy/db_i   = -alpha T s_i g_i (1 - g_i)

Y_1 is the lowest level: minus the offset o of the paper for weights, 0 for activations. Autograd would keep every g_i
(3 tensors of the activation's size for 2 bits, 15 for 4 bits); here only x is kept and g_i is computed again.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError

# Elements a thread takes at a time on a CPU: few enough for the temporaries to stay in cache, many enough to hide the
# cost of calling an operator. Measured from 2^13 to 2^30: 2^17 and 2^18 are best, 2^13 takes twice as long.
CHUNK = 1 << 17


def soft_quantize(
    x: Float[Tensor, "*shape"],
    levels: Float[Tensor, " steps_and_one"],
    thresholds: Float[Tensor, " steps"],
    alpha: Float[Tensor, ""] | float,
    beta: Float[Tensor, ""] | float,
    temperature: Float[Tensor, ""] | float,
    *,
    bell_temperature: Float[Tensor, ""] | float | None = None,
    bell_height: Float[Tensor, ""] | float | None = None,
    clamp: float = math.inf,
    gap_inside: bool = False,
) -> Float[Tensor, "*shape"]:
    """y = alpha (Y_1 + sum_i s_i sigmoid(T (beta x - b_i))): a staircase that gradients can climb.  [paper]

    Gradients reach x, alpha, beta and the thresholds; sums are taken in a fixed order, so a result repeats to the bit.
    float16 and bfloat16 are computed in float32. On a GPU give T, alpha and beta as tensors: nothing then waits for it.

    Args:
        levels: Y, ascending; never trained.
        thresholds: b, one fewer than levels, in units of beta x.
        temperature: T > 0; infinity is the hard step 1[beta x > b], which needs `bell_temperature`.
        bell_temperature: T_b of a backward pass that is wider than the forward one is steep: g_i is taken at T_b
            there. None: T, the derivative itself.
        bell_height: the factor before sum_i s_i g_i (1 - g_i). None: the bell's own temperature.
            `bell_temperature=1, bell_height=T` is the backward pass of binary weights.  [official code]
        clamp: c bounds T (beta x - b) to [-c, c] in both passes, and the gradient is the sigmoid's at the bound:
            it never falls below 4.54e-5 of T for c = 10, instead of vanishing.  [official code]
        gap_inside: q (1 - q) with q = s_i g_i in place of s_i g_i (1 - g_i); right only where s_i = 1.  [official code]

    Raises:
        InputError: shapes that do not fit, a temperature that is not positive, trainable levels.
    """
    _check(x, levels, thresholds, temperature, bell_temperature, clamp)
    if bell_height is None:
        bell_height = temperature if bell_temperature is None else bell_temperature
    alpha, beta, temperature, bell_height = (_scalar(value, x) for value in (alpha, beta, temperature, bell_height))
    bell_temperature = None if bell_temperature is None else _scalar(bell_temperature, x)
    y: Tensor = _soft_quantize(
        x, levels, thresholds, alpha, beta, temperature, bell_temperature, bell_height, clamp, gap_inside
    )
    return y


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
    gap_inside: bool


class Body(NamedTuple):
    """The two passes over flat memory. A CPU and a GPU have one each."""

    forward: Callable[[Tensor, Tensor, Staircase], None]
    """(x, y, staircase): writes y."""
    backward: Callable[[Tensor, Tensor, Tensor, Staircase, bool, bool], Tensor]
    """(dy, x, dx, staircase, need_scales, need_thresholds): writes dx; gives (2 + steps) sums over all elements of
    dy times: y / alpha, x times the slope, each bell. Slope and bells without the factor alpha T."""


# Two custom operators: torch.compile takes them as they are, without breaking its graph.


@torch.library.custom_op("labkit::soft_quantize", mutates_args=())
def _soft_quantize(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor, temperature: Tensor,
    bell_temperature: Tensor | None, bell_height: Tensor, clamp: float, gap_inside: bool,
) -> Tensor:  # fmt: skip
    p = Staircase(levels, thresholds, alpha, beta, temperature, bell_temperature, bell_height, clamp, gap_inside)
    y = torch.empty_like(x)  # dense, and in x's order of memory: channels_last stays channels_last
    _body(x).forward(_flat(x, y), _flat(y, y), p)
    return y


@torch.library.custom_op("labkit::soft_quantize_backward", mutates_args=())
def _soft_quantize_backward(
    dy: Tensor, x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor, temperature: Tensor,
    bell_temperature: Tensor | None, bell_height: Tensor, clamp: float, gap_inside: bool,
    need_scales: bool, need_thresholds: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    p = Staircase(levels, thresholds, alpha, beta, temperature, bell_temperature, bell_height, clamp, gap_inside)
    dx = torch.empty_like(x)
    sums = _body(x).backward(_flat(dy, dx), _flat(x, dx), _flat(dx, dx), p, need_scales, need_thresholds)
    return dx, sums


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.clamp, ctx.gap_inside = inputs
    ctx.save_for_backward(*tensors)  # x, and a few numbers


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, levels, thresholds, alpha, beta, *temperatures = ctx.saved_tensors
    _, _, need_thresholds, need_alpha, need_beta, *_ = ctx.needs_input_grad
    dx, sums = _soft_quantize_backward(
        dy, x, levels, thresholds, alpha, beta, *temperatures, ctx.clamp, ctx.gap_inside,
        need_alpha or need_beta, need_thresholds,
    )  # fmt: skip
    factor = alpha * temperatures[-1]  # alpha times the bell's height
    dthresholds = (-factor * sums[2:]).to(thresholds.dtype) if need_thresholds else None
    dalpha = sums[0].to(alpha.dtype) if need_alpha else None
    dbeta = (factor * sums[1]).to(beta.dtype) if need_beta else None
    return dx, None, dthresholds, dalpha, dbeta, None, None, None, None, None


_soft_quantize.register_autograd(_gradients, setup_context=_keep_input)


@_soft_quantize.register_fake
def _shape_of_y(x: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(x)


@_soft_quantize_backward.register_fake
def _shapes_of_gradients(dy: Tensor, x: Tensor, levels: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), levels.new_empty(len(levels) + 1, dtype=torch.float64)


def _body(x: Tensor) -> Body:
    if not x.is_cuda:
        return TORCH_BODY
    try:
        from labkit.kernels.soft_quantize_triton import TRITON_BODY
    except ImportError:  # no Triton on this system: the plain passes work on any device, only more slowly
        return TORCH_BODY
    return TRITON_BODY


def _forward(x: Tensor, y: Tensor, staircase: Staircase) -> None:
    """Chunk by chunk and in place: three passes in cache for each step.

    The identity sigmoid(z) = (1 + tanh(z / 2)) / 2 would spare binary weights one pass, but PyTorch's tanh takes five
    times as long as its sigmoid on a CPU (2.5 against 0.5 ns an element, measured).
    """
    p, gaps = _numbers(staircase), _gaps(staircase)
    steps = _steps(staircase, p.temperature, like=x)
    for x_part, y_part, (inner, z) in _chunks(2, x, y):
        x_part, total = x_part.to(z.dtype), p.lowest.to(z.dtype)
        for gap, step in zip(gaps, steps, strict=True):
            total = torch.add(total, step(x_part, out=z), alpha=gap, out=inner)
        torch.mul(inner, p.alpha, out=y_part)


def _backward(
    dy: Tensor, x: Tensor, dx: Tensor, staircase: Staircase, need_scales: bool, need_thresholds: bool
) -> Tensor:
    p, gaps = _numbers(staircase), _gaps(staircase)
    bells = _steps(staircase, p.bell_temperature, like=x)
    shared = p.bell_temperature == p.temperature  # one sigmoid serves the bell and y
    steps = bells if shared else _steps(staircase, p.temperature, like=x)
    sums = [0.0] * (2 + len(gaps))  # Python floats: chunks add up in float64, one after the other
    for dy_part, x_part, dx_part, (inner, slope, z) in _chunks(3, dy, x, dx):
        x_part, total, rise = x_part.to(z.dtype), p.lowest.to(z.dtype), z.new_zeros(())
        for i, (gap, step, bell_step) in enumerate(zip(gaps, steps, bells, strict=True)):
            if need_scales and not shared:
                total = torch.add(total, step(x_part, out=z), alpha=gap, out=inner)
            g = bell_step(x_part, out=z)
            if need_scales and shared:
                total = torch.add(total, g, alpha=gap, out=inner)
            if p.gap_inside:
                g, gap = g.mul_(gap), 1.0
            bell = torch.addcmul(g, g, g, value=-1, out=g)  # g (1 - g)
            rise = torch.add(rise, bell, alpha=gap, out=slope)
            if need_thresholds:
                sums[2 + i] += gap * bell.mul_(dy_part).sum().item()
        slope.mul_(dy_part)
        if need_scales:
            sums[0] += inner.mul_(dy_part).sum().item()
            sums[1] += torch.mul(slope, x_part, out=z).sum().item()
        torch.mul(slope, p.alpha * p.beta * p.bell_height, out=dx_part)
    return torch.tensor(sums, dtype=torch.float64, device=x.device)


TORCH_BODY = Body(_forward, _backward)


class _Numbers(NamedTuple):
    lowest: Tensor  # the others are numbers
    alpha: float
    beta: float
    temperature: float
    bell_temperature: float
    bell_height: float
    clamp: float
    gap_inside: bool


def _numbers(p: Staircase) -> _Numbers:
    temperature = p.temperature.item()
    return _Numbers(
        lowest=p.levels[0],
        alpha=p.alpha.item(),
        beta=p.beta.item(),
        temperature=temperature,
        bell_temperature=temperature if p.bell_temperature is None else p.bell_temperature.item(),
        bell_height=p.bell_height.item(),
        clamp=p.clamp,
        gap_inside=p.gap_inside,
    )


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
    offsets = -temperature * p.thresholds.detach().to(_compute_dtype(like))
    return [functools.partial(soft, offset=offset) for offset in offsets]


def _chunks(count: int, *wholes: Tensor) -> Iterator[tuple[Any, ...]]:
    """Chunk after chunk of each of `wholes`, and `count` temporaries of its length, used again each time."""
    n, dtype = wholes[0].numel(), _compute_dtype(wholes[0])
    size = CHUNK * torch.get_num_threads() if wholes[0].device.type == "cpu" else max(n, 1)
    temporaries = torch.empty(count, min(size, n), dtype=dtype, device=wholes[0].device)
    for parts in zip(*(whole.split(size) for whole in wholes), strict=True):
        yield *parts, temporaries[:, : len(parts[0])]


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _flat(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` as one row, in the order in which `like` (dense) lies in memory: a view unless it lies otherwise."""
    return tensor.permute(sorted(range(like.dim()), key=like.stride, reverse=True)).reshape(-1)


def _scalar(value: Tensor | float, x: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, dtype=_compute_dtype(x), device=x.device)  # a fill: unlike a copy it waits for nothing


def _check(
    x: Tensor,
    levels: Tensor,
    thresholds: Tensor,
    temperature: Tensor | float,
    bell_temperature: Tensor | float | None,
    clamp: float,
) -> None:
    if not x.is_floating_point():
        raise InputError(f"soft_quantize works on floating-point tensors; got {x.dtype}. Convert it first: x.float()")
    if levels.dim() != 1 or thresholds.dim() != 1 or len(levels) != len(thresholds) + 1 or len(levels) < 2:
        raise InputError(
            f"n thresholds separate n + 1 levels, both one-dimensional; got levels of shape {tuple(levels.shape)} "
            f"and thresholds of shape {tuple(thresholds.shape)}"
        )
    if levels.requires_grad:
        raise InputError(
            "levels are fixed in this method; train alpha, beta or the thresholds, or pass levels.detach()"
        )
    if not clamp > 0:
        raise InputError(f"clamp must be positive (math.inf switches it off); got {clamp}")
    for name, value in (("temperature", temperature), ("bell_temperature", bell_temperature)):
        if isinstance(value, Tensor) and (value.device.type != "cpu" or torch.compiler.is_compiling()):
            continue  # looking at a value on a GPU would wait for it, and break a compiled graph
        if value is None:
            continue
        if not value > 0:
            raise InputError(f"{name} must be positive; got {float(value)}")
        if math.isinf(value) and (name == "bell_temperature" or bell_temperature is None):
            raise InputError(
                "an infinite temperature has no slope: give a finite bell_temperature (5 to 10 works well) for the "
                "backward pass, or call hard_quantize"
            )
