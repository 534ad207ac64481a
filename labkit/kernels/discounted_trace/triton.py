"""`discounted_trace` on a GPU: one launch, each lane walks backwards in registers.

`no_type_check` keeps jaxtyping's import hook away from functions that Triton compiles from their source.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from labkit.kernels.discounted_trace.reference import Inputs

BLOCK = 128


@triton.jit
@no_type_check
def _trace_kernel(
    x_ptr, value_ptr, last_ptr, done_ptr, out_ptr, steps, batch, discount, decay,
    HAS_DONE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = lane < batch
    after = tl.load(last_ptr + lane, mask=here, other=0)
    trace = tl.zeros_like(after)
    for back in range(steps):
        i = (steps - 1 - back) * batch + lane
        value = tl.load(value_ptr + i, mask=here, other=0)
        x = tl.load(x_ptr + i, mask=here, other=0)
        if HAS_DONE:
            ends = tl.load(done_ptr + i, mask=here, other=0) != 0
            after = tl.where(ends, 0.0, after)
            trace = tl.where(ends, 0.0, trace)
        trace = (x - value + discount * after + decay * trace).to(value.dtype)
        tl.store(out_ptr + i, trace, mask=here)
        after = value


def discounted_trace_triton(inputs: Inputs) -> Tensor:
    x, value, last_value, done, discount, decay = inputs
    out = torch.empty_like(x)
    if out.numel():
        flags = x if done is None else done.view(torch.uint8)  # x: a pointer that is not read
        _trace_kernel[(triton.cdiv(x.shape[1], BLOCK),)](
            x, value, last_value, flags, out, x.shape[0], x.shape[1], discount, decay,
            HAS_DONE=done is not None, BLOCK=BLOCK,
        )  # fmt: skip
    return out
