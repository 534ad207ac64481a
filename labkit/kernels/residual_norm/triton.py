"""`residual_norm` on a GPU: a row a program, everything between reading and writing it in registers.

Forward reads x and the branches and writes y and, for the gradients, z; PyTorch's own operations pass over memory nine
times. Which elements are dropped is drawn from a counter (Philox of seed and place), so that the backward pass draws
the same ones again and no mask is stored.

`no_type_check` keeps jaxtyping's import hook away from functions that Triton compiles from their source.
"""

from collections.abc import Sequence
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 1024
"""Of the backward pass: each sums the gradients of gamma and beta over its rows."""


@triton.jit
@no_type_check
def _branch(ptr, places, here, weight, seed, keep, DROP: tl.constexpr):
    """r dropout(a) of one row."""
    value = tl.load(ptr + places, mask=here, other=0).to(tl.float32)
    if DROP:
        value = tl.where(tl.rand(seed, places.to(tl.int32)) < keep, value / keep, 0.0)
    return weight * value


@triton.jit(do_not_specialize=["seed"])  # else every seed of another kind is compiled anew
@no_type_check
def _forward_kernel(
    x_ptr, a_ptr, b_ptr, gamma_ptr, beta_ptr, y_ptr, z_ptr, rstd_ptr, mean_ptr, width, r0, r1, eps, seed, keep,
    TWO: tl.constexpr, DROP: tl.constexpr, SAVE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    here, places = columns < width, row * width + columns
    z = tl.load(x_ptr + places, mask=here, other=0).to(tl.float32)
    z += _branch(a_ptr, places, here, r0, seed, keep, DROP)
    if TWO:
        z += _branch(b_ptr, places, here, r1, seed + 1, keep, DROP)
    mean = tl.sum(z, 0) / width
    centered = tl.where(here, z - mean, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centered * centered, 0) / width + eps)
    gamma = tl.load(gamma_ptr + columns, mask=here, other=0).to(tl.float32)
    beta = tl.load(beta_ptr + columns, mask=here, other=0).to(tl.float32)
    tl.store(y_ptr + places, centered * rstd * gamma + beta, mask=here)
    if SAVE:
        tl.store(z_ptr + places, z, mask=here)
        tl.store(rstd_ptr + row, rstd)
        tl.store(mean_ptr + row, mean)


@triton.jit
@no_type_check
def _branch_gradient(ptr, places, here, gradient, weight, seed, keep, DROP: tl.constexpr):
    gradient = weight * gradient
    if DROP:
        gradient = tl.where(tl.rand(seed, places.to(tl.int32)) < keep, gradient / keep, 0.0)
    tl.store(ptr + places, gradient, mask=here)


@triton.jit(do_not_specialize=["seed"])  # else every seed of another kind is compiled anew
@no_type_check
def _backward_kernel(
    g_ptr, z_ptr, rstd_ptr, mean_ptr, gamma_ptr, dx_ptr, da_ptr, db_ptr, dgamma_ptr, dbeta_ptr,
    rows, width, r0, r1, seed, keep, programs,
    TWO: tl.constexpr, DROP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    here = columns < width
    gamma = tl.load(gamma_ptr + columns, mask=here, other=0).to(tl.float32)
    dgamma, dbeta = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for row in range(first, rows, programs):
        places = row * width + columns
        g = tl.load(g_ptr + places, mask=here, other=0).to(tl.float32)
        z = tl.load(z_ptr + places, mask=here, other=0).to(tl.float32)
        rstd = tl.load(rstd_ptr + row)
        normal = tl.where(here, (z - tl.load(mean_ptr + row)) * rstd, 0.0)
        dgamma += g * normal
        dbeta += g
        scaled = g * gamma
        dz = rstd * (scaled - tl.sum(scaled, 0) / width - normal * (tl.sum(scaled * normal, 0) / width))
        tl.store(dx_ptr + places, dz, mask=here)
        _branch_gradient(da_ptr, places, here, dz, r0, seed, keep, DROP)
        if TWO:
            _branch_gradient(db_ptr, places, here, dz, r1, seed + 1, keep, DROP)
    tl.store(dgamma_ptr + first * width + columns, dgamma, mask=here)
    tl.store(dbeta_ptr + first * width + columns, dbeta, mask=here)


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor | None, gamma: Tensor, beta: Tensor,
        r0: float, r1: float, dropout: float, eps: float,
    ) -> Tensor:  # fmt: skip
        two, width = b is not None, x.shape[-1]
        x, a, second = x.contiguous(), a.contiguous(), (a if b is None else b).contiguous()
        y = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, a.dtype), device=x.device)
        save = any(ctx.needs_input_grad)
        z = torch.empty_like(y) if save else y
        rows = x.numel() // width
        rstd, mean = torch.empty(2, rows if save else 1, device=x.device, dtype=torch.float32)
        seed = int(torch.randint(2**31 - 1, ())) if dropout else 0
        numbers = {"TWO": two, "DROP": dropout > 0, "BLOCK": triton.next_power_of_2(width)}
        if rows:
            _forward_kernel[(rows,)](
                x, a, second, gamma, beta, y, z, rstd, mean, width, r0, r1, eps, seed, 1 - dropout,
                SAVE=save, **numbers,
            )  # fmt: skip
        ctx.save_for_backward(z, rstd, mean, gamma)
        ctx.about = (r0, r1, seed, 1 - dropout, numbers, [t.dtype for t in (x, a, second)])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        z, rstd, mean, gamma = ctx.saved_tensors
        r0, r1, seed, keep, numbers, kinds = ctx.about
        g, width, rows = gradients[0].contiguous(), z.shape[-1], z.numel() // z.shape[-1]
        dx, da = (torch.empty(z.shape, dtype=kind, device=z.device) for kind in kinds[:2])
        db = torch.empty(z.shape, dtype=kinds[2], device=z.device) if numbers["TWO"] else da
        programs = max(1, min(rows, PROGRAMS))
        dgamma, dbeta = torch.empty(2, programs, width, device=z.device, dtype=torch.float32)
        _backward_kernel[(programs,)](
            g, z, rstd, mean, gamma, dx, da, db, dgamma, dbeta, rows, width, r0, r1, seed, keep, programs, **numbers
        )
        sums = (partial.sum(0).to(gamma.dtype) for partial in (dgamma, dbeta))
        return dx, da, db if numbers["TWO"] else None, *sums, None, None, None, None


def residual_norm_triton(
    x: Tensor,
    branches: Sequence[Tensor],
    weights: Sequence[float],
    gamma: Tensor,
    beta: Tensor,
    dropout: float = 0.0,
    eps: float = 1e-5,
) -> Tensor:
    """See `residual_norm_reference`: equal but for rounding and for which elements are dropped."""
    second, r1 = (branches[1], weights[1]) if len(branches) == 2 else (None, 0.0)
    return _ResidualNorm.apply(x, branches[0], second, gamma, beta, float(weights[0]), float(r1), dropout, eps)
