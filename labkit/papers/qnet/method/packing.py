"""Low-bit weights as they are deployed: 1, 2 or 3 bits each in memory and on disk, not floats that happen to be few.

    y = conv(x, alpha Y[codes]) + bias  =  alpha conv(x, Y[codes]) + bias

A code is the index of a weight's level; its bits are stored as bit planes, eight weights to a byte in each plane, so
that three bits take three eighths of a byte and no more. Where the input is quantised too (x = alpha_a times an
integer), the convolution runs on 8-bit integers and adds up in 32 bits, exactly.
"""

import copy
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, Int32, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.kernels.int8_matmul import int8_matmul
from labkit.papers.qnet.method.levels import bits_needed
from labkit.papers.qnet.method.soft_quantizer import Quantizer, quantizers
from labkit.papers.qnet.method.weights import float_weight

FORMAT = "labkit-qnet-packed-1"


def pack_weights(codes: UInt8[Tensor, "*shape"], bits: int) -> UInt8[Tensor, "bits bytes"]:
    """Codes below 2^bits as `bits` rows of ceil(n / 8) bytes; row p holds bit p of each code, the first code lowest.

    Raises:
        InputError: bits outside 1 to 8, or a code that does not fit.
    """
    if not 1 <= bits <= 8:
        raise InputError(f"codes take 1 to 8 bits; got {bits}")
    flat = codes.flatten()
    if flat.numel() and int(flat.max()) >= 2**bits:
        raise InputError(f"code {int(flat.max())} does not fit into {bits} bits, whose largest is {2**bits - 1}")
    octets = F.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    positions = torch.arange(8, dtype=torch.uint8, device=codes.device)
    planes = [(((octets >> bit) & 1) << positions).sum(1, dtype=torch.uint8) for bit in range(bits)]
    return torch.stack(planes)


def unpack_weights(packed: UInt8[Tensor, "bits bytes"], shape: Iterable[int]) -> UInt8[Tensor, "..."]:
    """The codes again, in the given shape.

    Raises:
        InputError: the shape does not belong to that many bytes.
    """
    shape = tuple(shape)
    count = math.prod(shape)
    if packed.shape[1] != math.ceil(count / 8):
        raise InputError(f"{count} codes fill {math.ceil(count / 8)} bytes a bit plane; got {packed.shape[1]}")
    positions = torch.arange(8, dtype=torch.uint8, device=packed.device)
    codes = packed.new_zeros(packed.shape[1] * 8)
    for bit, plane in enumerate(packed):
        codes |= (((plane[:, None] >> positions) & 1) << bit).flatten()
    return codes[:count].view(shape)


class _Packed(nn.Module):
    """What a packed convolution and a packed linear layer share: codes in bit planes, a table of levels, scales.

    Buffers: `packed` (bits, bytes) uint8; `levels`; `scale`, one number or one per filter; `bias`;
    `input_scale`: alpha_a where the input is known to be alpha_a times an integer code, else None.
    """

    packed: Tensor
    levels: Tensor
    scale: Tensor
    bias: Tensor | None
    input_scale: Tensor | None

    def __init__(self, layer: nn.Conv2d | nn.Linear, levels: Tensor, scale: Tensor, codes: Tensor) -> None:
        super().__init__()
        self.shape = tuple(codes.shape)
        bits = bits_needed(levels.tolist())
        self.register_buffer("packed", pack_weights(codes, bits))
        self.register_buffer("levels", levels.detach().clone())
        self.register_buffer("scale", scale.detach().flatten().clone())  # (1,) or (filters,)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.register_buffer("input_scale", None)

    @classmethod
    def of(cls, layer: Any, quantizer: Quantizer, weight: Tensor) -> Any:
        """The packed form of a quantised layer; `weight` is its float weight."""
        with torch.no_grad():
            return cls(layer, quantizer.levels, quantizer.scale(weight), quantizer.codes(weight))

    def codes(self) -> UInt8[Tensor, "..."]:
        return unpack_weights(self.packed, self.shape)

    def weight_levels(self) -> Float[Tensor, "..."]:
        """Y[codes], in the shape of the layer's weight, before the scale."""
        return self.levels[self.codes().int()]

    @property
    def bits(self) -> int:
        return len(self.packed)

    def integer_levels(self) -> Int8[Tensor, "..."]:
        if not torch.equal(self.levels, self.levels.round()) or self.levels.abs().max() > 127:
            raise InputError(
                f"the integer path needs whole levels from -127 to 127; this layer has {self.levels.tolist()}"
            )
        return self.weight_levels().to(torch.int8)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        if self.input_scale is None:
            y = self._scaled(self.linear_map(x, self.weight_levels().to(x.dtype)), self.scale)
        else:
            codes = (x / self.input_scale).round().to(torch.int8)
            y = self._scaled(self.accumulate(codes), self.scale * self.input_scale)
        return y.to(x.dtype)

    def _scaled(self, y: Tensor, scale: Tensor) -> Tensor:
        """scale y + bias, both per channel."""
        per_channel = (-1, 1, 1) if len(self.shape) == 4 else (-1,)
        y = y * scale.view(per_channel)
        return y if self.bias is None else y + self.bias.view(per_channel)

    def linear_map(self, x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def accumulate(self, codes: Int8[Tensor, "*shape"]) -> Int32[Tensor, "..."]:
        """The layer on integers: 8-bit input codes times 8-bit levels, added up in 32 bits, without scale and bias."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.shape}, bits={self.bits}, bytes={self.packed.numel()}, integer={self.input_scale is not None}"


class PackedLinear(_Packed):
    """`nn.Linear` with packed weights; unpacked for the moment of use only."""

    def linear_map(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def accumulate(self, codes: Int8[Tensor, "*batch features"]) -> Int32[Tensor, "*batch features2"]:
        rows = int8_matmul(codes.flatten(0, -2), self.integer_levels().t())
        return rows.view(*codes.shape[:-1], -1)


class PackedConv2d(_Packed):
    """`nn.Conv2d` (zero padding) with packed weights; unpacked for the moment of use only."""

    def __init__(self, layer: nn.Conv2d, levels: Tensor, scale: Tensor, codes: Tensor) -> None:
        super().__init__(layer, levels, scale, codes)
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise InputError(
                f"packed convolutions pad with a number of zeros; got {layer.padding_mode}, {layer.padding}"
            )
        self.stride, self.padding, self.dilation, self.groups = (
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )

    def linear_map(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def accumulate(self, codes: Int8[Tensor, "n c h w"]) -> Int32[Tensor, "n c2 h2 w2"]:
        weights = self.integer_levels().chunk(self.groups)
        return torch.cat([self._one_group(x, w) for x, w in zip(codes.chunk(self.groups, 1), weights, strict=True)], 1)

    def _one_group(self, x: Tensor, weight: Tensor) -> Tensor:
        """Patches times filters; every kernel position is a strided slice of the padded input."""
        (filters, _, kh, kw), (sh, sw), (dh, dw) = weight.shape, self.stride, self.dilation
        x = F.pad(x, (self.padding[1], self.padding[1], self.padding[0], self.padding[0]))
        height, width = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1, (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
        slices = [
            x[:, :, i * dh : i * dh + sh * (height - 1) + 1 : sh, j * dw : j * dw + sw * (width - 1) + 1 : sw]
            for i in range(kh)
            for j in range(kw)
        ]
        patches = torch.stack(slices, 2).permute(0, 3, 4, 1, 2).flatten(3)  # (n, height, width, channels * kh * kw)
        sums = int8_matmul(patches.flatten(0, 2), weight.flatten(1).t())
        return sums.view(len(x), height, width, filters).permute(0, 3, 1, 2)


def pack_network(model: nn.Module, sample: Float[Tensor, "batch *shape"] | None = None) -> nn.Module:
    """A copy of `model` in eval mode whose quantised layers hold packed weights; the rest of it is as it was.

    Args:
        sample: one batch of inputs. Layers whose input turns out to be the output of an activation quantiser with
            whole levels (directly, or pooled by a maximum, or flattened) then compute on integers. None: on floats.

    Raises:
        InputError: the model has no quantised weights.
    """
    quantized = quantizers(model, "weights")
    if not quantized:
        raise InputError("the model has no quantised weights to pack; call quantize_weights first")
    packed = copy.deepcopy(model).eval()
    for name, quantizer in quantized.items():
        layer = model.get_submodule(name)
        kind: Any = PackedConv2d if isinstance(layer, nn.Conv2d) else PackedLinear
        packed.set_submodule(name, kind.of(layer, quantizer, float_weight(model, name)))
    if sample is not None:
        _find_integer_inputs(packed, sample)
    return packed


@torch.no_grad()
def _find_integer_inputs(model: nn.Module, sample: Tensor) -> None:
    """Sets `input_scale` of each layer whose input turns out to be alpha_a times whole numbers of one quantiser."""
    scales: list[tuple[Tensor, float]] = []  # scale and highest level of the quantisers run so far

    def after_quantizer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, Quantizer)
        scale, levels = module.scale(inputs[0]), module.levels
        if scale.numel() == 1 and torch.equal(levels, levels.round()) and levels.abs().max() <= 127:
            scales.append((scale.reshape(()), levels.abs().max().item()))

    def before_layer(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _Packed)
        for scale, highest in reversed(scales):
            codes = (inputs[0] / scale).round()
            if codes.abs().max() <= highest and torch.equal(codes * scale, inputs[0]):
                layer.input_scale = scale.detach().clone()
                return

    hooks = [module.register_forward_hook(after_quantizer) for module in quantizers(model, "activations").values()]
    layers = [module for module in model.modules() if isinstance(module, _Packed)]
    whole = [layer for layer in layers if torch.equal(layer.levels, layer.levels.round())]
    hooks += [layer.register_forward_pre_hook(before_layer) for layer in whole]
    try:
        model(sample)
    finally:
        for hook in hooks:
            hook.remove()


def save_packed(packed: nn.Module, path: str | Path) -> int:
    """Writes the state of a packed network as safetensors; returns the size of the file in bytes."""
    layers = {name: list(module.shape) for name, module in packed.named_modules() if isinstance(module, _Packed)}
    if not layers:
        raise InputError("the model has no packed layers; save_packed(pack_network(model), path)")
    state = {name: tensor.contiguous() for name, tensor in packed.state_dict().items()}
    save_file(state, path, metadata={"format": FORMAT, "layers": json.dumps(layers)})
    return Path(path).stat().st_size


def load_packed(path: str | Path, model: nn.Module) -> nn.Module:
    """The packed network of the file, on the architecture of `model`; the copy is in eval mode, `model` is not changed.

    `model` is the float network, with activation quantisers where the packed one has them.

    Raises:
        InputError: no such file; not a packed network, damaged or cut short; of another architecture.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file '{path}'; save_packed writes one")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise InputError(f"'{path}' is not a packed network, or was cut short ({error}); write it again") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"'{path}' holds other tensors, not a packed network; save_packed writes one")
    loaded = copy.deepcopy(model).eval()
    for name, shape in json.loads(metadata["layers"]).items():
        _install_empty(loaded, name, tuple(shape), state, path)
    try:
        loaded.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"'{path}' belongs to another architecture: {error}") from error
    return loaded


def _install_empty(model: nn.Module, name: str, shape: tuple[int, ...], state: dict[str, Tensor], path: object) -> None:
    """Puts a packed layer of the file's sizes in place of layer `name`; `load_state_dict` then fills it."""
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, (nn.Conv2d, nn.Linear)) or tuple(layer.weight.shape) != shape:
        raise InputError(f"'{path}' belongs to another architecture: it has a layer '{name}' with weights {shape}")
    kind = PackedConv2d if isinstance(layer, nn.Conv2d) else PackedLinear
    codes = torch.zeros(shape, dtype=torch.uint8)
    packed: Any = kind(layer, state[f"{name}.levels"], state[f"{name}.scale"], codes)  # type: ignore[arg-type]
    packed.input_scale = state.get(f"{name}.input_scale")
    model.set_submodule(name, packed)
