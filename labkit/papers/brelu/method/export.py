"""The integer network as an ONNX file for other engines: the same bits as `IntegerNetwork`.

A convolution with its bounded ReLU is one QLinearConv where that is exact, the form that engines have fast kernels for:
ONNX requantises by a float32 factor and rounds halves to even, and `float_factor` finds the factor with which every sum
gets the same code. Sums that stay sums (before additions, averages and the output) come from a float32 convolution of
whole numbers, exact as long as none passes 2^24, else from ConvInteger; what follows them is spelled out in integers.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int8, Int32
from torch import Tensor

from labkit.errors import InputError
from labkit.files import write_atomically
from labkit.kernels.int8_conv import Requantizer
from labkit.papers.brelu.method.deployed import Deployed, operand_limit
from labkit.papers.brelu.method.graph import KEEPS_FORMS, PADDING_MODES, Node, fused_layers, read_forms, readers
from labkit.papers.brelu.method.multiply_shift import float_factor
from labkit.papers.brelu.method.snap import LIFT

OPSET, IR = 19, 9
EXACT = 1 << 24  # whole numbers up to here are float32 numbers


def export_onnx(network: Deployed, path: Path, integers_only: bool = False) -> None:
    """Write `network` as ONNX; see `to_onnx`.

    Raises:
        InputError: an operation without an ONNX form here, no such folder, or the package onnx is missing.
    """
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write the ONNX file into.")
    write_atomically(path, to_onnx(network, integers_only).SerializeToString())


def to_onnx(network: Deployed, integers_only: bool = False) -> Any:
    """The network as an ONNX model in memory.

    It takes and gives what the float network does: "input", float32 (n, c, h, w), to "output", float32.
    integers_only: "codes", uint8, the input's codes + 128 (the pixels, where code 0 is pixel 128), to "output", int32:
    what `IntegerNetwork.forward_integer` gives.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError:
        raise InputError("exporting needs the package onnx: pip install 'labkit[peers]'.") from None
    graph = _Graph(network)
    graph.start(integers_only)
    for node in network.nodes:
        graph.add(node)
    graph.finish(integers_only)
    shape = ["n", network.channels or "c", "h", "w"]
    given = ("codes", TensorProto.UINT8) if integers_only else ("input", TensorProto.FLOAT)
    wanted = TensorProto.INT32 if integers_only else TensorProto.FLOAT
    onnx_graph = helper.make_graph(
        graph.nodes,
        "brelu",
        [helper.make_tensor_value_info(*given, shape)],
        [helper.make_tensor_value_info("output", wanted, None)],
        graph.constants,
    )
    return helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


# -- ONNX Runtime as the executor -------------------------------------------------------------------------------------


def is_fast(network: Deployed) -> bool:
    """Is every convolution but the output's a QLinearConv? Then ONNX Runtime is quicker than PyTorch."""
    graph = _Graph(network)
    if not graph.exports():
        return False
    layers = [node for node in network.nodes if node.operation == "layer"]
    return all(node is network.nodes[-1] or graph.factor(node) is not None for node in layers)


def runtime(network: Deployed, integers_only: bool = True) -> Callable[[Tensor], Tensor] | None:
    """The exported network as a function of int8 codes (or of the float input), with as many threads as PyTorch has.

    None where ONNX Runtime or the package onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    content = to_onnx(network, integers_only).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def on_codes(v: Int8[Tensor, "n c h w"]) -> Int32[Tensor, "n ..."]:
        pixels = (v.contiguous().view(torch.uint8) ^ 128).numpy()
        return torch.from_numpy(session.run(None, {"codes": pixels})[0])

    return on_codes if integers_only else lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


@functools.cache
def runtime_is_exact() -> bool:
    """Does ONNX Runtime add products of bytes exactly on this processor? Tried once, on the largest operands.

    Without VNNI it may add pairs of products in 16 bits, which saturate.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        from onnx import helper
    except ImportError:
        return False
    rows = np.where(np.arange(64) % 2 == 0, 127, -128).astype(np.int8)
    weight = np.broadcast_to(rows[:, None, None, None], (64, 64, 3, 3)).copy()
    pixels = np.full((1, 64, 9, 9), 255, dtype=np.uint8)
    pixels[:, :, ::2] = 1
    graph = _Graph(None)
    inputs = ["x", *graph.quantization("x", 1.0, 0), graph.constant("w", weight)]
    inputs += [*graph.quantization("w", 2.0**-16, 0, np.int8), *graph.quantization("y", 1.0, 128)]
    graph.apply("QLinearConv", [*inputs, graph.constant("b", np.zeros(64, np.int32))], "y", pads=[1] * 4)
    info = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph([*graph.nodes], "g", [info("x", 2, None)], [info("y", 2, None)], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    sums = torch.nn.functional.conv2d(torch.from_numpy(pixels).double(), torch.from_numpy(weight).double(), padding=1)
    wanted = (torch.round(sums * 2.0**-16) + 128).clamp(0, 255)
    return bool(torch.equal(torch.from_numpy(session.run(None, {"x": pixels})[0]).double(), wanted))


# -- the graph --------------------------------------------------------------------------------------------------------


class _Graph:
    """ONNX nodes and constants; where each value stands, as uint8 codes with their zero-point and as int32 sums."""

    def __init__(self, network: Deployed | None) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.codes: dict[str, tuple[str, int]] = {}
        self.sums: dict[str, str] = {}
        if network is not None:
            self.network = network
            self.read_by, self.read = readers(network.nodes), read_forms(network.nodes)
            self.fused = set(fused_layers(network.nodes).values())

    def exports(self) -> bool:
        return not any(_refusal(node) for node in self.network.nodes)

    def start(self, integers_only: bool) -> None:
        """The input as uint8: its codes + 128."""
        scale = self.network.scales.input
        zero = 128 + scale.zero
        if integers_only:
            self.codes["input"] = ("codes", zero)
            return
        ratio = self.constant("input_ratio", np.float32(scale.ratio))
        scaled = self.apply("Round", [self.apply("Mul", ["input", ratio], "input_scaled")], "input_rounded")
        moved = self.apply("Add", [scaled, self.constant("input_zero", np.float32(zero))], "input_moved")
        ends = [self.constant("input_low", np.float32(0)), self.constant("input_high", np.float32(255))]
        limited = self.apply("Clip", [moved, *ends], "input_limited")
        self.codes["input"] = (self.cast(limited, "codes", "UINT8"), zero)

    def finish(self, integers_only: bool) -> None:
        """The last sums, or codes that nothing follows; divided by their ratio."""
        last = self.network.nodes[-1].name
        value = self.sums[last] if last in self.sums else self.without_zero(last)
        if self.network.flat:
            value = self.apply("Flatten", [value], "flattened", axis=1)
        if integers_only:
            self.apply("Identity", [value], "output")
            return
        ratio = self.constant("output_ratio", np.float64(self.network.output_ratio))
        self.cast(self.apply("Div", [self.cast(value, "wide", "DOUBLE"), ratio], "real"), "output", "FLOAT")

    def add(self, node: Node) -> None:
        if refusal := _refusal(node):
            raise InputError(refusal)
        match node.operation:
            case "layer":
                self.layer(node)
            case "bounded_relu":
                self.bounded_relu(node)
            case "add":
                operands = [self.operand(node, i) for i in (0, 1)]
                self.sums[node.name] = self.apply("Add", operands, f"{node.name}_sums")
            case "concat":
                self.concat(node)
            case "average_pool" | "adaptive_average":
                self.sums[node.name] = self.average(node)
            case _:
                assert node.operation in KEEPS_FORMS
                source = node.inputs[0]
                if source in self.codes:
                    tensor, zero = self.codes[source]
                    self.codes[node.name] = (self.moved(node, tensor, f"{node.name}_codes", "UINT8", zero), zero)
                if source in self.sums:
                    self.sums[node.name] = self.moved(node, self.sums[source], f"{node.name}_sums", "INT32", 0)

    # -- convolutions and what ends them

    def factor(self, layer: Node) -> float | None:
        """With which QLinearConv computes this layer and its bounded ReLU exactly; None where it cannot."""
        following = self.read_by[layer.name]
        if len(following) != 1 or following[0].operation != "bounded_relu" or layer.name in self.fused:
            return None
        relu = following[0].name
        if "sums" in self.read[relu] or relu not in self.network.scales.requantizers:
            return None
        return float_factor(self.network.scales.requantizers[relu], self.network.scales.levels)

    def layer(self, node: Node) -> None:
        name = node.name
        weight, bias = (part[name].cpu().numpy() for part in (self.network.weights, self.network.biases))
        (strides, (py, px), dilations, groups) = self.network.geometry[name]
        where = {"strides": strides, "pads": [py, px, py, px], "dilations": dilations, "group": groups}
        codes, zero = self.codes[node.inputs[0]]
        factor = self.factor(node)
        if factor is not None:
            relu = self.read_by[name][0].name
            requantizer = self.network.scales.requantizers[relu]
            out = 128 if requantizer.u_min else 0
            inputs = [codes, *self.quantization(f"{name}_in", 1.0, zero), self.constant(f"{name}_w", weight)]
            inputs += [*self.quantization(f"{name}_w", factor, 0, np.int8), *self.quantization(f"{name}_out", 1.0, out)]
            rounded = self.apply("QLinearConv", [*inputs, self.constant(f"{name}_b", bias)], f"{name}_codes", **where)
            self.codes[relu] = (self.clip(rounded, relu, *_ends(requantizer, out), np.uint8), out)
            return
        largest = int((np.abs(weight.astype(np.int64)).sum((1, 2, 3)) * 255).max())
        if largest < EXACT:
            centred = self.cast(codes, f"{name}_real", "FLOAT")
            if zero:
                centred = self.apply("Sub", [centred, self.constant(f"{name}_zero", np.float32(zero))], f"{name}_moved")
            inputs = [centred, self.constant(f"{name}_w", weight.astype(np.float32))]
            products = self.cast(self.apply("Conv", inputs, f"{name}_exact", **where), f"{name}_products", "INT32")
        else:
            inputs = [codes, self.constant(f"{name}_w", weight), self.constant(f"{name}_zero", np.uint8(zero))]
            products = self.apply("ConvInteger", inputs, f"{name}_products", **where)
        added = self.constant(f"{name}_b", bias.reshape(1, -1, 1, 1))
        self.sums[name] = self.apply("Add", [products, added], f"{name}_sums")

    def bounded_relu(self, node: Node) -> None:
        name, requantizer = node.name, self.network.scales.requantizers.get(node.name)
        if name in self.codes:
            return  # computed with its layer
        u = self.sums_of(node.inputs[0])
        if requantizer is None:
            self.sums[name] = self.clip(u, name, 0, (1 << 31) - 1)
            return
        out = 128 if requantizer.u_min else 0
        self.sums[name] = self.clip(u, name, requantizer.u_min, requantizer.u_max)
        small = self.scaled(self.sums[name], f"{name}_small", requantizer.mul, requantizer.shift, out)
        self.codes[name] = (self.cast(small, f"{name}_codes", "UINT8"), out)

    def operand(self, add: Node, i: int) -> str:
        """As `IntegerNetwork._operand`, with the clip that keeps products in int32."""
        mul, shift = self.network.scales.factors[add.name][i]
        u = self.sums_of(add.inputs[i])
        if (mul, shift) == (1, 0) and add.inputs[i] in self.fused:
            return u
        limit = operand_limit(mul, shift)
        clipped = self.clip(u, f"{add.name}_{i}", -limit, limit)
        return clipped if (mul, shift) == (1, 0) else self.scaled(clipped, f"{add.name}_{i}_scaled", mul, shift)

    def scaled(self, u: str, name: str, mul: int, shift: int, plus: int = 0) -> str:
        """(u mul + 2^(shift-1)) >> shift, plus a zero-point, in int64.

        ONNX shifts unsigned numbers only and divides towards zero: lifted by 2^32 whole units, nothing is negative.
        """
        lift = 1 << 32
        factors = [self.cast(u, f"{name}_long", "INT64"), self.constant(f"{name}_mul", np.int64(mul))]
        product = self.apply("Mul", factors, f"{name}_product")
        offset = self.constant(f"{name}_offset", np.int64((1 << shift) // 2 + (lift << shift)))
        lifted = self.apply("Add", [product, offset], f"{name}_lifted")
        divided = self.apply("Div", [lifted, self.constant(f"{name}_unit", np.int64(1 << shift))], f"{name}_units")
        lowered = self.apply("Sub", [divided, self.constant(f"{name}_lift", np.int64(lift - plus))], f"{name}_lowered")
        return self.cast(lowered, name, "INT32")

    # -- forms of a value

    def sums_of(self, name: str) -> str:
        """int32; of codes alone 2^LIFT times what they mean."""
        if name not in self.sums:
            lift = self.constant(f"{name}_lift_factor", np.int32(1 << LIFT))
            self.sums[name] = self.apply("Mul", [self.without_zero(name), lift], f"{name}_as_sums")
        return self.sums[name]

    def without_zero(self, name: str) -> str:
        codes, zero = self.codes[name]
        wide = self.cast(codes, f"{name}_as_int32", "INT32")
        return self.apply("Sub", [wide, self.constant(f"{name}_own_zero", np.int32(zero))], f"{name}_centred")

    def concat(self, node: Node) -> None:
        """Codes with one zero-point."""
        zero = max(self.codes[name][1] for name in node.inputs)
        tensors = []
        for i, name in enumerate(node.inputs):
            codes, own = self.codes[name]
            if own != zero:
                shift = self.constant(f"{node.name}_{i}_shift", np.int32(zero - own))
                wide = self.cast(codes, f"{node.name}_{i}_wide", "INT32")
                moved = self.apply("Add", [wide, shift], f"{node.name}_{i}_moved")
                codes = self.cast(moved, f"{node.name}_{i}", "UINT8")
            tensors.append(codes)
        self.codes[node.name] = (self.apply("Concat", tensors, node.name, axis=1), zero)

    # -- values that are moved, picked or averaged

    def moved(self, node: Node, x: str, name: str, kind: str, zero: int) -> str:
        options = node.options
        match node.operation:
            case "max_pool":
                kernel, strides, (py, px), dilations = (options[i : i + 2] for i in (0, 2, 4, 6))
                where = {"kernel_shape": kernel, "strides": strides, "pads": [py, px, py, px], "dilations": dilations}
                wide = self.cast(x, f"{name}_wide", "DOUBLE")  # ONNX pools no int32; float64 holds each exactly
                return self.cast(
                    self.apply("MaxPool", [wide], f"{name}_pooled", ceil_mode=options[8], **where), name, kind
                )
            case "adaptive_max":
                return self.apply("ReduceMax", [x, self.axes(name, 2, 3)], name, keepdims=1)
            case "upsample":
                scales = self.constant(f"{name}_scales", np.array([1, 1, *options], dtype=np.float32))
                how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
                return self.apply("Resize", [x, "", scales], name, **how)
            case "pixel_shuffle":
                return self.through_float(x, name, kind, "DepthToSpace", blocksize=options[0], mode="CRD")
            case "pad":
                left, right, top, bottom, mode = options
                how = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
                pads = self.constant(f"{name}_pads", np.array([0, 0, top, left, 0, 0, bottom, right], dtype=np.int64))
                return self.apply("Pad", [x, pads, self.zero(name, kind, zero)], name, mode=how[PADDING_MODES[mode]])
            case "pad_channels":
                stride, before, after = options
                pads = self.constant(f"{name}_pads", np.array([0, before, 0, 0, 0, after, 0, 0], dtype=np.int64))
                taken = self.slice(x, f"{name}_taken", (0, 0), (_END, _END), (stride, stride))
                return self.apply("Pad", [taken, pads, self.zero(name, kind, zero)], name)
            case "flatten":
                flat = self.apply("Flatten", [x], f"{name}_flat", axis=1)
                return self.apply("Unsqueeze", [flat, self.axes(name, 2, 3)], name)
        raise AssertionError(node.operation)

    def average(self, node: Node) -> str:
        """floor((sum + count / 2) / count), in int64 and lifted like `scaled`."""
        u, name = self.cast(self.sums_of(node.inputs[0]), f"{node.name}_long", "INT64"), node.name
        if node.operation == "adaptive_average":
            total = self.apply("ReduceSum", [u, self.axes(name, 2, 3)], f"{name}_total", keepdims=1)
            sides = self.slice(self.apply("Shape", [u], f"{name}_shape"), f"{name}_sides", (2,), (4,), (1,), first=0)
            count = self.apply("ReduceProd", [sides], f"{name}_count", keepdims=0)
        else:
            total = self.window_sums(u, f"{name}_total", node.options, 0)
            zero, one = (self.constant(f"{name}_{n}", np.int64(n)) for n in (0, 1))
            ones = self.apply("Add", [self.apply("Mul", [u, zero], f"{name}_nothing"), one], f"{name}_ones")
            count = self.window_sums(ones, f"{name}_count", node.options, node.options[7])
        lift = self.constant(f"{name}_lift", np.int64(1 << 32))
        half = self.apply("Div", [count, self.constant(f"{name}_two", np.int64(2))], f"{name}_half")
        raised = self.apply("Mul", [count, lift], f"{name}_raise")
        lifted = self.apply("Add", [self.apply("Add", [total, half], f"{name}_plus"), raised], f"{name}_lifted")
        mean = self.apply("Sub", [self.apply("Div", [lifted, count], f"{name}_units"), lift], f"{name}_mean")
        return self.cast(mean, f"{name}_sums", "INT32")

    def window_sums(self, x: str, name: str, options: tuple[int, ...], border: int) -> str:
        (ky, kx), (sy, sx), (py, px) = (options[i : i + 2] for i in (0, 2, 4))
        if py or px:
            pads = self.constant(f"{name}_pads", np.array([0, 0, py, px, 0, 0, py, px], dtype=np.int64))
            x = self.apply("Pad", [x, pads, self.constant(f"{name}_border", np.int64(border))], f"{name}_padded")
        total = ""
        for y in range(ky):
            for z in range(kx):
                ends = tuple(_END if left == 0 else -left for left in (ky - 1 - y, kx - 1 - z))
                part = self.slice(x, f"{name}_{y}_{z}", (y, z), ends, (sy, sx))
                total = self.apply("Add", [total, part], f"{name}_to_{y}_{z}") if total else part
        return total

    # -- small things

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def apply(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    def cast(self, x: str, name: str, kind: str) -> str:
        from onnx import TensorProto

        return self.apply("Cast", [x], name, to=getattr(TensorProto, kind))

    def quantization(self, name: str, scale: float, zero: int, kind: type = np.uint8) -> list[str]:
        return [self.constant(f"{name}_scale", np.float32(scale)), self.constant(f"{name}_zero", kind(zero))]

    def clip(self, x: str, name: str, low: int, high: int, kind: type = np.int32) -> str:
        bounds = [self.constant(f"{name}_low", kind(low)), self.constant(f"{name}_high", kind(high))]
        return self.apply("Clip", [x, *bounds], f"{name}_clipped")

    def axes(self, name: str, *axes: int) -> str:
        return self.constant(f"{name}_axes", np.array(axes, dtype=np.int64))

    def zero(self, name: str, kind: str, zero: int) -> str:
        return self.constant(f"{name}_fill", np.uint8(zero) if kind == "UINT8" else np.int32(zero))

    def through_float(self, x: str, name: str, kind: str, operation: str, **attributes: Any) -> str:
        wide = self.cast(x, f"{name}_wide", "DOUBLE")
        return self.cast(self.apply(operation, [wide], f"{name}_done", **attributes), name, kind)

    def slice(self, x: str, name: str, starts: tuple, ends: tuple, steps: tuple, first: int = 2) -> str:
        axes = tuple(range(first, first + len(starts)))
        parts = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        inputs = [self.constant(f"{name}_{part}", np.array(values, dtype=np.int64)) for part, values in parts.items()]
        return self.apply("Slice", [x, *inputs], name)


_END = int(np.iinfo(np.int64).max)


def _ends(requantizer: Requantizer, zero: int) -> tuple[int, int]:
    """The least and the largest code of a bounded ReLU, as uint8."""
    u_max, mul, shift, u_min = requantizer
    return tuple(zero + ((u * mul + (1 << shift) // 2) >> shift) for u in (u_min, u_max))  # type: ignore[return-value]


def _refusal(node: Node) -> str:
    """Why a node has no ONNX form here; empty where it has one."""
    if node.operation in ("adaptive_max", "adaptive_average") and node.options != (1, 1):
        return f"'{node.name}' pools to {node.options}, which ONNX cannot say: pool with a fixed window, or to 1."
    if node.operation == "average_pool" and node.options[6]:
        return f"'{node.name}' averages with ceil_mode, which has no integer form in ONNX: pad the image instead."
    if node.operation == "pixel_unshuffle":
        return f"'{node.name}' is a pixel_unshuffle, which is not exported; its inverse and the other operations are."
    return ""
