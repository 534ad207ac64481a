"""The integer network as an ONNX file for other engines, in one of two forms.

"qlinear": QLinearConv with the network's own scales: the form that engines have fast kernels for. ONNX requantises by a
float factor and rounds halves to even, so an engine may differ by one code where the exact value lies near a half.
It cannot add int32 sums, so it serves networks without additions (VDSR, VRCNN).

"exact": ConvInteger, and everything behind it spelled out in integers: the same bits as `IntegerNetwork` in every
engine that keeps to the standard, residual networks included. Engines seldom have fast kernels for it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.brelu.method.integer import IntegerNetwork
from labkit.papers.brelu.method.network import Node

FORMS = ("auto", "qlinear", "exact")


def export_onnx(network: IntegerNetwork, path: str | Path, form: str = "auto") -> None:
    """Write `network` as ONNX. Input "pixels": uint8, n x c x h x w.

    Output of "qlinear": "residual", uint8, grey levels + 128, limited to -128..127 of them; a Clip after each
    QLinearConv keeps codes at `levels` (uint8 ends at 255 and would let 7-bit activations run on).
    Output of "exact": "residual" in grey levels, or "scores" as sums, int32 as `IntegerNetwork` gives them.

    Args:
        form: "auto" takes "qlinear" where it can express the network, else "exact".

    Raises:
        InputError: "qlinear" for a network with additions, pooling or scores; or the package onnx is missing.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write the ONNX file into.")
    path.write_bytes(to_onnx(network, form).SerializeToString())


def to_onnx(network: IntegerNetwork, form: str = "auto") -> Any:
    """The same as an ONNX model in memory."""
    try:
        from onnx import TensorProto, helper
    except ImportError:
        raise InputError("exporting needs the package onnx: pip install 'labkit[peers]'.") from None
    if form not in FORMS:
        raise InputError(f"there is no ONNX form '{form}'; there are {', '.join(FORMS)}.")
    reason = _not_qlinear(network)
    if form == "qlinear" and reason:
        raise InputError(reason)
    exact = form == "exact" or bool(reason)
    graph = _ExactGraph(network) if exact else _QLinearGraph(network)
    for node in network.nodes:
        graph.add(node)
    channels = getattr(network, f"{network.nodes[0].name}_weight").shape[1]
    onnx_graph = helper.make_graph(
        graph.nodes,
        "brelu",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", channels, "h", "w"])],
        [helper.make_tensor_value_info(graph.finish(), TensorProto.INT32 if exact else TensorProto.UINT8, None)],
        graph.constants,
    )
    return helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_runtime(network: IntegerNetwork, form: str = "auto") -> Callable[[UInt8[Tensor, "n c h w"]], Tensor] | None:
    """The exported network as a function of pixels, computed by ONNX Runtime on one thread; None if not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = to_onnx(network, form).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


def _not_qlinear(network: IntegerNetwork) -> str:
    """Why QLinearConv cannot express this network; empty where it can."""
    for node in network.nodes:
        if node.operation not in ("layer", "bounded_relu", "concat"):
            return (
                f"'{node.name}' is a {node.operation}: QLinearConv cannot express it on int32 sums. "
                'Export residual networks with form="exact".'
            )
    if network.scales.output is None:
        return 'this network gives scores, which are int32 sums. Export it with form="exact".'
    return ""


class _Graph:
    """Collects ONNX nodes and constants."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def apply(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output


class _QLinearGraph(_Graph):
    """Each value knows its tensor, its scale 1 / r and its zero-point."""

    def __init__(self, network: IntegerNetwork) -> None:
        super().__init__(network)
        self.relu_of = {n.inputs[0]: n.name for n in network.nodes if n.operation == "bounded_relu"}
        self.values = {"input": ("pixels", 1 / network.scales.input_ratio, 128)}
        self.top = self.constant("levels", np.uint8(network.scales.levels))
        self.bottom = self.constant("nothing", np.uint8(0))

    def add(self, node: Node) -> None:
        if node.operation == "layer":
            self._layer(node)
        elif node.operation == "concat":
            tensors = [self.values[name][0] for name in node.inputs]
            self.values[node.name] = (
                self.apply("Concat", tensors, node.name, axis=1),
                *self.values[node.inputs[0]][1:],
            )

    def finish(self) -> str:
        """Name of the output."""
        return "residual"

    def _layer(self, node: Node) -> None:
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
        result = f"{name}_codes" if relu else self.finish()
        self.apply("QLinearConv", inputs, result, pads=[padding] * 4, strides=[stride] * 2)
        if relu:
            self.values[relu] = (self.apply("Clip", [result, self.bottom, self.top], relu), scale_out, 0)


class _ExactGraph(_Graph):
    """Codes as uint8 and sums as int32, operation by operation as in `IntegerNetwork`.

    ONNX shifts unsigned numbers only, and divides towards zero: a shift is a division of something not negative.
    """

    def __init__(self, network: IntegerNetwork) -> None:
        super().__init__(network)
        self.codes = {"input": "pixels"}
        self.sums: dict[str, str] = {}
        self.zero_points = {"pixels": self.constant("pixels_zero", np.uint8(128))}
        self.no_shift = self.constant("codes_zero", np.uint8(0))

    def add(self, node: Node) -> None:
        match node.operation:
            case "layer":
                self._layer(node)
            case "add":
                operands = [self.sums[node.inputs[0]], self._shortcut(node)]
                self.sums[node.name] = self.apply("Add", operands, f"{node.name}_sums")
            case "bounded_relu":
                self._bounded_relu(node)
            case "concat":
                self.codes[node.name] = self.apply("Concat", [self.codes[n] for n in node.inputs], node.name, axis=1)
            case "max_pool" | "pad_channels":
                change = self._max_pool if node.operation == "max_pool" else self._pad_channels
                for kind, values in (("codes", self.codes), ("sums", self.sums)):
                    if node.inputs[0] in values:
                        values[node.name] = change(values[node.inputs[0]], f"{node.name}_{kind}", node.options)
            case "global_average":
                self._sum(node)

    def finish(self) -> str:
        """The residual in grey levels, or the scores: what `IntegerNetwork.forward` does to its last sums."""
        last, scales = self.sums[self.network.nodes[-1].name], self.network.scales
        if scales.output is None:
            return self.apply("Identity", [last], "scores")
        mul, shift = scales.output
        limit = (256 << shift) // mul
        return self._scaled(self._clip(last, "output", -limit, limit), "residual", mul, shift)

    def _layer(self, node: Node) -> None:
        name, source = node.name, self.codes[node.inputs[0]]
        stride, padding = self.network.strides[name]
        inputs = [
            source,
            self.constant(f"{name}_w", getattr(self.network, f"{name}_weight").cpu().numpy()),
            self.zero_points.get(source, self.no_shift),
        ]
        products = self.apply("ConvInteger", inputs, f"{name}_products", pads=[padding] * 4, strides=[stride] * 2)
        bias = getattr(self.network, f"{name}_bias").cpu().numpy().reshape(1, -1, 1, 1)
        self.sums[name] = self.apply("Add", [products, self.constant(f"{name}_b", bias)], f"{name}_sums")

    def _bounded_relu(self, node: Node) -> None:
        name, requantizer = node.name, self.network.scales.requantizers.get(node.name)
        u = self.sums[node.inputs[0]]
        if requantizer is None:
            self.sums[name] = self._clip(u, name, 0, (1 << 31) - 1)
            return
        self.sums[name] = self._clip(u, name, 0, requantizer.u_max)
        small = self._scaled(self.sums[name], f"{name}_small", requantizer.mul, requantizer.shift)
        self.codes[name] = self.apply("Cast", [small], f"{name}_codes", to=_uint8())

    def _shortcut(self, node: Node) -> str:
        """As `IntegerNetwork._shortcut`, with the clip that keeps products in int32."""
        mul, shift = self.network.scales.shortcuts[node.name]
        half = (1 << shift) // 2
        limit = min(((1 << 31) - 1 - half) // mul, (1 << 30 << shift) // mul)
        clipped = self._clip(self.sums[node.inputs[1]], f"{node.name}_shortcut", -limit, limit)
        return self._scaled(clipped, f"{node.name}_scaled", mul, shift)

    def _clip(self, u: str, name: str, low: int, high: int) -> str:
        bounds = [self.constant(f"{name}_low", np.int32(low)), self.constant(f"{name}_high", np.int32(high))]
        return self.apply("Clip", [u, *bounds], f"{name}_clipped")

    def _scaled(self, u: str, name: str, mul: int, shift: int) -> str:
        """(u mul + 2^(shift-1)) >> shift in int64: lifted by 2^32 whole units first, so that nothing is negative."""
        from onnx import TensorProto

        lift = 1 << 32
        long = self.apply("Cast", [u], f"{name}_long", to=TensorProto.INT64)
        product = self.apply("Mul", [long, self.constant(f"{name}_mul", np.int64(mul))], f"{name}_product")
        raised = (1 << shift) // 2 + (lift << shift)
        offset = self.constant(f"{name}_offset", np.int64(raised))
        lifted = self.apply("Add", [product, offset], f"{name}_lifted")
        divided = self.apply("Div", [lifted, self.constant(f"{name}_unit", np.int64(1 << shift))], f"{name}_units")
        lowered = self.apply("Sub", [divided, self.constant(f"{name}_lift", np.int64(lift))], f"{name}_lowered")
        return self.apply("Cast", [lowered], name, to=TensorProto.INT32)

    def _max_pool(self, x: str, name: str, options: tuple[int, ...]) -> str:
        """ONNX pools no int32; float64 holds each of them exactly. The kind of the value is put back behind it."""
        from onnx import TensorProto

        kernel, stride, padding = options
        wide = self.apply("Cast", [x], f"{name}_wide", to=TensorProto.DOUBLE)
        pooled = self.apply(
            "MaxPool", [wide], f"{name}_pooled", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4
        )
        return self.apply("Cast", [pooled], name, to=_uint8() if name.endswith("codes") else TensorProto.INT32)

    def _pad_channels(self, x: str, name: str, options: tuple[int, ...]) -> str:
        stride, before, after = options
        ends = [np.iinfo(np.int64).max] * 2
        inputs = [
            x,
            self.constant(f"{name}_starts", np.array([0, 0], dtype=np.int64)),
            self.constant(f"{name}_ends", np.array(ends, dtype=np.int64)),
            self.constant(f"{name}_axes", np.array([2, 3], dtype=np.int64)),
            self.constant(f"{name}_steps", np.array([stride, stride], dtype=np.int64)),
        ]
        taken = self.apply("Slice", inputs, f"{name}_taken")
        pads = self.constant(f"{name}_pads", np.array([0, before, 0, 0, 0, after, 0, 0], dtype=np.int64))
        return self.apply("Pad", [taken, pads], name)

    def _sum(self, node: Node) -> None:
        """Average pooling is a sum whose ratio knows the number of pixels; clipped so that it stays in int32."""
        limit = ((1 << 31) - 1) // self.network.scales.areas[node.name]
        clipped = self._clip(self.sums[node.inputs[0]], node.name, -(1 << 31), limit)
        axes = self.constant(f"{node.name}_axes", np.array([2, 3], dtype=np.int64))
        self.sums[node.name] = self.apply("ReduceSum", [clipped, axes], f"{node.name}_sums", keepdims=1)


def _uint8() -> int:
    from onnx import TensorProto

    return int(TensorProto.UINT8)
