"""A network as a list of operations, so that one description serves float training, simulation and integers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.brelu.method.bounded_relu import BoundedReLU, bounded_relus
from labkit.papers.brelu.method.bounds import ActivationStatistics, Statistics, check_rule
from labkit.papers.brelu.method.weights import Layer

Operation = Literal["layer", "bounded_relu", "max_pool", "global_average", "add", "concat", "pad_channels"]


@dataclass(frozen=True)
class Node:
    """One operation. inputs: names of earlier nodes, or "input".

    options: max_pool (kernel, stride, padding); pad_channels (stride, channels before, channels after).
    An "add" names the layer of the main path first, then the shortcut.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    options: tuple[int, ...] = ()


class Network(nn.Module):
    """Runs its nodes in order; the last one's value is the output.

    A bounded ReLU has two values: codes (rounded, where rounding is on) for convolutions, and the clipped value before
    rounding for additions.  [official code]
    """

    def __init__(self, nodes: Sequence[Node], modules: dict[str, Layer | BoundedReLU]) -> None:
        super().__init__()
        check_nodes(nodes, modules)
        self.nodes = tuple(nodes)
        self.parts = nn.ModuleDict(modules)
        self._last_use = {name: index for index, node in enumerate(nodes) for name in node.inputs}

    def forward(
        self, x: Float[Tensor, "n c h w"], watch: Callable[[str, Tensor], None] | None = None
    ) -> Float[Tensor, "n o h2 w2"]:
        """watch: called with the name and value of every node."""
        codes: dict[str, Tensor] = {"input": x}
        clipped: dict[str, Tensor] = {}
        for index, node in enumerate(self.nodes):
            value, before = self._compute(node, codes, clipped)
            codes[node.name] = value
            if before is not None:
                clipped[node.name] = before
            if watch is not None:
                watch(node.name, value)
            for name in node.inputs:
                if self._last_use[name] == index:
                    codes.pop(name, None)
                    clipped.pop(name, None)
        return codes[self.nodes[-1].name]

    def _compute(
        self, node: Node, codes: dict[str, Tensor], clipped: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """The value of a node and, of a bounded ReLU, the value before rounding."""
        first = codes[node.inputs[0]]
        unrounded = clipped.get(node.inputs[0])
        match node.operation:
            case "bounded_relu":
                relu = self.parts[node.name]
                assert isinstance(relu, BoundedReLU)
                before = relu.clip(first)
                return relu.round(before), before
            case "layer":
                return self.parts[node.name](first), None
            case "max_pool":
                kernel, stride, padding = node.options
                return tuple(  # type: ignore[return-value]
                    None if value is None else F.max_pool2d(value, kernel, stride, padding)
                    for value in (first, unrounded)
                )
            case "pad_channels":
                return tuple(  # type: ignore[return-value]
                    None if value is None else pad_channels(value, node.options) for value in (first, unrounded)
                )
            case "global_average":
                return (first if unrounded is None else unrounded).mean((2, 3), keepdim=True), None
            case "add":
                shortcut = clipped.get(node.inputs[1], codes[node.inputs[1]])
                return first + shortcut, None
            case "concat":
                return torch.cat([codes[name] for name in node.inputs], 1), None

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def consumers(self, name: str) -> list[Node]:
        return [node for node in self.nodes if name in node.inputs]


def pad_channels(x: Tensor, options: tuple[int, ...]) -> Tensor:
    """Every stride-th pixel, and zero channels before and after."""
    stride, before, after = options
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, after))


def check_nodes(nodes: Sequence[Node], modules: dict[str, Any]) -> None:
    """Raises InputError for a graph that does not hang together, or that has no integer form."""
    known: dict[str, Operation | None] = {"input": None}
    for node in nodes:
        for name in node.inputs:
            if name not in known:
                raise InputError(f"node '{node.name}' reads '{name}', which does not stand before it.")
        if node.name in known:
            raise InputError(f"two nodes are called '{node.name}'.")
        if node.operation in ("layer", "bounded_relu") and node.name not in modules:
            raise InputError(f"node '{node.name}' is a {node.operation}, but no module of that name was given.")
        if node.operation == "layer" and known[node.inputs[0]] in ("layer", "add"):
            raise InputError(f"layer '{node.name}' reads sums of '{node.inputs[0]}'; put a bounded ReLU between them.")
        if node.operation == "add" and known[node.inputs[0]] != "layer":
            raise InputError(f"the first input of the addition '{node.name}' must be a layer: its step is adjusted.")
        if node.operation == "add" and list(known).index(node.inputs[1]) > list(known).index(node.inputs[0]):
            raise InputError(f"the shortcut of '{node.name}' must be computed before its main path's last layer.")
        if node.operation == "concat" and any(known[name] != "bounded_relu" for name in node.inputs):
            raise InputError(f"'{node.name}' concatenates codes: each of its inputs must be a bounded ReLU.")
        known[node.name] = node.operation
    if not nodes or nodes[-1].operation != "layer":
        raise InputError("the last node of a network must be a layer.")


@torch.no_grad()
def calibrate(network: nn.Module, batches: Sequence[Tensor]) -> Statistics:
    """Run batches through the network without bounds and collect statistics for every bounded ReLU.

    [official code] calibrates ResNets on validation images; take training images: the bounds must not see the test.
    """
    relus = bounded_relus(network)
    if not len(batches):
        raise InputError("calibration needs at least one batch of images.")
    before = {name: (relu.bound.clone(), relu.rounding) for name, relu in relus.items()}
    was_training = network.training
    try:
        for relu in relus.values():
            relu.statistics, relu.rounding = ActivationStatistics(), False
            relu.bound.fill_(float("inf"))
        network.eval()
        for batch in batches:
            network(batch)
        return {name: relu.statistics for name, relu in relus.items() if relu.statistics is not None}
    finally:
        for name, relu in relus.items():
            bound, relu.rounding = before[name]
            relu.bound.copy_(bound)
            relu.statistics = None
        network.train(was_training)


def set_bounds(
    network: "Network",
    statistics: Statistics,
    rule: str,
    levels: int = 127,
    factor: float = 1.0,
) -> None:
    """Give every bounded ReLU the bound of `rule` times `factor`, and `levels`.

    Branches that are concatenated get the largest of their bounds [ours]: their codes must mean the same, and the
    paper's way, a coarser weight step for one branch alone, then has almost nothing left to correct. A ReLU in front
    of the global average keeps none: the average has a bound of its own.  [official code]
    """
    check_rule(rule)
    if not 0 < factor < float("inf"):
        raise InputError(f"the factor on the bounds must be positive; got {factor}.")
    relus = bounded_relus(network.parts)
    bounds = {}
    for name, relu in relus.items():
        averaged = any(node.operation == "global_average" for node in network.consumers(name))
        bounds[name] = float("inf") if averaged else factor * statistics[f"parts.{name}"].bound(rule, levels)
        relu.levels = levels
    for node in network.nodes:
        if node.operation == "concat":
            bounds |= dict.fromkeys(node.inputs, max(bounds[name] for name in node.inputs))
    for name, relu in relus.items():
        relu.bound.fill_(bounds[name])


def layer_report(network: "Network", statistics: Statistics) -> dict[str, dict[str, float]]:
    """Per bounded ReLU: its bound, the share of values it clips, and the two errors it trades."""
    report = {}
    for name, relu in bounded_relus(network.parts).items():
        observed, bound = statistics[f"parts.{name}"], float(relu.bound)
        if bound == float("inf"):
            continue
        report[name] = {
            "bound": bound,
            "maximum": observed.maximum,
            "clip_rate": observed.clip_rate(bound),
            "clip_error": observed.clip_error(bound),
            "rounding_error": observed.rounding_error(bound, relu.levels),
        }
    return report
