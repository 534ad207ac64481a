"""`soft_argmax` on a GPU: one program a map, which is read once; the softmax never reaches memory.

A running maximum rescales the three sums (of exp, of exp times row, of exp times column), as in online softmax.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
@no_type_check
def _forward_kernel(map_ptr, at_ptr, log_ptr, width, size, h_step, w_step, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    top, total, total_h, total_w = -float("inf"), 0.0, 0.0, 0.0
    for start in range(0, size, BLOCK):
        i = start + lane
        z = tl.load(map_ptr + row * size + i, mask=i < size, other=-float("inf")).to(tl.float32)
        new_top = tl.maximum(top, tl.max(z, 0))
        scale = tl.exp(top - new_top)
        e = tl.exp(z - new_top)
        total = total * scale + tl.sum(e, 0)
        total_h = total_h * scale + tl.sum(e * (i // width).to(tl.float32), 0)
        total_w = total_w * scale + tl.sum(e * (i % width).to(tl.float32), 0)
        top = new_top
    tl.store(at_ptr + 2 * row, total_h / total * h_step)
    tl.store(at_ptr + 2 * row + 1, total_w / total * w_step)
    tl.store(log_ptr + row, top + tl.log(total))


@triton.jit
@no_type_check
def _backward_kernel(
    map_ptr, log_ptr, at_ptr, gradient_ptr, out_ptr, width, size, h_step, w_step, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = i < size
    z = tl.load(map_ptr + row * size + i, mask=here, other=-float("inf")).to(tl.float32)
    p = tl.exp(z - tl.load(log_ptr + row))
    h_off = (i // width).to(tl.float32) * h_step - tl.load(at_ptr + 2 * row)
    w_off = (i % width).to(tl.float32) * w_step - tl.load(at_ptr + 2 * row + 1)
    g = tl.load(gradient_ptr + 2 * row) * h_off + tl.load(gradient_ptr + 2 * row + 1) * w_off
    tl.store(out_ptr + row * size + i, p * g, mask=here)


def _step(count: int) -> float:
    return 1 / (count - 1) if count > 1 else 0.0


def soft_argmax_triton(maps: Tensor) -> tuple[Tensor, Tensor]:
    rows, height, width = maps.shape
    at = torch.empty(rows, 2, dtype=torch.float32, device=maps.device)
    log_sum = torch.empty(rows, dtype=torch.float32, device=maps.device)
    if rows:
        _forward_kernel[(rows,)](maps, at, log_sum, width, height * width, _step(height), _step(width), BLOCK=BLOCK)
    return at, log_sum


def soft_argmax_backward_triton(maps: Tensor, log_sum: Tensor, at: Tensor, gradient: Tensor) -> Tensor:
    rows, height, width = maps.shape
    out = torch.empty_like(maps)
    if rows:
        grid = (rows, triton.cdiv(height * width, BLOCK))
        _backward_kernel[grid](
            maps, log_sum, at, gradient, out, width, height * width, _step(height), _step(width), BLOCK=BLOCK
        )
    return out
