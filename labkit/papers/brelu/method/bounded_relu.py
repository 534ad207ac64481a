"""The bounded ReLU, in training and as the integers will see it.

    y = min(max(x, 0), B)                                   [paper]

B, the bound, trades two errors: above it values are clipped, below it they are rounded to `levels` steps of B / levels.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.brelu.method.bounds import ActivationStatistics


class BoundedReLU(nn.Module):
    """y = min(max(x, 0), B). The gradient is 1 inside (0, B) and 0 outside.  [official code]

    Args:
        bound: B in real units; infinity is the plain ReLU.
        levels: codes 0..levels; 127 is what signed 8-bit hardware leaves for a value that is never negative.
        ceiling: what the network itself clips at, 6 in a ReLU6: no bound lies above it.

    `rounding` switches on what the deployed network does, y = floor(x levels / B + 1/2) B / levels; the paper trains
    with it off. Gradients go straight through the rounding.
    """

    bound: Tensor
    signed = False

    def __init__(self, bound: float = math.inf, levels: int = 127, ceiling: float = math.inf) -> None:
        super().__init__()
        if not bound > 0:
            raise InputError(f"a bound must be positive (math.inf for none); got {bound}.")
        if levels < 1:
            raise InputError(f"levels must be 1 or more; got {levels}.")
        self.register_buffer("bound", torch.tensor(min(bound, ceiling), dtype=torch.float64))
        self.register_state_dict_post_hook(_no_bound_as_zero)
        self.register_load_state_dict_pre_hook(_zero_as_no_bound)
        self.levels, self.ceiling, self.rounding = levels, ceiling, False
        self.statistics: ActivationStatistics | None = None  # where set, every forward pass adds to it

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self.round(self.clip(x))

    def clip(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The clipped value before rounding: what a residual addition reads."""
        if self.statistics is not None:
            self.statistics.add(x.detach().relu().clamp(max=self.ceiling))
        return clip(x, self.bound if self.bound.requires_grad else self.bound.clamp(max=self.ceiling))

    def round(self, y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        bound = float(self.bound.detach())
        if not self.rounding or math.isinf(bound):
            return y
        if not torch.is_grad_enabled():
            return round_to_levels(y, bound, self.levels)
        return y + (round_to_levels(y.detach(), bound, self.levels) - y.detach())

    def extra_repr(self) -> str:
        return f"bound={float(self.bound):.4g}, levels={self.levels}, rounding={self.rounding}"


def _no_bound_as_zero(module: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    """Files hold finite numbers: what is not, is taken for a training that diverged. No bound is kept as 0."""
    bound = state[f"{prefix}bound"]
    if torch.isinf(bound):
        state[f"{prefix}bound"] = torch.zeros_like(bound)


def _zero_as_no_bound(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    bound = state.get(f"{prefix}bound")
    if bound is not None and not bound:
        state[f"{prefix}bound"] = torch.full_like(bound, math.inf)


class BoundedIdentity(BoundedReLU):
    """y = min(max(x, -B), B), codes -levels..levels: for convolutions that no ReLU follows.  [ours]

    The paper's networks have none; MobileNetV2's "linear bottlenecks" and pre-activation networks do.
    """

    signed = True

    def clip(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if self.statistics is not None:
            self.statistics.add(x.detach().abs())
        return clip(x, self.bound) - clip(-x, self.bound)


class _Clip(torch.autograd.Function):
    """min(max(x, 0), B) with the gradient that PACT gives B: what lies above the bound pulls at it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: Tensor) -> Tensor:
        ctx.save_for_backward(x, bound)
        return torch.minimum(x.relu(), bound.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, bound = ctx.saved_tensors
        dx = dy * ((x > 0) & (x < bound))
        dbound = (dy * (x >= bound)).sum().to(bound.dtype) if ctx.needs_input_grad[1] else None
        return dx, dbound


def clip(x: Float[Tensor, "*shape"], bound: Float[Tensor, ""]) -> Float[Tensor, "*shape"]:
    """min(max(x, 0), B); dy/dx = 1 inside (0, B), else 0; dy/dB = 1 above B, for bounds that are learned (PACT)."""
    if bound.requires_grad:
        y: Tensor = _Clip.apply(x, bound)
        return y
    if x.is_cuda:
        return torch.minimum(x.relu(), bound.to(x.dtype))  # to ask for its value would wait for the GPU
    return x.clamp(0, float(bound))


def round_to_levels(y: Float[Tensor, "*shape"], bound: float, levels: int) -> Float[Tensor, "*shape"]:
    """floor(y levels / B + 1/2) B / levels: the real value of the code of y, half rounds up as the shift does."""
    return (y * (levels / bound)).add_(0.5).floor_().mul_(bound / levels)


def bounded_relus(model: nn.Module) -> dict[str, BoundedReLU]:
    """Every bounded ReLU of a model by name, in the order in which they compute."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BoundedReLU)}


def set_rounding(model: nn.Module, on: bool, levels: int | None = None) -> None:
    """Switch the rounding of all bounded ReLUs, and set their levels where given."""
    for module in bounded_relus(model).values():
        module.rounding = on
        module.levels = module.levels if levels is None else levels
