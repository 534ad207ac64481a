"""Quantised weights: the layer keeps its float weight, and computes with `quantizer(weight)` in its place.

`torch.nn.utils.parametrize` does what the [official code] does by hand at every step (set the float weights aside,
write quantised ones into the layer, run both passes, put the floats back): same gradients, and no moment at which a
checkpoint would hold the wrong ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from labkit.errors import InputError
from labkit.papers.qnet.method.soft_quantizer import (
    EXACT,
    Backward,
    Quantizer,
    SoftQuantizer,
    quantizers,
)
from labkit.papers.qnet.method.thresholds import Init

Method = Sequence[float] | Callable[[Tensor], Quantizer]
"""Levels, for the paper's quantiser; or a function from a sample of values to a quantiser, for any other."""


@dataclass(frozen=True)
class Placement:
    """Names of the modules that were quantised, and of those that were left as they are."""

    quantized: tuple[str, ...]
    excluded: tuple[str, ...]


def quantize_weights(
    model: nn.Module,
    method: Method,
    *,
    init: Init = "range",
    backward: Backward = EXACT,
    learn_thresholds: bool = False,
) -> Placement:
    """Quantises every convolution and linear layer of `model`, in place, except the first and the last.

    "First" and "last" go by the order in which modules are registered; strided 1x1 shortcuts count as any other layer
    and are quantised  [official code].

    Args:
        method: levels such as `LEVELS["W1"]`, or a baseline such as `baselines.binary_weights`.
        init, backward, learn_thresholds: how the paper's quantiser starts and trains; baselines ignore them.

    Raises:
        InputError: nothing is left to quantise, or the weights are quantised already.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    chosen = layers[1:-1]
    if not chosen:
        raise InputError(
            f"the model has {len(layers)} convolutions and linear layers, of which the first and the last stay float: "
            "none is left to quantise"
        )
    if done := quantizers(model, "weights"):
        raise InputError(f"weights are quantised already ({', '.join(done)}); start from a float network")
    for name, layer in chosen:
        quantizer = make_quantizer(
            name, layer.weight, method, init=init, backward=backward, learn_thresholds=learn_thresholds
        )
        quantizer.role = "weights"
        quantizer.train(layer.training)
        parametrize.register_parametrization(layer, "weight", quantizer)
    return Placement(tuple(name for name, _ in chosen), (layers[0][0], layers[-1][0]))


def make_quantizer(
    name: str,
    samples: Float[Tensor, "*shape"],
    method: Method,
    *,
    init: Init,
    backward: Backward,
    learn_thresholds: bool,
) -> Quantizer:
    """The quantiser of one layer, fitted to `samples`; `name` is for the error message only."""
    try:
        if callable(method):
            return method(samples.detach())
        return SoftQuantizer.fit(samples, method, init=init, backward=backward, learn_thresholds=learn_thresholds)
    except InputError as error:
        raise InputError(f"'{name}' cannot be quantised: {error}") from error


def float_weight(model: nn.Module, layer: str) -> nn.Parameter:
    """The float weight behind the quantised one of the named layer."""
    weight = model.get_submodule(layer).parametrizations.weight.original  # type: ignore[union-attr]
    assert isinstance(weight, nn.Parameter)
    return weight


class OfficialClipping:
    """Gradient clipping as in the [official code]: by norms taken *before* the quantisers' backward pass.

    There, dL/d(quantised weight) is clipped, and only then multiplied by dy/dx: the step on the float weight grows with
    the temperature. That product is linear in dL/dy, so scaling all gradients after it by the same factor is the same.

        clipping = OfficialClipping(model)          # after quantize_weights; once
        loss.backward()
        clipping.clip(max_norm=5.0)                 # in place of nn.utils.clip_grad_norm_

    The norm is that of dL/dy of quantised weights and of the gradients of all else, but not of the quantisers' own
    parameters, which are scaled along. With several processes the norm is the root mean square over them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._squared_norms: dict[str, Tensor] = {}
        self._quantized = quantizers(model, "weights")
        if not self._quantized:
            raise InputError("OfficialClipping is for quantised weights; call quantize_weights first")
        self._hooks = [
            quantizer.register_forward_hook(self._watch(name)) for name, quantizer in self._quantized.items()
        ]

    def _watch(self, name: str) -> Callable[..., None]:
        def remember(gradient: Tensor) -> None:
            self._squared_norms[name] = gradient.detach().square().sum()

        def hook(quantizer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.requires_grad:
                output.register_hook(remember)

        return hook

    @torch.no_grad()
    def clip(self, max_norm: float) -> Tensor:
        """Scales every gradient of the model by min(1, max_norm / norm), in place; returns the norm before."""
        if not max_norm > 0:
            raise InputError(f"max_norm must be positive; got {max_norm}")
        if set(self._squared_norms) != set(self._quantized):
            raise InputError("clip works on the gradients of a backward pass: call loss.backward() before each clip")
        behind = {id(float_weight(self._model, name)) for name in self._quantized}
        scales = {id(parameter) for quantizer in self._quantized.values() for parameter in quantizer.parameters()}
        gradients = {id(p): p.grad for p in self._model.parameters() if p.grad is not None}
        others = [gradient.square().sum() for key, gradient in gradients.items() if key not in behind | scales]
        total = torch.stack([*self._squared_norms.values(), *others]).sum()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
            total /= torch.distributed.get_world_size()
        norm = total.sqrt()
        factor = (max_norm / norm).clamp(max=1.0)
        for gradient in gradients.values():
            gradient.mul_(factor)
        self._squared_norms.clear()
        return norm

    def remove(self) -> None:
        """Stops watching the model."""
        for hook in self._hooks:
            hook.remove()
