"""Quantised weights: the layer keeps its float weight, and computes with `quantizer(weight)` in its place.

`torch.nn.utils.parametrize` does what the [official code] does by hand at every step (set the float weights aside,
write quantised ones into the layer, run both passes, put the floats back): same gradients, and no moment at which a
checkpoint would hold the wrong ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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

WEIGHTED = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
"""Layers whose weights are quantised; all others that have weights, such as embeddings and LSTMs, stay float."""

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
    keep_float: Sequence[str] | None = None,
) -> Placement:
    """Quantises the layers of `WEIGHTED` of `model`, in place, all or (after an error) none of them.

    Args:
        method: levels such as `LEVELS["W1"]`, or a baseline such as `baselines.binary_weights`.
        init, backward, learn_thresholds: how the paper's quantiser starts and trains; baselines ignore them.
        keep_float: names of layers that stay as they are. None: the first and the last in the order in which modules
            are registered; strided 1x1 shortcuts count as any other layer and are quantised  [official code].

    Raises:
        InputError: nothing is left to quantise, the weights are quantised already, a layer that cannot be quantised,
            or a name in `keep_float` that is no layer.
    """
    if done := quantizers(model, "weights"):
        raise InputError(f"weights are quantised already ({', '.join(done)}); start from a float network")
    layers = weighted_layers(model)
    chosen = _chosen(layers, keep_float)
    options = {"init": init, "backward": backward, "learn_thresholds": learn_thresholds}
    new = {name: _weight_quantizer(name, layer, method, options) for name, layer in chosen.items()}
    for name, layer in chosen.items():  # nothing can fail any more
        parametrize.register_parametrization(layer, "weight", new[name])
    return Placement(tuple(chosen), float_layers(model))


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of `WEIGHTED`, by name, in the order in which modules are registered."""
    return {name: module for name, module in model.named_modules() if isinstance(module, WEIGHTED)}


def float_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that hold a matrix or kernel of float weights and no quantiser for it."""
    return tuple(
        name
        for name, module in model.named_modules()
        if any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
        and not name.endswith(".parametrizations.weight")  # there lie the float weights behind a quantiser
    )


def _chosen(layers: dict[str, nn.Module], keep_float: Sequence[str] | None) -> dict[str, nn.Module]:
    if keep_float is None:
        chosen = dict(list(layers.items())[1:-1])
        kept = "the first and the last stay float"
    else:
        if isinstance(keep_float, str) or (unknown := [name for name in keep_float if name not in layers]):
            wrong = keep_float if isinstance(keep_float, str) else ", ".join(unknown)
            raise InputError(f"keep_float names layers of the model, of {', '.join(layers)}; got {wrong}")
        chosen = {name: layer for name, layer in layers.items() if name not in keep_float}
        kept = f"{', '.join(keep_float) or 'none'} stay float"
    if not chosen:
        raise InputError(
            f"the model has {len(layers)} convolutions and linear layers, of which {kept}: none is left to quantise"
        )
    return chosen


def _weight_quantizer(name: str, layer: nn.Module, method: Method, options: dict[str, Any]) -> Quantizer:
    weight = layer._parameters.get("weight")
    if weight is None or isinstance(weight, nn.parameter.UninitializedParameter):
        raise InputError(
            f"'{name}' cannot be quantised: its weight is computed from others (weight norm, spectral norm) or not "
            "there yet (a lazy layer); remove the norm, or run one batch through the model, first"
        )
    quantizer = make_quantizer(name, weight, method, **options)
    quantizer.role = "weights"
    return quantizer.train(layer.training)


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
        self._gradients: dict[str, Tensor] = {}
        self._quantized = quantizers(model, "weights")
        if not self._quantized:
            raise InputError("OfficialClipping is for quantised weights; call quantize_weights first")
        self._running = False  # the model's own forward pass: who looks at a quantiser by itself trains nothing
        self._hooks = [
            model.register_forward_pre_hook(self._start),
            model.register_forward_hook(self._end, always_call=True),
            *(quantizer.register_forward_hook(self._watch(name)) for name, quantizer in self._quantized.items()),
        ]

    def _start(self, *_: Any) -> None:
        self._running = True
        if all(float_weight(self._model, name).grad is None for name in self._quantized):
            self._gradients.clear()  # those of a backward pass that was never clipped

    def _end(self, *_: Any) -> None:
        self._running = False

    def _watch(self, name: str) -> Callable[..., None]:
        def remember(gradient: Tensor) -> None:
            before = self._gradients.get(name)  # of the same weights, used once more, or by an earlier backward pass
            self._gradients[name] = gradient.detach() if before is None else before + gradient.detach()

        def hook(quantizer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self._running and output.requires_grad:
                output.register_hook(remember)

        return hook

    @torch.no_grad()
    def clip(self, max_norm: float) -> Tensor:
        """Scales every gradient of the model by min(1, max_norm / norm), in place; returns the norm before."""
        if not max_norm > 0:
            raise InputError(f"max_norm must be positive; got {max_norm}")
        if set(self._gradients) != set(self._quantized):
            raise InputError("clip works on the gradients of a backward pass: call loss.backward() before each clip")
        behind = {id(float_weight(self._model, name)) for name in self._quantized}
        scales = {id(parameter) for quantizer in self._quantized.values() for parameter in quantizer.parameters()}
        gradients = {id(p): p.grad for p in self._model.parameters() if p.grad is not None}
        others = [gradient.square().sum() for key, gradient in gradients.items() if key not in behind | scales]
        quantized = [gradient.square().sum() for gradient in self._gradients.values()]
        total = torch.stack([*quantized, *others]).sum()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
            total /= torch.distributed.get_world_size()
        norm = total.sqrt()
        factor = (max_norm / norm).clamp(max=1.0)
        for gradient in gradients.values():
            gradient.mul_(factor)
        self._gradients.clear()
        return norm

    def remove(self) -> None:
        """Stops watching the model."""
        for hook in self._hooks:
            hook.remove()
