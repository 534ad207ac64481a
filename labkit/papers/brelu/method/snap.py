"""Snapping: bounds and weight steps of a network move to the nearest values that integers represent exactly."""

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.int8_conv import Requantizer
from labkit.papers.brelu.method.bounded_relu import BoundedReLU
from labkit.papers.brelu.method.multiply_shift import mul_shift_ratio, requantizer_for, snapped, snapped_bound
from labkit.papers.brelu.method.network import Network, Node
from labkit.papers.brelu.method.weights import Layer, layers


@dataclass(frozen=True)
class Scales:
    """What turns real numbers into integers, for a whole network. Names are those of the nodes.

    sums, codes: the ratio r of the int32 sums, and of the int8 codes, at each node.
    requantizers: of the bounded ReLUs. shortcuts: (mul, shift) by which an addition brings its shortcut to the scale
    of its main path. areas: pixels that a global average sums up. output: (mul, shift) from sums to whole units of the
    output (grey levels); None leaves the sums of the last layer (scores).
    """

    input_ratio: float
    levels: int
    sums: dict[str, float] = field(default_factory=dict)
    codes: dict[str, float] = field(default_factory=dict)
    requantizers: dict[str, Requantizer] = field(default_factory=dict)
    shortcuts: dict[str, tuple[int, int]] = field(default_factory=dict)
    areas: dict[str, int] = field(default_factory=dict)
    output: tuple[int, int] | None = None


@torch.no_grad()
def snap(
    network: Network,
    input_ratio: float,
    example: Float[Tensor, "n c h w"],
    *,
    levels: int = 127,
    output_units: float | None = None,
) -> Scales:
    """Move bounds and weight steps of `network` to the nearest values that integers represent exactly.

    Call it after `quantize_layers` and `set_bounds`, before fine-tuning: the network is then trained with the bounds
    that it will be deployed with. Addition and concatenation change a weight step, never the data.  [official code]

    Args:
        input_ratio: r of the input: its integer is r times its real value (255 sigma for pixel - 128).
        example: an input, to see how large a global average is.
        output_units: whole units of the integer output in 1.0 of the network's (255 for grey levels); None: scores.

    Raises:
        InputError: no steps or bounds set yet, or scales that no integers reach.
    """
    _check_ready(network, input_ratio)
    scales = Scales(input_ratio, levels, codes={"input": input_ratio}, areas=_areas(network, example))
    for node in network.nodes:
        _SNAP[node.operation](network, node, scales)
    last = network.nodes[-1].name
    if output_units is None:
        return scales
    return dataclasses.replace(scales, output=_output_scale(output_units / scales.sums[last]))


def _check_ready(network: Network, input_ratio: float) -> None:
    if not 0 < input_ratio < math.inf:
        raise InputError(f"the input's ratio must be positive; got {input_ratio}.")
    for name, layer in layers(network.parts).items():
        if not layer.step:
            raise InputError(f"layer '{name}' has no weight step yet; call quantize_layers(network) first.")
        if layer.per_channel:
            raise InputError(f"layer '{name}' has one step per channel; the integer form has one per layer.")


def _areas(network: Network, example: Tensor) -> dict[str, int]:
    sizes: dict[str, int] = {}
    network(example[:1], watch=lambda name, value: sizes.update({name: math.prod(value.shape[2:])}))
    return {n.name: sizes[n.inputs[0]] for n in network.nodes if n.operation == "global_average"}


def _snap_layer(network: Network, node: Node, scales: Scales) -> None:
    scales.sums[node.name] = scales.codes[node.inputs[0]] / _layer(network, node.name).step


def _snap_relu(network: Network, node: Node, scales: Scales) -> None:
    """B moves to levels 2^shift / (mul r); then the output's ratio is r mul / 2^shift = levels / B."""
    relu, ratio = _relu(network, node.name), scales.sums[node.inputs[0]]
    scales.sums[node.name] = ratio
    relu.levels = scales.levels
    if math.isinf(float(relu.bound)):
        if any(n.operation not in ("global_average", "add") for n in network.consumers(node.name)):
            raise InputError(f"'{node.name}' has no bound, but a layer reads its codes; call set_bounds(...) first.")
        return
    _apply(relu, node.name, requantizer_for(float(relu.bound), ratio, scales.levels), ratio, scales)


def _apply(relu: BoundedReLU, name: str, requantizer: Requantizer, ratio: float, scales: Scales) -> None:
    scales.requantizers[name] = requantizer
    scales.sums[name] = ratio
    scales.codes[name] = ratio * requantizer.mul / 2**requantizer.shift
    relu.bound.fill_(snapped_bound(requantizer, ratio, scales.levels))


def _snap_add(network: Network, node: Node, scales: Scales) -> None:
    """s := r_in / (r_shortcut mul / 2^shift): both operands then have exactly the same ratio."""
    main, shortcut = node.inputs
    layer, r_in, r_shortcut = _layer(network, main), scales.codes[network.node(main).inputs[0]], scales.sums[shortcut]
    layer.step, scales.shortcuts[node.name] = align_addition(r_in, layer.step, r_shortcut)
    mul, shift = scales.shortcuts[node.name]
    scales.sums[main] = scales.sums[node.name] = r_shortcut * mul / 2**shift


def align_addition(r_in: float, step: float, r_shortcut: float) -> tuple[float, tuple[int, int]]:
    """The main path's new weight step, and (mul, shift) for the shortcut, so that both have one ratio.

    r_in / new step = r_shortcut mul / 2^shift exactly; the step changes by less than 1 %.  [official code]
    """
    mul, shift = mul_shift_ratio(r_shortcut / (r_in / step))
    return r_in / (r_shortcut * mul / 2**shift), (mul, shift)


def _snap_concat(network: Network, node: Node, scales: Scales) -> None:
    """The branch with the larger output ratio gets a larger weight step, until all ratios agree.  [official code]"""
    target = min(scales.codes[name] for name in node.inputs)
    for name in node.inputs:
        source = network.node(name).inputs[0]
        layer, old = _layer(network, source), scales.requantizers[name]
        layer.step = align_concatenation(layer.step, scales.codes[name], target)
        scales.sums[source] *= target / scales.codes[name]
        exact = snapped(old.mul, old.shift, scales.levels)
        _apply(_relu(network, name), name, exact, target * 2**old.shift / old.mul, scales)
    scales.codes[node.name] = target


def align_concatenation(step: float, ratio: float, target: float) -> float:
    """The weight step that brings a branch's output ratio r mul / (s 2^shift) down to `target`."""
    return step * ratio / target


def _snap_pool(network: Network, node: Node, scales: Scales) -> None:
    """Max-pool and zero channels leave ratios as they are."""
    for ratios in (scales.sums, scales.codes):
        if node.inputs[0] in ratios:
            ratios[node.name] = ratios[node.inputs[0]]


def _snap_average(network: Network, node: Node, scales: Scales) -> None:
    """The sum stands for the average: its ratio is the number of pixels times that of the pixels."""
    scales.sums[node.name] = scales.sums[node.inputs[0]] * scales.areas[node.name]


_SNAP = {
    "layer": _snap_layer,
    "bounded_relu": _snap_relu,
    "add": _snap_add,
    "concat": _snap_concat,
    "max_pool": _snap_pool,
    "pad_channels": _snap_pool,
    "global_average": _snap_average,
}


def _layer(network: Network, name: str) -> Layer:
    layer = network.parts[name]
    assert isinstance(layer, Layer)
    return layer


def _relu(network: Network, name: str) -> BoundedReLU:
    relu = network.parts[name]
    assert isinstance(relu, BoundedReLU)
    return relu


def _output_scale(factor: float) -> tuple[int, int]:
    """(mul, shift) with mul / 2^shift nearest to `factor`, mul < 2^15 and shift <= 22: 256 units then fit int32."""
    for shift in range(22, 0, -1):
        mul = round(factor * 2**shift)
        if 0 < mul < 1 << 15:
            return mul, shift
    raise InputError(f"no multiplier below 2^15 gives the output scale {factor:g}.")
