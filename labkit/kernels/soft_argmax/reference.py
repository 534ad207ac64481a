"""The body of `soft_argmax` in PyTorch: softmax, then two moments, each in a pass of its own over memory."""

from collections.abc import Callable

import torch
from torch import Tensor

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
Backward = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def axes(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of the rows, (height, 1), and of the columns, (1, width): from 0 to 1."""
    h, w = (torch.linspace(0, 1, side, dtype=like.dtype, device=like.device) for side in (height, width))
    return h[:, None], w[None]


def soft_argmax_reference(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, height, width) to the expected (row, column), (rows, 2), and log sum exp of each map, (rows,)."""
    log_sum = maps.flatten(1).logsumexp(1)
    p = (maps - log_sum[:, None, None]).exp()
    h, w = axes(maps.shape[1], maps.shape[2], maps)
    return torch.stack([(p * h).sum((1, 2)), (p * w).sum((1, 2))], 1), log_sum


def soft_argmax_backward_reference(maps: Tensor, log_sum: Tensor, at: Tensor, gradient: Tensor) -> Tensor:
    """dL/dmaps = p (g_h (h - J_h) + g_w (w - J_w)), since dJ/dz_i = p_i (x_i - J)."""
    p = (maps - log_sum[:, None, None]).exp()
    h, w = axes(maps.shape[1], maps.shape[2], maps)
    h_off, w_off = h - at[:, 0, None, None], w - at[:, 1, None, None]
    return p * (gradient[:, 0, None, None] * h_off + gradient[:, 1, None, None] * w_off)
