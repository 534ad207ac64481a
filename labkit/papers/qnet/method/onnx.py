"""The packed network as an ONNX file (opset 17, standard operators only).

Weights: 8-bit integers behind DequantizeLinear, w = scale Y. Activations: comparison nodes, y = scale sum_i [x > t_i];
their thresholds come from k-means and training and are seldom evenly spaced, so that QuantizeLinear, which rounds,
would be another function. Levels and thresholds are the packed network's to the last bit.
"""

import copy
import functools
import io
import itertools
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.files import write_atomically
from labkit.papers.qnet.method.batches import device_of, inputs_of
from labkit.papers.qnet.method.packing import (
    PackedActivation,
    PackedLayer,
    packed_activations,
    packed_layers,
    replace_modules,
)
from labkit.papers.qnet.method.soft_quantizer import quantizers

OPSET = 17


def export_onnx(packed: nn.Module, path: str | Path, sample: Any) -> int:
    """Writes a packed network as ONNX, atomically; returns the size of the file in bytes.

    The input is called "input", and its first axis may have any length; one output is called "output".

    Args:
        sample: one batch of inputs, or of (inputs, labels): its shape is the network's.

    Raises:
        InputError: the network is not packed, has activation quantisers whose scale depends on the input, or computes
            something that ONNX has no operator for.
    """
    if not packed_layers(packed) and not packed_activations(packed):
        raise InputError("the model has no packed layers; export_onnx(pack(model), path, sample)")
    if left := quantizers(packed):
        raise InputError(f"these quantisers have no ONNX form: {', '.join(left)}; they scale by their input (XNOR)")
    inputs = inputs_of(sample).to(device_of(packed))
    content = _to_onnx(_spelled_out(packed), inputs)
    write_atomically(Path(path), content)
    return len(content)


def _to_onnx(model: nn.Module, inputs: Tensor) -> bytes:
    stream = io.BytesIO()
    options: dict[str, Any] = {
        "dynamo": False,
        "opset_version": OPSET,
        "input_names": ["input"],
        "output_names": ["output"],
    }
    options["dynamic_axes"] = {"input": {0: "batch"}, "output": {0: "batch"}}
    with warnings.catch_warnings():
        # this exporter is on its way out of torch, and its successor needs one more package
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(model, (inputs,), stream, **options)  # type: ignore[arg-type]
        except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"the network cannot be written as ONNX: {first}") from error
    return stream.getvalue()


def _spelled_out(packed: nn.Module) -> nn.Module:
    """A copy whose packed layers and activations are made of operators that ONNX has."""
    model = copy.deepcopy(packed).eval()
    forms = {PackedLayer: _Layer, PackedActivation: _Activation}
    new = {id(module): forms[type(module)](module) for module in model.modules() if type(module) in forms}
    replace_modules(model, new)
    return model


class _Dequantize(torch.autograd.Function):
    """w = scale Y, in ONNX a DequantizeLinear along the first axis."""

    @staticmethod
    def forward(ctx: Any, Y: Tensor, scale: Tensor) -> Tensor:
        return Y.to(scale.dtype) * scale.view(-1, *[1] * (Y.dim() - 1))

    @staticmethod
    def symbolic(g: Any, Y: Any, scale: Any) -> Any:
        return g.op("DequantizeLinear", Y, scale, axis_i=0)


class _Layer(nn.Module):
    """A packed layer with its levels as 8-bit integers; as float weights where they are not whole."""

    levels: Tensor
    scale: Tensor

    def __init__(self, layer: PackedLayer) -> None:
        super().__init__()
        self.compute, self.bias = layer._compute, layer.bias
        whole = torch.equal(layer.levels, layer.levels.round()) and layer.levels.abs().max() <= 127
        self.whole = whole and layer.scale.dtype == torch.float32
        self.register_buffer("levels", layer.integer_levels() if self.whole else layer.weight)
        self.register_buffer("scale", layer.scale.expand(layer.shape[0]).clone())

    def forward(self, x: Tensor) -> Tensor:
        weight = _Dequantize.apply(self.levels, self.scale) if self.whole else self.levels
        return self.compute(x, weight, self.bias)


class _Activation(nn.Module):
    """Y_1 + sum_i s_i [x > t_i], times the scale; gaps s_i that are 1 cost nothing."""

    def __init__(self, activation: PackedActivation) -> None:
        super().__init__()
        levels = (activation.levels if activation.counts else activation.levels * activation.scale).tolist()
        self.lowest, self.gaps = levels[0], [high - low for low, high in itertools.pairwise(levels)]
        self.counts = activation.counts
        self.thresholds, self.scale = activation.thresholds.unbind(), activation.scale  # no buffers: constants

    def forward(self, x: Tensor) -> Tensor:
        terms = [(x > threshold).to(x.dtype) for threshold in self.thresholds]
        terms = [term if gap == 1 else term * gap for term, gap in zip(terms, self.gaps, strict=True)]
        y = functools.reduce(torch.add, terms) if terms else torch.zeros_like(x)
        y = y + self.lowest if self.lowest else y
        return y * self.scale if self.counts else y
