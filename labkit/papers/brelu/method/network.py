"""A network that computes what its nodes say in real numbers: for training, calibration and simulation."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.brelu.method import shapes
from labkit.papers.brelu.method.bounded_relu import BoundedReLU, bounded_relus
from labkit.papers.brelu.method.bounds import ActivationStatistics, Statistics, check_rule
from labkit.papers.brelu.method.graph import Node, check_nodes, concatenated, forms, readers
from labkit.papers.brelu.method.weights import Layer

Value = tuple[Tensor | None, Tensor | None]  # as codes, and as sums


class Network(nn.Module):
    """Runs its nodes in order; the last one's value is the output, as (n, features) where it is `flat`.

    A bounded ReLU has two values: codes (rounded, where rounding is on) for convolutions, and the clipped value before
    rounding for additions.  [official code]
    """

    def __init__(self, nodes: Sequence[Node], modules: Mapping[str, Layer | BoundedReLU], flat: bool = False) -> None:
        super().__init__()
        for node in nodes:
            if node.operation in ("layer", "bounded_relu") and node.name not in modules:
                raise InputError(f"node '{node.name}' is a {node.operation}, but no module of that name was given.")
        check_nodes(nodes)
        self.nodes, self.flat = tuple(nodes), flat
        self.parts = nn.ModuleDict(modules)
        self._readers, self._forms = readers(nodes), forms(nodes)
        self._last_use = {name: index for index, node in enumerate(nodes) for name in node.inputs}

    def forward(self, x: Float[Tensor, "n c h w"], watch: Callable[[str, Tensor], None] | None = None) -> Tensor:
        """watch: called with the name and value of every node."""
        values: dict[str, Value] = {"input": (x, None)}
        for index, node in enumerate(self.nodes):
            values[node.name] = self._compute(node, [values[name] for name in node.inputs])
            if watch is not None:
                codes, sums = values[node.name]
                watch(node.name, sums if codes is None else codes)  # type: ignore[arg-type]
            for name in node.inputs:
                if self._last_use[name] == index:
                    values.pop(name, None)
        y = _sums(values[self.nodes[-1].name])
        return y.flatten(1) if self.flat else y

    def _compute(self, node: Node, inputs: list[Value]) -> Value:
        first = inputs[0]
        match node.operation:
            case "bounded_relu":
                relu = self.parts[node.name]
                assert isinstance(relu, BoundedReLU)
                before = relu.clip(_sums(first))
                return relu.round(before), before
            case "layer":
                return None, self.parts[node.name](first[0])
            case "add":
                return None, _sums(first) + _sums(inputs[1])
            case "concat":
                return torch.cat([codes for codes, _ in inputs if codes is not None], 1), None
            case "average_pool" | "adaptive_average":
                return None, shapes.average(node, _sums(first))
        codes, sums = (None if form is None else shapes.apply(node, form) for form in first)
        return codes, sums

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def consumers(self, name: str) -> list[Node]:
        return self._readers[name]

    def has_codes(self, name: str) -> bool:
        """Do convolutions or concatenations read this bounded ReLU? Others need no bound."""
        return "codes" in self._forms[name]


def _sums(value: Value) -> Tensor:
    codes, sums = value
    chosen = codes if sums is None else sums
    assert chosen is not None
    return chosen


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
            relu.bound.fill_(relu.ceiling)
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
    paper's way, a coarser weight step for one branch alone, then has almost nothing left to correct. A ReLU that only
    averages and additions read keeps none: what follows them has a bound of its own.  [official code]

    Raises:
        InputError: no such rule, a factor that is not positive, or a layer that is dead; names it.
    """
    check_rule(rule)
    if not 0 < factor < float("inf"):
        raise InputError(f"the factor on the bounds must be positive; got {factor}.")
    relus = bounded_relus(network.parts)
    bounds = {}
    for name, relu in relus.items():
        relu.levels = levels
        bounds[name] = relu.ceiling
        if network.has_codes(name) or relu.ceiling < float("inf"):
            try:
                bounds[name] = min(factor * statistics[f"parts.{name}"].bound(rule, levels), relu.ceiling)
            except InputError as error:
                raise InputError(f"'{name}': {error}") from None
    for group in concatenated(network.nodes):
        bounds |= dict.fromkeys(group, max(bounds[name] for name in group))
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
