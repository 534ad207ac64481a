"""Inputs of the discounted sum's bodies, and the body in PyTorch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """What a body gets: contiguous (time, batch) memory, one dtype; `done` may be missing, `decay` is g lam."""

    x: Tensor
    value: Tensor
    last_value: Tensor  # (batch,)
    done: Tensor | None
    discount: float
    decay: float


Body = Callable[[Inputs], Tensor]


def discounted_trace_reference(inputs: Inputs) -> Tensor:
    """Plain PyTorch: all columns of a step at once, step by step from the end, in place."""
    x, value, last_value, done, discount, decay = inputs
    after = torch.cat([value[1:], last_value[None]])
    keep = None if done is None else (~done).to(x.dtype)
    trace = x - value + discount * (after if keep is None else after * keep)
    rows = trace.unbind(0)
    for t in range(len(rows) - 2, -1, -1):
        if keep is None:
            rows[t].add_(rows[t + 1], alpha=decay)
        else:
            rows[t].addcmul_(rows[t + 1], keep[t], value=decay)
    return trace
