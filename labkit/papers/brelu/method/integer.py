"""The network in integers only: int8 in, int32 sums, multiply and shift, int8 out; no float from input to output."""

import dataclasses
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int8, Int32
from torch import Tensor, nn

from labkit import tensor_files
from labkit.errors import InputError
from labkit.kernels.int8_conv import Conv, Output, Requantizer, int8_conv2d, int8_conv2d_reference, requantize
from labkit.papers.brelu.method import export, shapes
from labkit.papers.brelu.method.deployed import Deployed, operand_limit, to_deployed, zeros
from labkit.papers.brelu.method.graph import KEEPS_FORMS, Node, fused_layers, read_forms, readers
from labkit.papers.brelu.method.network import Network
from labkit.papers.brelu.method.snap import LIFT, Scales

Value = tuple[Tensor | None, Tensor | None]  # codes (int8) and sums (int32)
NOT_YET: Value = (None, None)


class IntegerNetwork(nn.Module):
    """A network of integers, called like the network it was made from. Make one with `convert`, or `load` a file.

    Weights are int8, biases int32. On a CPU ONNX Runtime computes it where that is installed, quicker and bit for bit
    the same; `engine="torch"` keeps to PyTorch, and `engine="reference"` to plain int64 convolutions.
    """

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.nodes, self.scales, self._plan = deployed.nodes, deployed.scales, deployed
        for name, tensor in deployed.tensors.items():
            self.register_buffer(name, tensor)
        self.engine = "auto"
        self._last_use = {name: index for index, node in enumerate(self.nodes) for name in node.inputs}
        self._read = read_forms(self.nodes)
        self._endings = _endings(self.nodes)
        self._zero = zeros(self.nodes, deployed.scales)
        self.register_load_state_dict_post_hook(_forget_session)

    @property
    def deployed(self) -> Deployed:
        """The network as data, with its tensors where they are now."""
        weights, biases = ({name: getattr(self, f"{name}_{kind}") for name in self._plan.weights}
                           for kind in ("weight", "bias"))  # fmt: skip
        return dataclasses.replace(self._plan, weights=weights, biases=biases)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n ..."]:
        """Like the float network: scores, or pictures. The input is rounded to its 256 codes, the rest is integers."""
        if not x.is_floating_point():
            raise InputError(f"the network takes what the float network took; got {x.dtype}. Codes: forward_integer.")
        return (self.forward_integer(self.to_codes(x)).double() / self.output_ratio).to(torch.float32)

    def to_codes(self, x: Float[Tensor, "*shape"]) -> Int8[Tensor, "*shape"]:
        """The input's codes, as `forward_integer` takes them; values that calibration never saw are limited."""
        return self.scales.input.codes(x)

    @property
    def output_ratio(self) -> float:
        """The integers that `forward_integer` gives are this many times the real numbers."""
        return self._plan.output_ratio

    @torch.no_grad()
    def forward_integer(self, v: Int8[Tensor, "n c h w"]) -> Int32[Tensor, "n ..."]:
        """From input codes to the output's integers, by integers alone.

        Raises:
            InputError: not int8.
        """
        if v.dtype != torch.int8:
            raise InputError(f"an integer network takes int8 codes; got {v.dtype}. Use to_codes(x).")
        if self.engine == "auto" and not v.is_cuda and (session := self._session()) is not None:
            return session(v)
        values: dict[str, Value] = {"input": (v, None)}
        for index, node in enumerate(self.nodes):
            if node.name not in values:
                values.update(self._compute(node, values))
            for name in node.inputs:
                if self._last_use[name] == index:
                    values[name] = NOT_YET  # its memory is free from here on
        last = self.nodes[-1].name
        codes, sums = values[last]
        y = codes.to(torch.int32) - self._zero.get(last, 0) if sums is None else sums  # type: ignore[union-attr]
        return y.flatten(1) if self._plan.flat else y

    def _compute(self, node: Node, values: dict[str, Value]) -> dict[str, Value]:
        first = node.inputs[0]
        if node.operation in KEEPS_FORMS:
            codes, sums = values[first]
            zero = self._zero.get(first, 0)
            return {node.name: (None if codes is None else shapes.apply(node, codes, zero),
                                None if sums is None else shapes.apply(node, sums))}  # fmt: skip
        match node.operation:
            case "layer":
                return self._layer(node, values)
            case "average_pool" | "adaptive_average":
                return {node.name: (None, shapes.integer_average(node, self._sums(first, values)))}
            case "bounded_relu":
                return {node.name: self._bounded(node.name, self._sums(first, values))}
            case "add":
                one, other = (self._operand(node, i, values) for i in (0, 1))
                return {node.name: (None, one + other)}
            case "concat":
                return {node.name: (torch.cat([_codes(values[name]) for name in node.inputs], 1), None)}
        raise AssertionError(node.operation)

    def _sums(self, name: str, values: dict[str, Value]) -> Tensor:
        """int32; codes that nobody requantised are shifted up, so that a mean of them keeps its fraction."""
        codes, sums = values[name]
        if sums is not None:
            return sums
        assert codes is not None
        return (codes.to(torch.int32) - self._zero.get(name, 0)) << LIFT

    def _operand(self, add: Node, i: int, values: dict[str, Value]) -> Int32[Tensor, "n o h w"]:
        """(u mul + 2^(shift-1)) >> shift, after a clip that keeps product and sum in int32."""
        mul, shift = self.scales.factors[add.name][i]
        half = (1 << shift) // 2
        limit = operand_limit(mul, shift)
        return (self._sums(add.inputs[i], values).clamp(-limit, limit) * mul + half) >> shift

    def _bounded(self, name: str, u: Tensor) -> Value:
        requantizer = self.scales.requantizers.get(name)
        if requantizer is None:
            return None, u.clamp(min=0)
        return requantize(u, requantizer), u.clamp(requantizer.u_min, requantizer.u_max)

    def _layer(self, node: Node, values: dict[str, Value]) -> dict[str, Value]:
        """A convolution with the addition, clip and shift behind it, in one call where nothing stands between."""
        add, relu = self._endings[node.name]
        shortcut = self._operand(add, 1, values) if add else None
        requantizer = self.scales.requantizers.get(relu.name) if relu else None
        keep = relu is not None and "sums" in self._read[relu.name]
        out = self._convolution(node, values, shortcut, requantizer, keep)
        done: dict[str, Value] = {}
        if requantizer is None:
            done = {one.name: (None, out.sums) for one in (node, add) if one}
            if relu and out.sums is not None:
                done[relu.name] = (None, out.sums.clamp(min=0))
        else:
            done = {one.name: NOT_YET for one in (node, add) if one}
            if relu:
                done[relu.name] = (out.codes, out.sums)
        return done

    def _convolution(
        self, node: Node, values: dict[str, Value], shortcut: Tensor | None, requantizer: Requantizer | None, keep: bool
    ) -> Output:
        name, source = node.name, node.inputs[0]
        v, geometry = _codes(values[source]), self._plan.geometry[name]
        weight, bias, zero = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), self._zero.get(source, 0)
        if zero:  # padding must mean 0; and sum w (v - zero) = sum w v - zero sum w
            py, px = geometry.padding
            v = nn.functional.pad(v, (px, px, py, py), value=zero)
            geometry = geometry._replace(padding=(0, 0))
            bias = bias - zero * weight.sum((1, 2, 3), dtype=torch.int32)
        if self.engine == "reference":
            conv = Conv(geometry, requantizer, keep or requantizer is None)
            return int8_conv2d_reference(v, weight, bias, shortcut, conv)
        return int8_conv2d(v, weight, bias, geometry, shortcut=shortcut, requantizer=requantizer, keep_sums=keep)

    # -- ONNX ---------------------------------------------------------------------------------------------------------

    def export_onnx(self, path: str | Path, integers_only: bool = False) -> None:
        """Write an ONNX file that gives the same bits; see `export.to_onnx`."""
        export.export_onnx(self.deployed, Path(path), integers_only)

    def _session(self) -> Callable[[Tensor], Tensor] | None:
        """ONNX Runtime as the executor: where it is installed, exact on this processor, and quicker."""
        if self not in _SESSIONS:
            suits = export.is_fast(self._plan) and export.runtime_is_exact()
            _SESSIONS[self] = export.runtime(self.deployed) if suits else None
        return _SESSIONS[self]

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> int:
        """Write weights in one byte each, biases in four, and the scales. Returns the size of the file in bytes."""
        return self.deployed.write(Path(path))

    @property
    def stored_bytes(self) -> int:
        """Size of the file that `save` writes."""
        return len(tensor_files.to_bytes(self.deployed.tensors, self.deployed.header))

    @classmethod
    def load(cls, path: str | Path) -> "IntegerNetwork":
        """Read what `save` wrote.

        Raises:
            InputError: no such file, damaged, or not an integer network.
        """
        return cls(Deployed.read(Path(path)))

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and biases in memory."""
        return sum(buffer.nbytes for buffer in self.buffers())


_SESSIONS: weakref.WeakKeyDictionary[IntegerNetwork, Callable[[Tensor], Tensor] | None] = weakref.WeakKeyDictionary()


def _forget_session(network: nn.Module, _: object) -> None:
    """Other weights were loaded: the session has the old ones."""
    _SESSIONS.pop(network, None)  # type: ignore[call-overload]


def to_integer(network: Network, scales: Scales) -> IntegerNetwork:
    """The integer network of a network whose bounds and steps `snap` has moved.

    Raises:
        InputError: a bias, or a sum that a layer could reach, does not fit int32.
    """
    return IntegerNetwork(to_deployed(network, scales))


def _codes(value: Value) -> Tensor:
    codes = value[0]
    assert codes is not None
    return codes


def _endings(nodes: tuple[Node, ...]) -> dict[str, tuple[Node | None, Node | None]]:
    """By the name of a layer: the addition and the bounded ReLU that are computed together with it, if any."""
    read_by, fused, by_name = readers(nodes), fused_layers(nodes), {node.name: node for node in nodes}
    adds = {layer: by_name[add] for add, layer in fused.items()}
    endings: dict[str, tuple[Node | None, Node | None]] = {}
    for node in nodes:
        if node.operation == "layer":
            add = adds.get(node.name)
            following = read_by[add.name if add else node.name]
            alone = len(following) == 1 and following[0].operation == "bounded_relu"
            endings[node.name] = (add, following[0] if alone else None)
    return endings
