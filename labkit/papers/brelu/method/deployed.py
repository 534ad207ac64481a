"""What is deployed: nodes, scales, int8 weights and int32 biases, checked, and kept in one file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Int8, Int32
from pydantic import BaseModel, Field
from torch import Tensor

from labkit import tensor_files
from labkit.errors import InputError
from labkit.kernels.int8_conv import Geometry, check_requantizer
from labkit.papers.brelu.method.graph import KEEPS_FORMS, Name, Node, check_nodes, forms
from labkit.papers.brelu.method.network import Network
from labkit.papers.brelu.method.snap import Scales
from labkit.papers.brelu.method.weights import layers

LIMIT = 1 << 29  # of each operand of an addition: the sum of a few then stays in int32

Side = Annotated[int, Field(ge=0, le=4096)]
Sides = tuple[Side, Side]


class Header(BaseModel, frozen=True, extra="forbid", strict=True):
    """What stands in a file beside the tensors."""

    format: Literal["labkit brelu integer network 2"] = "labkit brelu integer network 2"
    nodes: tuple[Node, ...] = Field(min_length=1, max_length=10_000)
    scales: Scales
    geometry: dict[Name, tuple[Sides, Sides, Sides, Annotated[int, Field(ge=1)]]]
    flat: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Deployed:
    """An integer network as data.

    weights, biases, geometry: by the name of the layer; weights (o, c / groups, kh, kw). flat: the output is (n, o).
    """

    nodes: tuple[Node, ...]
    scales: Scales
    geometry: Mapping[str, Geometry]
    weights: Mapping[str, Int8[Tensor, "o c kh kw"]]
    biases: Mapping[str, Int32[Tensor, " o"]]
    flat: bool

    @property
    def output_ratio(self) -> float:
        """r of the output: its integers are r times the real numbers."""
        last = self.nodes[-1].name
        return self.scales.sums.get(last) or self.scales.codes[last]

    @property
    def channels(self) -> int | None:
        """Of the input; None where no layer says."""
        first = next((n.name for n in self.nodes if n.operation == "layer" and n.inputs == ("input",)), None)
        return self.weights[first].shape[1] * self.geometry[first].groups if first else None

    @property
    def tensors(self) -> dict[str, Tensor]:
        weights = {f"{name}_weight": weight for name, weight in self.weights.items()}
        return weights | {f"{name}_bias": bias for name, bias in self.biases.items()}

    @property
    def header(self) -> Header:
        plain: dict[str, Any] = {name: tuple(lies) for name, lies in self.geometry.items()}
        return Header(nodes=self.nodes, scales=self.scales, geometry=plain, flat=self.flat)

    def write(self, path: Path) -> int:
        """Weights in one byte each, biases in four, and the scales. Returns the size of the file in bytes."""
        return tensor_files.write(path, self.tensors, self.header)

    @classmethod
    def read(cls, path: Path) -> "Deployed":
        """Read what `write` wrote.

        Raises:
            InputError: no such file, damaged, or not an integer network; says what does not fit.
        """
        tensors, header = tensor_files.read(path, Header)
        names = [node.name for node in header.nodes if node.operation == "layer"]
        if set(tensors) != {f"{name}_{kind}" for name in names for kind in ("weight", "bias")}:
            raise InputError(f"'{path}' does not hold the weight and bias of each of its layers, and nothing else.")
        shapes = {"weight": (torch.int8, 4), "bias": (torch.int32, 1)}
        wrong = [name for name, t in tensors.items() if (t.dtype, t.dim()) != shapes[name.rpartition("_")[2]]]
        if wrong:
            raise InputError(f"'{path}': {wrong[0]} is no int8 weight (o, c, kh, kw), or no int32 bias.")
        deployed = cls(
            header.nodes,
            header.scales,
            {name: Geometry(*lies) for name, lies in header.geometry.items()},
            {name: tensors[f"{name}_weight"] for name in names},
            {name: tensors[f"{name}_bias"] for name in names},
            header.flat,
        )
        try:
            check(deployed)
        except InputError as error:
            raise InputError(f"'{path}' is not an integer network: {error}") from None
        return deployed


@torch.no_grad()
def to_deployed(network: Network, scales: Scales) -> Deployed:
    """w = clip(round(W' / s), -128, 127) in int8 and b = round(b' r) in int32, with the scales from `snap`.

    Raises:
        InputError: a bias, or a sum that a layer could reach, does not fit int32.
    """
    weights, biases = {}, {}
    for name, layer in layers(network.parts).items():
        codes = layer.codes()
        bias = torch.round(layer.folded()[1].double() * scales.sums[name])
        largest = codes.abs().sum((1, 2, 3)) * 255 + bias.abs()
        if not float(largest.max()) < 2**30:
            raise InputError(
                f"the sums of layer '{name}' could reach {float(largest.max()):.3g} and leave int32: its bias is "
                "enormous beside its weights. Is the network trained, and was snap called on it?"
            )
        weights[name], biases[name] = codes.to(torch.int8), bias.to(torch.int32)
    geometry = {name: layer.geometry for name, layer in layers(network.parts).items()}
    deployed = Deployed(network.nodes, scales, geometry, weights, biases, network.flat)
    check(deployed)
    return deployed


def operand_limit(mul: int, shift: int) -> int:
    """The largest operand of an addition whose product with mul, and its part of the sum, stay in int32."""
    return min(((1 << 31) - 1 - (1 << shift) // 2) // mul, (LIMIT << shift) // mul)


def zeros(nodes: tuple[Node, ...], scales: Scales) -> dict[str, int]:
    """The code of 0, where it is not 0: of the input, and of what only moves the input's codes."""
    codes_of_0 = {"input": scales.input.zero}
    for node in nodes:
        if node.operation in KEEPS_FORMS and node.inputs[0] in codes_of_0:
            codes_of_0[node.name] = codes_of_0[node.inputs[0]]
    return codes_of_0


def check(deployed: Deployed) -> None:
    """Raises InputError for anything that would not compute, or would leave int32: names the node."""
    check_nodes(deployed.nodes)
    for node in deployed.nodes:
        if node.operation == "layer" and node.name not in deployed.geometry:
            raise InputError(f"layer '{node.name}' has no stride and padding.")
    have, scales = forms(deployed.nodes), deployed.scales
    channels: dict[str, int | None] = {"input": deployed.channels}
    for node in deployed.nodes:
        if node.operation == "layer":
            _check_layer(node, deployed, channels)
        elif node.operation == "bounded_relu" and "codes" in have[node.name]:
            if node.name not in scales.requantizers:
                raise InputError(f"'{node.name}' has no multiplier and shift.")
            check_requantizer(scales.requantizers[node.name])
        elif node.operation == "add" and node.name not in scales.factors:
            raise InputError(f"the addition '{node.name}' has no factors for its operands.")
        channels[node.name] = _channels(node, deployed, channels)
    last = deployed.nodes[-1].name
    if last not in scales.sums and last not in scales.codes:
        raise InputError(f"the output, '{last}', has no ratio.")


def _check_layer(node: Node, deployed: Deployed, channels: Mapping[str, int | None]) -> None:
    name = node.name
    weight, bias = deployed.weights[name], deployed.biases[name]
    if not weight.numel():
        raise InputError(f"layer '{name}' has no weights.")
    stride, padding, dilation, groups = deployed.geometry[name]
    if any(p > 2 * d * k for p, d, k in zip(padding, dilation, weight.shape[2:], strict=True)):
        raise InputError(f"layer '{name}' pads by {padding} pixels, more than twice its kernel.")
    if min(*stride, *dilation) < 1 or len(weight) % groups or bias.shape != weight.shape[:1]:
        raise InputError(f"weight {tuple(weight.shape)}, bias and {groups} groups of layer '{name}' do not fit.")
    given = channels[node.inputs[0]]
    if given is not None and given != weight.shape[1] * groups:
        raise InputError(f"layer '{name}' takes {weight.shape[1] * groups} channels; it is given {given}.")
    if int(weight.long().abs().sum((1, 2, 3)).max()) * 255 + int(bias.long().abs().max()) >= 1 << 30:
        raise InputError(f"the sums of layer '{name}' could leave int32.")


def _channels(node: Node, deployed: Deployed, channels: Mapping[str, int | None]) -> int | None:
    """Channels of a node's value; None where they are not known before an image is seen."""
    given = [channels[name] for name in node.inputs]
    known = [count for count in given if count is not None]
    match node.operation:
        case "layer":
            return len(deployed.weights[node.name])
        case "concat":
            return sum(known) if len(known) == len(given) else None
        case "add":
            if len(known) == 2 and known[0] != known[1] and 1 not in known:
                raise InputError(f"'{node.name}' adds {known[0]} channels to {known[1]}.")
            return max(known, default=None)
        case "pad_channels":
            return known[0] + node.options[1] + node.options[2] if known else None
        case "pixel_shuffle":
            square = node.options[0] ** 2
            if known and known[0] % square:
                raise InputError(f"'{node.name}' needs a multiple of {square} channels; it is given {known[0]}.")
            return known[0] // square if known else None
        case "pixel_unshuffle":
            return known[0] * node.options[0] ** 2 if known else None
        case "flatten":
            return None
    return known[0] if known else None
