"""Snapping: bounds and weight steps of a network move to the nearest values that integers represent exactly."""

import math
from dataclasses import field
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.int8_conv import Requantizer
from labkit.papers.brelu.method.bounded_relu import BoundedReLU
from labkit.papers.brelu.method.graph import KEEPS_FORMS, Name, Node, concatenated, fused_layers
from labkit.papers.brelu.method.multiply_shift import mul_shift_ratio, requantizer_for, requantizer_to, snapped_bound
from labkit.papers.brelu.method.network import Network
from labkit.papers.brelu.method.weights import Layer, layers

LIFT = 8  # bits by which codes are shifted up where sums are asked for: additions and averages need finer steps

Ratio = Annotated[float, Field(gt=0, lt=1e30, allow_inf_nan=False)]
Factor = tuple[Annotated[int, Field(ge=1, lt=1 << 24)], Annotated[int, Field(ge=0, le=30)]]


@dataclass(frozen=True, config={"strict": True, "extra": "forbid"})
class InputScale:
    """x stands as the int8 code round(x ratio) + zero, limited to -128..127."""

    ratio: Ratio
    zero: Annotated[int, Field(ge=-128, le=127)] = 0

    @classmethod
    def of(cls, low: float, high: float) -> "InputScale":
        """The finest scale on which `low` and `high` are codes. Only values of one sign need another zero than 0.

        Pixels / 255 and (pixels - 128) / 255 both get the code pixel - 128.
        """
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"the input must be finite numbers; got {low:g} to {high:g}.")
        if low >= 0 and high > 0:
            return cls(255 / high, -128)
        if low < 0:
            return cls(min(127 / high if high > 0 else math.inf, 128 / -low))
        raise InputError("the calibration input is zero everywhere: no scale fits it.")

    def codes(self, x: Tensor) -> Tensor:
        """int8, half rounds to the even one; what the calibration did not see is limited, never wrapped."""
        return (torch.round(x * self.ratio) + self.zero).clamp(-128, 127).to(torch.int8)


@dataclass(frozen=True, config={"strict": True, "extra": "forbid"})
class Scales:
    """What turns real numbers into integers, for a whole network. Names are those of the nodes.

    sums, codes: the ratio r of the int32 sums, and of the int8 codes, at each node. requantizers: of the bounded ReLUs.
    factors: (mul, shift) for each operand of an addition, by which they get one ratio.
    """

    input: InputScale
    levels: Annotated[int, Field(ge=1, le=127)]
    sums: dict[Name, Ratio] = field(default_factory=dict)
    codes: dict[Name, Ratio] = field(default_factory=dict)
    requantizers: dict[Name, Requantizer] = field(default_factory=dict)
    factors: dict[Name, tuple[Factor, Factor]] = field(default_factory=dict)

    def ratio(self, name: str) -> float:
        """r of the sums of a node; codes that are read as sums are lifted by 2^LIFT."""
        return self.sums[name] if name in self.sums else self.codes[name] * 2**LIFT


@torch.no_grad()
def snap(network: Network, scale: InputScale, levels: int = 127) -> Scales:
    """Move bounds and weight steps of `network` to the nearest values that integers represent exactly.

    Call it after `quantize_layers` and `set_bounds`, before fine-tuning: the network is then trained with the bounds
    that it will be deployed with. Addition and concatenation change a weight step, never the data.  [official code]

    Raises:
        InputError: no steps or bounds set yet, or scales that no integers reach.
    """
    _check_ready(network)
    snapping = _Snapping(network, scale, levels)
    for node in network.nodes:
        snapping.node(node)
    return snapping.scales


def _check_ready(network: Network) -> None:
    for name, layer in layers(network.parts).items():
        if not float(layer.step):
            raise InputError(f"layer '{name}' has no weight step yet; call quantize_layers(network) first.")
        if layer.per_channel:
            raise InputError(f"layer '{name}' has one step per channel; the integer form has one per layer.")


class _Snapping:
    """The scales of the nodes so far."""

    def __init__(self, network: Network, scale: InputScale, levels: int) -> None:
        self.network = network
        self.scales = Scales(scale, levels, codes={"input": scale.ratio})
        self.fused = fused_layers(network.nodes)
        self.groups = concatenated(network.nodes)

    def node(self, node: Node) -> None:
        scales, name, first = self.scales, node.name, node.inputs[0]
        match node.operation:
            case "layer":
                scales.sums[name] = scales.codes[first] / float(_layer(self.network, name).step)
            case "bounded_relu":
                self.bounded_relu(node)
            case "add":
                self.add(node)
            case "concat":
                scales.codes[name] = scales.codes[first]
            case "average_pool" | "adaptive_average":  # the integers' mean: the ratio stays
                scales.sums[name] = scales.ratio(first)
            case _:
                assert node.operation in KEEPS_FORMS
                for ratios in (scales.sums, scales.codes):
                    if first in ratios:
                        ratios[name] = ratios[first]

    def bounded_relu(self, node: Node) -> None:
        """B moves to levels 2^shift / (mul r); then the output's ratio is r mul / 2^shift = levels / B."""
        scales, relu = self.scales, _relu(self.network, node.name)
        relu.levels = scales.levels
        ratio = scales.ratio(node.inputs[0])
        if math.isinf(float(relu.bound)):
            if self.network.has_codes(node.name):
                raise InputError(f"'{node.name}' has no bound, but its codes are read; call set_bounds(...) first.")
            scales.sums[node.name] = ratio
            return
        joint = next((group for group in self.groups if node.name in group), set())
        target = next((scales.codes[name] for name in joint if name in scales.codes), None)
        if target is None:
            requantizer = requantizer_for(float(relu.bound), ratio, scales.levels, relu.signed)
        else:
            requantizer = requantizer_to(target, ratio, scales.levels, relu.signed)
            ratio = self.concatenated(node, ratio, requantizer, target)
        codes = ratio * requantizer.mul / 2**requantizer.shift
        relu.bound.fill_(snapped_bound(requantizer, ratio, scales.levels))
        if relu.ceiling < float(relu.bound):  # a ReLU6 beside branches that reach further
            requantizer = requantizer._replace(u_max=max(1, round(relu.ceiling * ratio)))
        scales.requantizers[node.name], scales.sums[node.name], scales.codes[node.name] = requantizer, ratio, codes

    def concatenated(self, node: Node, ratio: float, requantizer: Requantizer, target: float) -> float:
        """The branch gets a larger weight step, until its codes mean exactly what the first one's do [official code].

        Where no layer stands directly before it, its codes stay as near as mul with its 14 bits comes [ours].
        """
        source, scales = node.inputs[0], self.scales
        part = dict(self.network.parts).get(source)
        if not isinstance(part, Layer) or self.network.consumers(source) != [node]:
            return ratio
        own = ratio * requantizer.mul / 2**requantizer.shift
        part.step.fill_(align_concatenation(float(part.step), own, target))
        scales.sums[source] = ratio * target / own
        return scales.sums[source]

    def add(self, node: Node) -> None:
        """s := r_in / (r_shortcut mul / 2^shift): both operands then have exactly the same ratio.

        Where neither operand is a layer of its own, the coarser one is brought to the finer one's ratio within 0.05 %:
        there is no step that could take up the rest  [ours].
        """
        main, scales = node.inputs[0], self.scales
        ratios = [scales.ratio(name) for name in node.inputs]
        if node.name in self.fused:
            layer, r_in = _layer(self.network, main), scales.codes[self.network.node(main).inputs[0]]
            step, factor = align_addition(r_in, float(layer.step), ratios[1])
            layer.step.fill_(step)
            scales.factors[node.name] = ((1, 0), factor)
            scales.sums[main] = scales.sums[node.name] = ratios[1] * factor[0] / 2 ** factor[1]
            return
        finest = max(ratios)
        one, other = (mul_shift_ratio(ratio / finest, 1 / 2048) if ratio < finest else (1, 0) for ratio in ratios)
        scales.factors[node.name] = (one, other)
        scales.sums[node.name] = finest


def align_addition(r_in: float, step: float, r_shortcut: float) -> tuple[float, tuple[int, int]]:
    """The main path's new weight step, and (mul, shift) for the shortcut, so that both have one ratio.

    r_in / new step = r_shortcut mul / 2^shift exactly; the step changes by less than 1 %.  [official code]
    """
    mul, shift = mul_shift_ratio(r_shortcut / (r_in / step))
    return r_in / (r_shortcut * mul / 2**shift), (mul, shift)


def align_concatenation(step: float, ratio: float, target: float) -> float:
    """The weight step that brings a branch's output ratio r mul / (s 2^shift) down to `target`."""
    return step * ratio / target


def _layer(network: Network, name: str) -> Layer:
    layer = network.parts[name]
    assert isinstance(layer, Layer)
    return layer


def _relu(network: Network, name: str) -> BoundedReLU:
    relu = network.parts[name]
    assert isinstance(relu, BoundedReLU)
    return relu


def input_scale(batches: list[Float[Tensor, "n c h w"]]) -> InputScale:
    """The scale of the least and largest value in these batches."""
    return InputScale.of(min(float(b.min()) for b in batches), max(float(b.max()) for b in batches))
