"""The network in integers only: int8 in, int32 sums, multiply and shift, int8 out; no float from input to output."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int8, Int32
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.files import write_atomically
from labkit.kernels.int8_conv import Conv, Requantizer, int8_conv2d, int8_conv2d_reference, requantize
from labkit.papers.brelu.method.network import Network, Node, pad_channels
from labkit.papers.brelu.method.snap import Scales
from labkit.papers.brelu.method.weights import layers

FORMAT = "labkit brelu integer network 1"


class Values(dict[str, tuple[Tensor | None, Tensor | None]]):
    """Codes (int8) and sums (int32) of the nodes computed so far."""

    def codes(self, name: str) -> Tensor:
        codes = self[name][0]
        assert codes is not None
        return codes

    def sums(self, name: str) -> Tensor:
        sums = self[name][1]
        assert sums is not None
        return sums


class IntegerNetwork(nn.Module):
    """A network of integers. Make one with `to_integer`, or `IntegerNetwork.load` a file.

    Weights are int8, biases int32. `reference=True` computes everything in plain int64 convolutions: the same bits.
    """

    def __init__(
        self, nodes: tuple[Node, ...], scales: Scales, weights: Mapping[str, Tensor], biases: Mapping[str, Tensor],
        strides: Mapping[str, tuple[int, int]],
    ) -> None:  # fmt: skip
        super().__init__()
        self.nodes, self.scales, self.strides = nodes, scales, dict(strides)
        for name in weights:
            self.register_buffer(f"{name}_weight", weights[name])
            self.register_buffer(f"{name}_bias", biases[name])
        self.reference = False
        self._last_use = {name: index for index, node in enumerate(nodes) for name in node.inputs}
        self._readers = {n.name: [m for m in nodes if n.name in m.inputs] for n in nodes}
        self._fused = {n.name: self._ending(n) for n in nodes if n.operation == "layer"}

    def _ending(self, layer: Node) -> tuple[Node | None, Node | None]:
        """The addition and the bounded ReLU that are computed together with this layer, None where they are not."""
        add = relu = None
        readers = self._readers[layer.name]
        if len(readers) == 1 and readers[0].operation == "add" and readers[0].inputs[0] == layer.name:
            add = readers[0]
            readers = self._readers[add.name]
        if len(readers) == 1 and readers[0].operation == "bounded_relu":
            relu = readers[0]
        return add, relu

    @torch.no_grad()
    def forward(self, v: Int8[Tensor, "n c h w"]) -> Int32[Tensor, "n o h2 w2"]:
        """From input codes (pixel - 128) to the residual in grey levels, or to the scores' sums.

        Raises:
            InputError: not int8.
        """
        if v.dtype != torch.int8:
            raise InputError(f"an integer network takes int8, pixels minus 128; got {v.dtype}. Use to_codes(pixels).")
        values = Values({"input": (v, None)})
        for index, node in enumerate(self.nodes):
            if node.name not in values:
                values.update(self._compute(node, values))
            for name in node.inputs:
                if self._last_use[name] == index:
                    values[name] = (None, None)  # its memory is free from here on
        return self._in_units(values.sums(self.nodes[-1].name))

    def _compute(self, node: Node, values: Values) -> dict[str, tuple[Tensor | None, Tensor | None]]:
        match node.operation:
            case "layer":
                return self._layer(node, values)
            case "max_pool":
                return {node.name: self._each(values[node.inputs[0]], lambda x: max_pool(x, node.options))}
            case "pad_channels":
                return {node.name: self._each(values[node.inputs[0]], lambda x: pad_channels(x, node.options))}
            case "global_average":
                limit = ((1 << 31) - 1) // self.scales.areas[node.name]
                u = values.sums(node.inputs[0])
                if math.prod(u.shape[2:]) != self.scales.areas[node.name]:
                    raise InputError(
                        f"this network was made to leave {self.scales.areas[node.name]} pixels to average, "
                        f"got {math.prod(u.shape[2:])}. Make it anew with snap(..., example=an image of that size)."
                    )
                return {node.name: (None, u.clamp(max=limit).sum((2, 3), keepdim=True, dtype=torch.int32))}
            case "bounded_relu":
                return {node.name: self._bounded(node.name, values.sums(node.inputs[0]))}
            case "concat":
                return {node.name: (torch.cat([values.codes(name) for name in node.inputs], 1), None)}
            case _:
                raise AssertionError(f"{node.operation} is computed with the layer before it")

    def _bounded(self, name: str, u: Tensor) -> tuple[Tensor | None, Tensor]:
        requantizer = self.scales.requantizers.get(name)
        if requantizer is None:
            return None, u.clamp(min=0)
        return requantize(u, requantizer), u.clamp(0, requantizer.u_max)

    def _layer(self, node: Node, values: Values) -> dict[str, tuple[Tensor | None, Tensor | None]]:
        """A convolution with the addition, clip and shift behind it, in one call where nothing stands between."""
        add, relu = self._fused[node.name]
        requantizer = self.scales.requantizers.get(relu.name) if relu else None
        shortcut = self._shortcut(add, values) if add else None
        stride, padding = self.strides[node.name]
        weight, bias = getattr(self, f"{node.name}_weight"), getattr(self, f"{node.name}_bias")
        keep = relu is not None and self._read_as_sums(relu)
        if self.reference:
            out = int8_conv2d_reference(
                values.codes(node.inputs[0]),
                weight,
                bias,
                shortcut,
                Conv(stride, padding, requantizer, keep or requantizer is None),
            )
        else:
            out = int8_conv2d(
                values.codes(node.inputs[0]), weight, bias, stride=stride, padding=padding,
                shortcut=shortcut, requantizer=requantizer, keep_sums=keep,
            )  # fmt: skip
        if requantizer is None:
            sums = out.sums
            assert sums is not None
            done: dict[str, tuple[Tensor | None, Tensor | None]] = {node.name: (None, sums)}
            if add:
                done[add.name] = (None, sums)
            if relu:
                done[relu.name] = (None, sums.clamp(min=0))
            return done
        assert relu is not None
        skipped = {n.name: (None, None) for n in (node, add) if n is not None}
        return {**skipped, relu.name: (out.codes, out.sums)}

    def _read_as_sums(self, relu: Node) -> bool:
        def sums(reader: Node, name: str) -> bool:
            if reader.operation in ("pad_channels", "max_pool"):
                return any(sums(next_one, reader.name) for next_one in self._readers[reader.name])
            return reader.operation in ("add", "global_average") and reader.inputs[-1] == name

        return any(sums(reader, relu.name) for reader in self._readers[relu.name])

    def _shortcut(self, add: Node, values: Values) -> Int32[Tensor, "n o h w"]:
        """(u mul + 2^(shift-1)) >> shift, after a clip that keeps the product in int32."""
        mul, shift = self.scales.shortcuts[add.name]
        half = (1 << shift) // 2
        limit = min(((1 << 31) - 1 - half) // mul, (1 << 30 << shift) // mul)
        return (values.sums(add.inputs[1]).clamp(-limit, limit) * mul + half) >> shift

    def _in_units(self, u: Tensor) -> Int32[Tensor, "n o h w"]:
        """The residual in whole units, -256..256, half rounds up; scores stay as they are."""
        if self.scales.output is None:
            return u
        mul, shift = self.scales.output
        limit = (256 << shift) // mul
        return (u.clamp(-limit, limit) * mul + (1 << shift) // 2) >> shift

    @staticmethod
    def _each(pair: tuple[Tensor | None, Tensor | None], change: Any) -> tuple[Tensor | None, Tensor | None]:
        codes, sums = (None if value is None else change(value) for value in pair)
        return codes, sums

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> int:
        """Write weights in one byte each, biases in four, and the scales. Returns the size of the file in bytes."""
        content = self._as_bytes()
        write_atomically(Path(path), content)
        return len(content)

    def _as_bytes(self) -> bytes:
        from safetensors.torch import save

        requantizers = {name: list(triple) for name, triple in self.scales.requantizers.items()}
        description = {
            "nodes": [dataclasses.asdict(node) for node in self.nodes],
            "scales": dataclasses.asdict(self.scales) | {"requantizers": requantizers},
            "strides": self.strides,
        }
        tensors = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        return save(tensors, {"format": FORMAT, "description": json.dumps(description, separators=(",", ":"))})

    @property
    def stored_bytes(self) -> int:
        """Size of the file that `save` writes."""
        return len(self._as_bytes())

    @classmethod
    def load(cls, path: str | Path) -> "IntegerNetwork":
        """Read what `save` wrote.

        Raises:
            InputError: no such file, cut short, damaged, or not an integer network.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except FileNotFoundError:
            raise InputError(f"there is no file '{path}'.") from None
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"'{path}' is cut short or damaged ({str(error).splitlines()[0]}). Save it anew."
            ) from None
        if about.get("format") != FORMAT:
            raise InputError(f"'{path}' is not an integer network of this room (format {about.get('format')!r}).")
        return cls._from_description(path, json.loads(about["description"]), tensors)

    @classmethod
    def _from_description(cls, path: str | Path, about: dict[str, Any], tensors: dict[str, Tensor]) -> "IntegerNetwork":
        try:
            nodes = tuple(
                Node(n["name"], n["operation"], tuple(n["inputs"]), tuple(n["options"])) for n in about["nodes"]
            )
            plan = dict(about["scales"])
            plan["requantizers"] = {name: Requantizer(*triple) for name, triple in plan["requantizers"].items()}
            plan["shortcuts"] = {name: tuple(pair) for name, pair in plan["shortcuts"].items()}
            plan["output"] = plan["output"] and tuple(plan["output"])
            names = [node.name for node in nodes if node.operation == "layer"]
            weights = {name: tensors.pop(f"{name}_weight") for name in names}
            biases = {name: tensors.pop(f"{name}_bias") for name in names}
            strides = {name: tuple(about["strides"][name]) for name in names}
            wrong = [n for n in names if weights[n].dtype != torch.int8 or biases[n].dtype != torch.int32]
        except (KeyError, TypeError) as error:
            raise InputError(f"'{path}' is damaged: its description lacks {error}. Save it anew.") from None
        if wrong or tensors:
            raise InputError(
                f"'{path}' is damaged: its tensors are not the int8 weights and int32 biases of its layers."
            )
        return cls(nodes, Scales(**plan), weights, biases, strides)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and biases in memory."""
        return sum(buffer.nbytes for buffer in self.buffers())


@torch.no_grad()
def to_integer(network: Network, scales: Scales) -> IntegerNetwork:
    """w = clip(round(W' / s), -128, 127) in int8 and b = round(b' r) in int32, with the scales from `snap`.

    Raises:
        InputError: a bias, or a sum that a layer could reach, does not fit int32.
    """
    weights, biases, strides = {}, {}, {}
    for name, layer in layers(network.parts).items():
        codes = layer.codes()
        bias = torch.round(layer.folded()[1].double() * scales.sums[name])
        largest = codes.abs().sum((1, 2, 3)) * 128 + bias.abs()
        if float(largest.max()) >= 2**31:
            raise InputError(
                f"the sums of layer '{name}' could reach {float(largest.max()):.3g} and leave int32: its bias is "
                "enormous beside its weights. Is the network trained, and was snap called on it?"
            )
        weights[name], biases[name] = codes.to(torch.int8), bias.to(torch.int32)
        strides[name] = (int(layer.conv.stride[0]), int(layer.conv.padding[0]))
    return IntegerNetwork(network.nodes, scales, weights, biases, strides)


def to_codes(pixels: Tensor) -> Int8[Tensor, "*shape"]:
    """Pixels 0..255 as the int8 input pixel - 128."""
    return (pixels.round() if pixels.is_floating_point() else pixels).to(torch.int16).sub(128).to(torch.int8)


def max_pool(x: Tensor, options: tuple[int, ...]) -> Tensor:
    """Largest value in each window, for integers on every device; the border counts as the smallest number."""
    kernel, stride, padding = options
    x = F.pad(x, (padding,) * 4, value=torch.iinfo(x.dtype).min)
    height, width = ((size - kernel) // stride + 1 for size in x.shape[2:])
    best = None
    for y in range(kernel):
        for z in range(kernel):
            part = x[:, :, y : y + stride * height : stride, z : z + stride * width : stride]
            part = part[:, :, :height, :width]
            best = part if best is None else torch.maximum(best, part)
    assert best is not None
    return best
