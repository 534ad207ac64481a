"""The soft quantiser of Quantization Networks (1911.09464), fused: forward and backward each read the input once.

    g_i = sigmoid(T (beta x - b_i))          y = alpha (Y_1 + sum_i s_i g_i),   s_i = Y_{i+1} - Y_i

    dy/dx     =  alpha beta T sum_i s_i g_i (1 - g_i)          dy/dalpha = y / alpha
    dy/dbeta  =  alpha x    T sum_i s_i g_i (1 - g_i)          dy/db_i   = -alpha T s_i g_i (1 - g_i)

Y_1 is the lowest level: minus the offset o of the paper for weights, 0 for activations. Autograd would keep every g_i
(3 tensors of the activation's size for 2 bits, 15 for 4 bits); here only x is kept and g_i is computed again.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.soft_quantize.reference import (
    TORCH_BODY,
    Body,
    Staircase,
    compute_dtype,
    soft_quantize_reference,
)

__all__ = ["soft_quantize", "soft_quantize_reference"]


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

    Raises:
        InputError: shapes that do not fit, a temperature that is not positive, trainable levels.
    """
    _check(x, levels, thresholds, temperature, bell_temperature, clamp)
    exact = bell_temperature is None and bell_height is None and math.isinf(clamp)
    if exact and not x.is_cuda and torch.compiler.is_compiling():
        # a compiler for CPUs fuses the plain formula with its neighbours, and is then quicker than the operator
        wide = x.to(compute_dtype(x))
        return soft_quantize_reference(wide, levels, thresholds, alpha, beta, temperature).to(x.dtype)
    if bell_height is None:
        bell_height = temperature if bell_temperature is None else bell_temperature
    alpha, beta, temperature, bell_height = (_scalar(value, x) for value in (alpha, beta, temperature, bell_height))
    bell_temperature = None if bell_temperature is None else _scalar(bell_temperature, x)
    y: Tensor = _soft_quantize(x, levels, thresholds, alpha, beta, temperature, bell_temperature, bell_height, clamp)
    return y


# Two custom operators: where torch.compile meets them it takes them as they are, without breaking its graph.


@torch.library.custom_op("labkit::soft_quantize", mutates_args=())
def _soft_quantize(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor, temperature: Tensor,
    bell_temperature: Tensor | None, bell_height: Tensor, clamp: float,
) -> Tensor:  # fmt: skip
    p = Staircase(levels, thresholds, alpha, beta, temperature, bell_temperature, bell_height, clamp)
    y = torch.empty_like(x)  # dense, and in x's order of memory: channels_last stays channels_last
    _body(x).forward(_flat(x, y), _flat(y, y), p)
    return y


@torch.library.custom_op("labkit::soft_quantize_backward", mutates_args=())
def _soft_quantize_backward(
    dy: Tensor, x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor, temperature: Tensor,
    bell_temperature: Tensor | None, bell_height: Tensor, clamp: float,
    need_scales: bool, need_thresholds: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    p = Staircase(levels, thresholds, alpha, beta, temperature, bell_temperature, bell_height, clamp)
    dx = torch.empty_like(x)
    sums = _body(x).backward(_flat(dy, dx), _flat(x, dx), _flat(dx, dx), p, need_scales, need_thresholds)
    return dx, sums


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.clamp = inputs
    ctx.save_for_backward(*tensors)  # x, and a few numbers


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, levels, thresholds, alpha, beta, *temperatures = ctx.saved_tensors
    _, _, need_thresholds, need_alpha, need_beta, *_ = ctx.needs_input_grad
    dx, sums = _soft_quantize_backward(
        dy, x, levels, thresholds, alpha, beta, *temperatures, ctx.clamp,
        need_alpha or need_beta, need_thresholds,
    )  # fmt: skip
    factor = alpha * temperatures[-1]  # alpha times the bell's height
    dthresholds = (-factor * sums[2:]).to(thresholds.dtype) if need_thresholds else None
    dalpha = sums[0].to(alpha.dtype) if need_alpha else None
    dbeta = (factor * sums[1]).to(beta.dtype) if need_beta else None
    return dx, None, dthresholds, dalpha, dbeta, None, None, None, None


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
        from labkit.kernels.soft_quantize.triton import TRITON_BODY
    except ImportError:  # no Triton on this system: the plain passes work on any device, only more slowly
        return TORCH_BODY
    return TRITON_BODY


def _flat(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` as one row, in the memory order of `like` (dense): a view unless its own order differs."""
    return tensor.permute(sorted(range(like.dim()), key=like.stride, reverse=True)).reshape(-1)


def _scalar(value: Tensor | float, x: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, dtype=compute_dtype(x), device=x.device)  # a fill: unlike a copy it waits for nothing


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
