"""The quantisation function as a layer: soft while it trains, a staircase where it is used.

    soft   y = alpha (Y_1 + sum_i s_i sigmoid(T (beta x - b_i)))           [paper]
    hard   y = alpha (Y_1 + sum_i s_i 1[beta x > b_i])  =  alpha Y_k       [paper]

The same layer serves weights (as a parametrisation, `weights.py`) and activations (as a module, `activations.py`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.kernels import soft_quantize
from labkit.papers.qnet.method.levels import check_levels, is_binary
from labkit.papers.qnet.method.thresholds import Init, initialize

__all__ = [
    "EXACT",
    "Backward",
    "Quantizer",
    "SoftQuantizer",
    "forward_mode",
    "hard_quantize",
    "official_backward",
    "other_parameters",
    "quantizer_parameters",
    "quantizers",
    "set_temperature",
    "soft_quantize",
    "wide_bell",
]

Which = Literal["all", "weights", "activations"]
Mode = Literal["soft", "hard"]
SUFFIXES = {
    "weights": ".parametrizations.weight.0",  # where `quantize_weights` puts a quantiser in a layer
    "activations": ".1",  # ... and `quantize_activations` in place of a ReLU: Sequential(relu, quantizer)
}


def hard_quantize(
    x: Float[Tensor, "*shape"],
    levels: Float[Tensor, " steps_and_one"],
    thresholds: Float[Tensor, " steps"],
    alpha: Float[Tensor, ""] | float,
    beta: Float[Tensor, ""] | float,
) -> Float[Tensor, "*shape"]:
    """y = alpha Y_k, k the number of thresholds below beta x: a member of alpha Y.  [paper]

    To the last bit where the gaps add up without rounding, as whole numbers do. Differentiable in alpha only.
    """
    beta = beta.detach() if isinstance(beta, Tensor) else beta
    fixed = (levels, thresholds.detach(), alpha, beta, math.inf)
    return soft_quantize(x.detach(), *fixed, bell_temperature=1.0)  # the bell would be for gradients nobody takes


def _level_index(x: Tensor, thresholds: Tensor, beta: Tensor) -> Tensor:
    """k of `hard_quantize`: the number of thresholds below beta x (the step A(0) is 0). Thresholds must ascend."""
    precise = torch.promote_types(x.dtype, beta.dtype)  # bfloat16 is too coarse to compare with thresholds
    scaled = beta.detach() * x.detach().to(precise)
    return torch.bucketize(scaled.contiguous(), thresholds.detach().to(precise), out_int32=True)


@dataclass(frozen=True)
class Backward:
    """How the gradient is formed. The default is the derivative itself; the rest are the [official code]'s and ours.

    Args:
        bell_temperature: T_b: the backward pass sees min(T, T_b) instead of T, so it stays wide while the forward pass
            sharpens. This is a straight-through surrogate. [ours, after the official code's binary weights]
        times_temperature: the bell of temperature T_b is multiplied by T, not by its own T_b.  [official code, binary]
        clamp: T (beta x - b) is clamped to +-clamp in both passes, with the gradient of the sigmoid at the bound: it
            leaks straight through, never below 4.54e-5 T for a clamp of 10.  [official code]
    """

    bell_temperature: float | None = None
    times_temperature: bool = False
    clamp: float = math.inf

    def __post_init__(self) -> None:
        if self.bell_temperature is not None and not 0 < self.bell_temperature < math.inf:
            raise InputError(f"bell_temperature must be positive and finite, or None; got {self.bell_temperature}")
        if self.times_temperature and self.bell_temperature is None:
            raise InputError(
                "times_temperature scales a bell of its own width: give bell_temperature too, officially 1.0"
            )
        if not self.clamp > 0:
            raise InputError(f"clamp must be positive (math.inf switches it off); got {self.clamp}")

    def options(self, temperature: Tensor) -> dict[str, Any]:
        """What `soft_quantize` is told about its backward pass at this temperature."""
        bell = None if self.bell_temperature is None else temperature.clamp(max=self.bell_temperature)
        height = temperature if self.times_temperature else None
        return {"bell_temperature": bell, "bell_height": height, "clamp": self.clamp}

    @property
    def allows_hard_forward(self) -> bool:
        """Whether the gradient stays finite at an infinite temperature."""
        return self.bell_temperature is not None and not self.times_temperature


EXACT = Backward()


def official_backward(levels: Sequence[float]) -> Backward:
    """How the authors' program forms the gradient of weights: a wide bell for binary ones, and a leak for all.

    For activations it takes q (1 - q) with q = s g: the derivative itself, as their gaps s are 1.  [official code]
    """
    if is_binary(levels):
        return Backward(bell_temperature=1.0, times_temperature=True, clamp=10.0)
    return Backward(clamp=10.0)


def wide_bell(bell_temperature: float) -> Backward:
    """The decoupled backward pass: the forward pass at T (or hard, T infinite), the gradient's bell at min(T, T_b)."""
    return Backward(bell_temperature=bell_temperature)


class Quantizer(nn.Module, ABC):
    """The interface of every quantiser, the paper's or a baseline: the level that an input takes, and the scale.

    In hard mode y = scale(x) * levels[codes(x)]. `role` says what it quantises, once it is part of a model.
    """

    levels: Tensor
    role: Literal["", "weights", "activations"] = ""

    @abstractmethod
    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        """Index of the level that each entry takes in hard mode."""

    @abstractmethod
    def scale(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        """What the levels are multiplied by: a scalar, or one number per filter that broadcasts over x."""


class SoftQuantizer(Quantizer):
    """The paper's quantiser. Soft in training mode, hard in `eval()`, unless `forward_mode` says otherwise.

    Parameters: `alpha`, `beta` (scalars; [official code]: own learning rate, no decay), and `thresholds` on request.
    Buffers, saved with the rest: `levels`, `temperature`, `thresholds`.

    Args:
        levels: Y, ascending; see `labkit.papers.qnet.method.levels`.
        thresholds: b, one fewer, ascending, in units of beta x.
        beta: scale of the input.
        alpha: scale of the output; None: 1 / beta.  [official code]
        backward: how the gradient is formed.
        learn_thresholds: train b too. The [official code] keeps it fixed, the paper's formula allows it.
    """

    temperature: Tensor
    thresholds: Tensor
    backward: Backward  # may be set anew between two stages of training

    def __init__(
        self,
        levels: Sequence[float],
        thresholds: Sequence[float] | Float[Tensor, " steps"],
        beta: float = 1.0,
        alpha: float | None = None,
        *,
        backward: Backward = EXACT,
        learn_thresholds: bool = False,
    ) -> None:
        super().__init__()
        levels, b = check_levels(levels), torch.as_tensor(thresholds, dtype=torch.get_default_dtype())
        if b.shape != (len(levels) - 1,) or (b.diff() < 0).any():
            raise InputError(f"{len(levels)} levels need {len(levels) - 1} ascending thresholds; got {b.tolist()}")
        if not 0 < beta < math.inf:
            raise InputError(f"beta must be positive and finite; got {beta}")
        self.register_buffer("levels", torch.tensor(levels))
        self.register_buffer("temperature", torch.tensor(1.0))
        if learn_thresholds:
            self.thresholds = nn.Parameter(b.clone())
        else:
            self.register_buffer("thresholds", b.clone())
        self.alpha = nn.Parameter(torch.tensor(1 / beta if alpha is None else alpha))
        self.beta = nn.Parameter(torch.tensor(beta))
        self.backward = backward
        self.learn_thresholds = learn_thresholds
        self.forced_mode: Mode | None = None

    @classmethod
    def fit(
        cls,
        samples: Float[Tensor, "*shape"],
        levels: Sequence[float],
        *,
        init: Init = "range",
        backward: Backward = EXACT,
        learn_thresholds: bool = False,
    ) -> "SoftQuantizer":
        """The quantiser that `thresholds.initialize` starts for these samples. Untrained and hard: PTQ."""
        beta, thresholds = initialize(samples, levels, init)
        fitted = cls(levels, thresholds, beta, backward=backward, learn_thresholds=learn_thresholds)
        return fitted.to(samples.device)

    @property
    def is_hard(self) -> bool:
        return self.forced_mode == "hard" if self.forced_mode else not self.training

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        b = self._ascending_thresholds()
        if self.is_hard:
            return hard_quantize(x, self.levels, b, self.alpha, self.beta)
        T = self.temperature
        return soft_quantize(x, self.levels, b, self.alpha, self.beta, T, **self.backward.options(T))

    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        return _level_index(x, self._ascending_thresholds(), self.beta).to(torch.uint8)

    def scale(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
        return self.alpha.detach()

    def _ascending_thresholds(self) -> Tensor:
        return self.thresholds.sort().values if self.learn_thresholds else self.thresholds  # learnt ones may cross

    def extra_repr(self) -> str:
        levels = ", ".join(f"{level:g}" for level in self.levels.tolist())
        return f"levels=({levels}), temperature={self.temperature.item():g}, backward={self.backward}"


def quantizers(model: nn.Module, which: Which = "all") -> dict[str, Quantizer]:
    """The quantisers of a model, the paper's and the baselines', by the name of the layer or ReLU of each."""
    if which not in get_args(Which):
        raise InputError(f"which must be one of {', '.join(get_args(Which))}; got '{which}'")
    return {
        name.removesuffix(SUFFIXES.get(module.role, "")): module
        for name, module in model.named_modules()
        if isinstance(module, Quantizer) and which in ("all", module.role)
    }


def quantizer_parameters(model: nn.Module, which: Which = "all") -> list[nn.Parameter]:
    """Scales, steps and learnable thresholds: the parameter group with its own learning rate and no weight decay."""
    return [parameter for quantizer in quantizers(model, which).values() for parameter in quantizer.parameters()]


def other_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All parameters that `quantizer_parameters` leaves: the network's own."""
    own = {id(parameter) for parameter in quantizer_parameters(model)}
    return [parameter for parameter in model.parameters() if id(parameter) not in own]


def set_temperature(model: nn.Module, temperature: float, which: Which = "all") -> None:
    """Sets T of every soft quantiser of the model; baselines have none and are left alone.

    Infinity is the hard forward pass while training; it needs a backward pass that stays finite (`wide_bell`).
    """
    if not temperature > 0:
        raise InputError(f"temperature must be positive; got {temperature}")
    for name, quantizer in quantizers(model, which).items():
        if isinstance(quantizer, SoftQuantizer):
            if math.isinf(temperature) and not quantizer.backward.allows_hard_forward:
                raise InputError(
                    f"quantiser '{name}' has no gradient at an infinite temperature; insert it with "
                    "backward=wide_bell(10.0), or set a finite temperature"
                )
            quantizer.temperature.fill_(temperature)


@contextmanager
def forward_mode(model: nn.Module, mode: Mode) -> Iterator[None]:
    """Within the block every soft quantiser is "soft" or "hard", whatever train() and eval() say.

    Batch norm can so be re-estimated in training mode under hard weights, and the soft network be judged in `eval()`.
    """
    if mode not in get_args(Mode):
        raise InputError(f"mode must be soft or hard; got '{mode}'")
    soft = [module for module in model.modules() if isinstance(module, SoftQuantizer)]
    before = [module.forced_mode for module in soft]
    try:
        for module in soft:
            module.forced_mode = mode
        yield
    finally:
        for module, previous in zip(soft, before, strict=True):
            module.forced_mode = previous
