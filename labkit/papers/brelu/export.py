"""The integer network as an ONNX file for other engines: QLinearConv with the network's own scales.

ONNX requantises by a float factor and rounds halves to even, so an engine may differ by one code where the exact value
lies near a half; nothing else differs. Networks without additions only: QLinearConv cannot add int32 sums.
"""

from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import InputError
from labkit.papers.brelu.integer import IntegerNetwork
from labkit.papers.brelu.network import Node


def export_onnx(network: IntegerNetwork, path: str | Path) -> None:
    """Write `network` as ONNX: input "pixels" (uint8, n x 1 x h x w), output "residual" (uint8, grey levels + 128).

    The residual is limited to -128..127 grey levels. A Clip after each QLinearConv keeps codes at `levels`: uint8 ends
    at 255 and would let 7-bit activations run on.

    Raises:
        InputError: the network adds or pools, gives scores, or the package onnx is missing.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write the ONNX file into.")
    path.write_bytes(to_onnx(network).SerializeToString())


def to_onnx(network: IntegerNetwork) -> Any:
    """The same as an ONNX model in memory."""
    try:
        from onnx import TensorProto, helper
    except ImportError:
        raise InputError("exporting needs the package onnx: pip install 'labkit[peers]'.") from None
    _check(network)
    graph = _Graph(network)
    for node in network.nodes:
        graph.add(node)
    shape: list[str | int] = ["n", 1, "h", "w"]
    made = helper.make_graph(
        graph.nodes,
        "brelu",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("residual", TensorProto.UINT8, shape)],
        graph.constants,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _check(network: IntegerNetwork) -> None:
    for node in network.nodes:
        if node.operation not in ("layer", "bounded_relu", "concat"):
            raise InputError(
                f"'{node.name}' is a {node.operation}: QLinearConv cannot express it on int32 sums. VDSR and VRCNN can "
                "be exported; run residual networks with IntegerNetwork."
            )
    if network.scales.output is None:
        raise InputError("this network gives scores; give snap(..., output_units=255) to a network of grey levels.")


class _Graph:
    """Collects ONNX nodes and constants. Each value knows its tensor, its scale 1 / r and its zero-point."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.relu_of = {n.inputs[0]: n.name for n in network.nodes if n.operation == "bounded_relu"}
        self.values = {"input": ("pixels", 1 / network.scales.input_ratio, 128)}
        self.top = self.constant("levels", np.uint8(network.scales.levels))
        self.bottom = self.constant("nothing", np.uint8(0))

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, node: Node) -> None:
        from onnx import helper

        if node.operation == "layer":
            self._layer(node)
        elif node.operation == "concat":
            tensors = [self.values[name][0] for name in node.inputs]
            self.nodes.append(helper.make_node("Concat", tensors, [node.name], axis=1))
            self.values[node.name] = (node.name, *self.values[node.inputs[0]][1:])

    def _layer(self, node: Node) -> None:
        from onnx import helper

        name, scales = node.name, self.network.scales
        source, scale_in, zero_in = self.values[node.inputs[0]]
        relu = self.relu_of.get(name)
        scale_out, zero_out = (1 / scales.codes[relu], 0) if relu else (1 / scales.input_ratio, 128)
        inputs = [
            source,
            self.constant(f"{name}_in", np.float32(scale_in)),
            self.constant(f"{name}_in_zero", np.uint8(zero_in)),
            self.constant(f"{name}_w", getattr(self.network, f"{name}_weight").cpu().numpy()),
            self.constant(f"{name}_step", np.float32(1 / (scales.sums[name] * scale_in))),
            self.constant(f"{name}_w_zero", np.int8(0)),
            self.constant(f"{name}_out", np.float32(scale_out)),
            self.constant(f"{name}_out_zero", np.uint8(zero_out)),
            self.constant(f"{name}_b", getattr(self.network, f"{name}_bias").cpu().numpy()),
        ]
        stride, padding = self.network.strides[name]
        result = "residual" if not relu else f"{name}_codes"
        self.nodes.append(helper.make_node("QLinearConv", inputs, [result], pads=[padding] * 4, strides=[stride] * 2))
        if relu:
            self.nodes.append(helper.make_node("Clip", [result, self.bottom, self.top], [relu]))
            self.values[relu] = (relu, scale_out, 0)
