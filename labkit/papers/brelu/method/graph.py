"""A network as a list of operations, so that one description serves float training, simulation, integers and files.

A value has up to two forms. Codes: what a convolution reads and a concatenation puts side by side (int8 in the end).
Sums: what a convolution gives, what additions and averages read (int32); of a bounded ReLU, the value before rounding.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from labkit.errors import InputError

Operation = Literal[
    "layer", "bounded_relu", "add", "concat", "max_pool", "average_pool", "adaptive_max", "adaptive_average",
    "upsample", "pixel_shuffle", "pixel_unshuffle", "pad", "pad_channels", "flatten",
]  # fmt: skip
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
Form = Literal["codes", "sums"]

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "max_pool": (
        "kernel_y", "kernel_x", "stride_y", "stride_x", "padding_y", "padding_x", "dilation_y", "dilation_x", "ceil",
    ),
    "average_pool": (
        "kernel_y", "kernel_x", "stride_y", "stride_x", "padding_y", "padding_x", "ceil", "count_padding",
    ),
    "adaptive_max": ("height", "width"),  # 0 keeps the input's
    "adaptive_average": ("height", "width"),
    "upsample": ("factor_y", "factor_x"),
    "pixel_shuffle": ("factor",),
    "pixel_unshuffle": ("factor",),
    "pad": ("left", "right", "top", "bottom", "mode"),  # mode: an index into PADDING_MODES
    "pad_channels": ("stride", "before", "after"),
}  # fmt: skip
AT_LEAST_ONE = ("kernel", "stride", "dilation", "factor")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
KEEPS_FORMS = (
    "max_pool", "adaptive_max", "upsample", "pixel_shuffle", "pixel_unshuffle", "pad", "pad_channels", "flatten",
)  # fmt: skip
READS_CODES = ("layer", "concat")
LARGEST_WINDOW, LARGEST_ENLARGEMENT = 128 * 128, 1 << 20  # pixels: no file makes its reader hang, or fill its memory


@dataclass(frozen=True, config={"strict": True, "extra": "forbid"})
class Node:
    """One operation. inputs: names of earlier nodes, or "input". options: whole numbers, named in `OPTIONS`."""

    name: Name
    operation: Operation
    inputs: tuple[Name, ...] = Field(min_length=1, max_length=10_000)
    options: tuple[Annotated[int, Field(ge=0, le=4096)], ...] = ()


def readers(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """The nodes that read each value."""
    read_by: dict[str, list[Node]] = {"input": []}
    for node in nodes:
        read_by[node.name] = []
        for name in dict.fromkeys(node.inputs):
            read_by[name].append(node)
    return read_by


def read_forms(nodes: Sequence[Node]) -> dict[str, set[Form]]:
    """In which forms the others read each value; the last one is the output, read as sums where it has them."""
    wanted: dict[str, set[Form]] = {name: set() for name in ("input", *(node.name for node in nodes))}
    wanted[nodes[-1].name].add("sums")
    for node in reversed(nodes):
        for name in node.inputs:
            if node.operation in KEEPS_FORMS:
                wanted[name] |= wanted[node.name]
            else:
                wanted[name].add("codes" if node.operation in READS_CODES else "sums")
    return wanted


def forms(nodes: Sequence[Node]) -> dict[str, set[Form]]:
    """The forms that each value has. A bounded ReLU whose codes nobody reads needs no bound, and has none."""
    wanted, have = read_forms(nodes), {"input": {"codes"}}
    for node in nodes:
        match node.operation:
            case "bounded_relu":
                have[node.name] = {"codes", "sums"} if "codes" in wanted[node.name] else {"sums"}
            case "concat":
                have[node.name] = {"codes"}
            case "layer" | "add" | "average_pool" | "adaptive_average":
                have[node.name] = {"sums"}
            case _:
                have[node.name] = set(have[node.inputs[0]])
    return have  # type: ignore[return-value]


def fused_layers(nodes: Sequence[Node]) -> dict[str, str]:
    """By the name of an addition: the layer whose sums it adds to, and that nobody else reads.

    The addition adjusts that layer's weight step, and is computed together with it.
    """
    position = {name: index for index, name in enumerate(("input", *(node.name for node in nodes)))}
    operations, read_by = {node.name: node.operation for node in nodes}, readers(nodes)
    return {
        node.name: node.inputs[0]
        for node in nodes
        if node.operation == "add"
        and operations.get(node.inputs[0]) == "layer"
        and read_by[node.inputs[0]] == [node]
        and node.inputs.count(node.inputs[0]) == 1
        and position[node.inputs[1]] < position[node.inputs[0]]
        and nodes[-1].name != node.inputs[0]
    }


def concatenated(nodes: Sequence[Node]) -> list[set[str]]:
    """Groups of bounded ReLUs whose codes meet in a concatenation, and must mean the same."""
    by_name, groups = {node.name: node for node in nodes}, list[set[str]]()
    for node in nodes:
        if node.operation == "concat":
            group = _sources(node, by_name)
            apart = [other for other in groups if not other & group]
            groups = [*apart, group.union(*(other for other in groups if other & group))]
    return groups


def _sources(concat: Node, by_name: Mapping[str, Node]) -> set[str]:
    """The bounded ReLUs behind a concatenation, and "input" where its own codes are concatenated."""
    waiting, visited, sources = list(concat.inputs), set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in visited:
            continue
        visited.add(name)
        if name == "input" or by_name[name].operation == "bounded_relu":
            sources.add(name)
        else:
            waiting += by_name[name].inputs
    return sources


def check_nodes(nodes: Sequence[Node]) -> None:
    """Raises InputError for a graph that does not hang together, or that has no integer form."""
    if not nodes:
        raise InputError("a network needs at least one node.")
    known: dict[str, Operation | None] = {"input": None}
    for node in nodes:
        for name in node.inputs:
            if name not in known:
                raise InputError(f"node '{node.name}' reads '{name}', which does not stand before it.")
        if node.name in known:
            raise InputError(f"two nodes are called '{node.name}'.")
        operands = 2 if node.operation == "add" else 1
        if node.operation != "concat" and len(node.inputs) != operands:
            raise InputError(f"'{node.name}' is a {node.operation} of {len(node.inputs)} inputs, not of {operands}.")
        _check_options(node)
        known[node.name] = node.operation
    have = forms(nodes)
    for node in nodes:
        for name in node.inputs:
            if node.operation in READS_CODES and "codes" not in have[name]:
                raise InputError(f"{node.operation} '{node.name}' reads sums of '{name}'; put a bounded ReLU between.")
        if node.operation == "concat":
            _check_concatenation(node, {one.name: one for one in nodes})
    enlarged = math.prod(math.prod(n.options) ** (1 + (n.operation == "pixel_shuffle")) for n in nodes
                         if n.operation in ("upsample", "pixel_shuffle"))  # fmt: skip
    if enlarged > LARGEST_ENLARGEMENT:
        raise InputError(
            f"the network makes {enlarged} pixels of one; {LARGEST_ENLARGEMENT} are the most there can be."
        )


def _check_options(node: Node) -> None:
    names = OPTIONS.get(node.operation, ())
    if len(node.options) != len(names):
        raise InputError(f"'{node.name}', a {node.operation}, has {len(names)} options {names}; got {node.options}.")
    values = dict(zip(names, node.options, strict=True))
    for name, value in values.items():
        if name.startswith(AT_LEAST_ONE) and value < 1:
            raise InputError(f"{name} of '{node.name}' must be 1 or more; got {value}.")
        if name.startswith("factor") and value > 64:
            raise InputError(f"{name} of '{node.name}' must be 64 or less; got {value}.")
        if name.startswith("padding") and 2 * value > values[name.replace("padding", "kernel")]:
            raise InputError(f"{name} of '{node.name}' is more than half of the window: {value}.")
        if name in ("left", "right", "top", "bottom") and value > 256:
            raise InputError(f"'{node.name}' pads by {value} pixels; 256 are the most there can be.")
        if name == "mode" and value >= len(PADDING_MODES):
            raise InputError(f"there is no padding mode {value} for '{node.name}'; there are {PADDING_MODES}.")

    pools = node.operation in ("max_pool", "average_pool", "adaptive_max", "adaptive_average")
    if pools and node.options[0] * node.options[1] > LARGEST_WINDOW:
        raise InputError(f"'{node.name}' pools {node.options[:2]}; {LARGEST_WINDOW} pixels are the most there can be.")


def _check_concatenation(node: Node, by_name: Mapping[str, Node]) -> None:
    """Behind each operand there must be bounded ReLUs: the input's own scale cannot be moved."""
    if "input" in _sources(node, by_name):
        raise InputError(f"'{node.name}' concatenates the input's own codes; put a bounded ReLU between.")
