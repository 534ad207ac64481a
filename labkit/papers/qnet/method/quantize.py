"""From the reader's float network to one that trains with quantised weights and activations.

quantized = quantize(model, weights="W2", activations="A2", sample=loader)    # a copy; `model` is not touched
...                                                                           # train it: `fit`, or your own loop
packed = pack(quantized, batch)                                               # `packing`: in bits, as deployed
"""

import copy
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.qnet.method.activations import float_activations, quantize_activations
from labkit.papers.qnet.method.batches import input_batches
from labkit.papers.qnet.method.levels import level_set
from labkit.papers.qnet.method.relus import separate_relus
from labkit.papers.qnet.method.soft_quantizer import EXACT, Backward, quantizers, wide_bell
from labkit.papers.qnet.method.weights import Method, Placement, float_layers, quantize_weights

WIDE_BELL = wide_bell(10.0)
SAMPLE_BATCHES = 10  # of `sample` are looked at: enough for scales, and a whole data set would take an epoch's time


def quantize(
    model: nn.Module,
    weights: str | Method | None = "W2",
    activations: str | Method | None = None,
    sample: Iterable[Any] | Tensor | None = None,
    *,
    keep_float: Sequence[str] | None = None,
    weight_backward: Backward = EXACT,
    activation_backward: Backward = WIDE_BELL,
    seed: int = 0,
) -> nn.Module:
    """A copy of the float network `model` that quantises: soft in `train()`, the deployed staircase in `eval()`.

    Convolutions, transposed or not, and linear layers get quantised weights; ReLUs and ReLU6s, also those called as
    functions, a quantiser behind each use. `placement` says what was quantised and what stayed float. In a training
    loop of your own, call `set_temperature(quantized, 300.0 * (step + 1) / steps)` before each step, and give
    `quantizer_parameters(quantized)` no weight decay and a tenth of the learning rate.

    Args:
        weights: a level set by name (W1, W2, W3pm2, W3pm4, W3 to W8), levels such as (-1, 0, 2), or a baseline;
            None: float weights.
        activations: likewise (A1 to A8); None: float activations.
        sample: batches of inputs or of (inputs, labels), such as a loader, or one tensor; the first ten are used to fit
            the activations' scales, on the float network. Needed for activations only.
        keep_float: names of layers whose weights stay float; None: the first and the last  [official code].
        weight_backward, activation_backward: how gradients are formed. That of activations is a wide bell [ours]: their
            exact gradient explodes while the temperature rises.
        seed: of the subset of activations that scales are fitted to.

    Raises:
        InputError: nothing to quantise, a layer or a ReLU that cannot be (by its name), or no sample.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"quantize takes a torch.nn.Module; got {type(model).__name__}")
    weights, activations = _method(weights, "W"), _method(activations, "A")
    if weights is None and activations is None:
        raise InputError('there is nothing to quantise: give weights, such as "W2", or activations, such as "A2"')
    if quantizers(model):
        raise InputError("the model is quantised already; start from the float network")
    quantized = copy.deepcopy(model)
    if activations is not None:
        batches = [] if sample is None else list(itertools.islice(input_batches(model, sample), SAMPLE_BATCHES))
        if not batches:
            raise InputError("activations are fitted to data: give sample, such as a list of batches or a loader")
        quantized, _ = separate_relus(quantized, batches[0])
        quantize_activations(quantized, activations, batches, backward=activation_backward, seed=seed)
    if weights is not None:
        quantize_weights(quantized, weights, backward=weight_backward, keep_float=keep_float)
    return quantized


def placement(model: nn.Module) -> dict[str, Placement]:
    """What of `model` is quantised, and what is not: its weights and its activations, by the names of modules."""
    return {
        "weights": Placement(tuple(quantizers(model, "weights")), float_layers(model)),
        "activations": Placement(tuple(quantizers(model, "activations")), float_activations(model)),
    }


def _method(given: str | Method | None, family: str) -> Method | None:
    if not isinstance(given, str):
        return given
    if not given.startswith(family):
        what = {"W": "weights", "A": "activations"}[family]
        raise InputError(f"level sets of {what} start with {family}, such as {family}2; got '{given}'")
    return level_set(given)
