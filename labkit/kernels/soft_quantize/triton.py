"""The two passes of `soft_quantize` on a GPU: each element is read once, written once, and computed in registers.

Sums over elements take two passes without atomics: every program stores its own partial sums, torch adds them up in a
fixed order. `no_type_check` keeps jaxtyping's import hook away from functions that Triton compiles from their source.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from labkit.kernels.soft_quantize.reference import Body, Staircase

BLOCK = 2048


@triton.jit
@no_type_check
def _step_and_bell(distance, temperature, clamp):
    """g = sigmoid(z) and g (1 - g) for z = T (beta x - b), from exp(-|z|): no overflow, and both tails exact."""
    z = tl.minimum(tl.maximum(temperature * distance, -clamp), clamp)
    e = tl.exp(-tl.abs(z))
    r = 1.0 / (1.0 + e)
    return tl.where(z > 0, r, e * r), e * r * r


@triton.jit
@no_type_check
def _forward_kernel(
    x_ptr, y_ptr, levels_ptr, thresholds_ptr, alpha_ptr, beta_ptr, temperature_ptr, clamp, n,
    STEPS: tl.constexpr, COMPUTE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    u = tl.load(beta_ptr).to(COMPUTE) * tl.load(x_ptr + i, mask=i < n, other=0).to(COMPUTE)
    temperature = tl.load(temperature_ptr).to(COMPUTE)
    hard = temperature == float("inf")
    temperature = tl.where(hard, 1.0, temperature)  # infinity times 0 is not a number
    inner = tl.zeros([BLOCK], dtype=COMPUTE) + tl.load(levels_ptr).to(COMPUTE)
    for k in range(STEPS):
        gap = tl.load(levels_ptr + k + 1).to(COMPUTE) - tl.load(levels_ptr + k).to(COMPUTE)
        threshold = tl.load(thresholds_ptr + k).to(COMPUTE)
        g, _ = _step_and_bell(u - threshold, temperature, clamp)
        inner += gap * tl.where(hard, tl.where(u > threshold, 1.0, 0.0), g)
    y = tl.load(alpha_ptr).to(COMPUTE) * inner
    tl.store(y_ptr + i, y.to(y_ptr.dtype.element_ty), mask=i < n)


@triton.jit
@no_type_check
def _backward_kernel(
    dy_ptr, x_ptr, dx_ptr, sums_ptr, levels_ptr, thresholds_ptr, alpha_ptr, beta_ptr,
    temperature_ptr, bell_temperature_ptr, bell_height_ptr, clamp, n,
    STEPS: tl.constexpr, WIDE_BELL: tl.constexpr, NEED_SCALES: tl.constexpr,
    NEED_THRESHOLDS: tl.constexpr, COMPUTE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program, programs = tl.program_id(0), tl.num_programs(0)
    i = program.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n, other=0).to(COMPUTE)
    dy = tl.load(dy_ptr + i, mask=i < n, other=0).to(COMPUTE)  # 0 beyond the end: adds nothing to a sum
    beta = tl.load(beta_ptr).to(COMPUTE)
    u = beta * x
    bell_temperature = tl.load(bell_temperature_ptr).to(COMPUTE)
    temperature = tl.load(temperature_ptr).to(COMPUTE)
    hard = temperature == float("inf")
    temperature = tl.where(hard, 1.0, temperature)
    inner = tl.zeros([BLOCK], dtype=COMPUTE) + tl.load(levels_ptr).to(COMPUTE)
    slope = tl.zeros([BLOCK], dtype=COMPUTE)
    for k in range(STEPS):
        gap = tl.load(levels_ptr + k + 1).to(COMPUTE) - tl.load(levels_ptr + k).to(COMPUTE)
        threshold = tl.load(thresholds_ptr + k).to(COMPUTE)
        g, bell = _step_and_bell(u - threshold, bell_temperature, clamp)
        bell = gap * bell
        slope += bell
        if NEED_SCALES:
            if WIDE_BELL:
                g, _ = _step_and_bell(u - threshold, temperature, clamp)
                g = tl.where(hard, tl.where(u > threshold, 1.0, 0.0), g)
            inner += gap * g
        if NEED_THRESHOLDS:
            tl.store(sums_ptr + (2 + k) * programs + program, tl.sum(dy * bell, axis=0))
    if NEED_SCALES:
        tl.store(sums_ptr + program, tl.sum(dy * inner, axis=0))
        tl.store(sums_ptr + programs + program, tl.sum(dy * slope * x, axis=0))
    dx = dy * slope * (tl.load(alpha_ptr).to(COMPUTE) * beta * tl.load(bell_height_ptr).to(COMPUTE))
    tl.store(dx_ptr + i, dx.to(dx_ptr.dtype.element_ty), mask=i < n)


def _forward(x: Tensor, y: Tensor, p: Staircase) -> None:
    if x.numel() == 0:
        return
    _forward_kernel[(triton.cdiv(x.numel(), BLOCK),)](
        x, y, p.levels, p.thresholds, p.alpha, p.beta, p.temperature, p.clamp, x.numel(),
        STEPS=len(p.thresholds), COMPUTE=_compute(x), BLOCK=BLOCK,
    )  # fmt: skip


def _backward(dy: Tensor, x: Tensor, dx: Tensor, p: Staircase, need_scales: bool, need_thresholds: bool) -> Tensor:
    programs = triton.cdiv(x.numel(), BLOCK)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    sums = torch.zeros(2 + len(p.thresholds), programs, dtype=dtype, device=x.device)
    if programs:
        bell_temperature = p.temperature if p.bell_temperature is None else p.bell_temperature
        _backward_kernel[(programs,)](
            dy, x, dx, sums, p.levels, p.thresholds, p.alpha, p.beta,
            p.temperature, bell_temperature, p.bell_height, p.clamp, x.numel(),
            STEPS=len(p.thresholds), WIDE_BELL=p.bell_temperature is not None,
            NEED_SCALES=need_scales, NEED_THRESHOLDS=need_thresholds, COMPUTE=_compute(x), BLOCK=BLOCK,
        )  # fmt: skip
    return sums.sum(dim=1, dtype=torch.float64)


def _compute(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


TRITON_BODY = Body(_forward, _backward)  # reads no value back from the GPU, so never waits for it
