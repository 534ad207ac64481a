"""Low-bit networks as they are deployed: weights of 1, 2 or 3 bits each in memory and on disk, activation thresholds.

    y = conv(x, alpha Y[codes]) + bias  =  alpha conv(x, Y[codes]) + bias

A code is the index of a weight's level; its bits are stored as bit planes, eight weights to a byte in each plane, so
that three bits take three eighths of a byte and no more. Where the input is quantised too (x = alpha_a times an
integer), the convolution runs on 8-bit integers and adds up in 32 bits, exactly, if the processor is quicker at that.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from labkit.errors import InputError
from labkit.kernels import int8_layers
from labkit.papers.qnet.method.batches import device_of, inputs_of
from labkit.papers.qnet.method.levels import bits_needed
from labkit.papers.qnet.method.soft_quantizer import Quantizer, quantizers
from labkit.papers.qnet.method.weights import float_weight


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


class PackedLayer(nn.Module):
    """A convolution (transposed or not, of 1 to 3 dimensions) or a linear layer with packed weights.

    Weights are unpacked for the moment of use only. Buffers: `packed` (bits, bytes) uint8; `levels`; `scale`, one
    number or one per slice of the weight's first axis; `bias`; `input_scale`: alpha_a where the input is known to be
    alpha_a times a whole number from 0 to 255, else None.

    Args:
        layer: gives the geometry and the bias.
        levels, scale, packed: the weights.
    """

    packed: Tensor
    levels: Tensor
    scale: Tensor
    bias: Tensor | None
    input_scale: Tensor | None

    def __init__(self, layer: nn.Module, levels: Tensor, scale: Tensor, packed: Tensor, shape: Iterable[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        bias: Any = layer.bias
        self.register_buffer("packed", packed)
        self.register_buffer("levels", levels.detach().clone())
        self.register_buffer("scale", scale.detach().flatten().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.register_buffer("input_scale", None)
        self._compute = _compute_of(layer)
        self._geometry: Any = None  # for the integer path
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            self._geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        self.is_linear = isinstance(layer, nn.Linear)
        self._per_code = 0.0  # 1 / input_scale as a plain number; 0: this layer computes on floats

    @classmethod
    def of(cls, layer: nn.Module, quantizer: Quantizer, weight: Tensor) -> "PackedLayer":
        """The packed form of a quantised layer; `weight` is its float weight."""
        with torch.no_grad():
            codes = pack_weights(quantizer.codes(weight), bits_needed(quantizer.levels.tolist()))
            return cls(layer, quantizer.levels, quantizer.scale(weight), codes, weight.shape)

    @property
    def bits(self) -> int:
        return len(self.packed)

    def codes(self) -> UInt8[Tensor, "..."]:
        return unpack_weights(self.packed, self.shape)

    @property
    def weight(self) -> Float[Tensor, "..."]:
        """scale Y[codes]: what the quantised layer computes with in eval mode, to the last bit."""
        if self.scale.numel() == 1:
            return (self.scale * self.levels)[self.codes().int()]
        return self.levels[self.codes().int()] * self.scale.view(-1, *[1] * (len(self.shape) - 1))

    def integer_levels(self) -> Int8[Tensor, "..."]:
        """Y[codes], before the scale."""
        return self.levels.to(torch.int8)[self.codes().int()]

    def takes_integers(self) -> bool:
        """Whether this layer could compute on 8-bit integers: whole levels, and sums that stay exact."""
        highest = self.levels.abs().max().item()
        whole = torch.equal(self.levels, self.levels.round()) and highest <= 127
        largest = math.prod(self.shape[1:]) * 255 * highest
        return whole and largest < int8_layers.LARGEST_SUM and (self.is_linear or self._geometry is not None)

    def set_input_scale(self, scale: Tensor) -> None:
        """Every input is `scale` times a whole number: compute on integers, if this processor is quicker at that."""
        self.input_scale = scale.clone()
        self._per_code = 1 / scale.item() if int8_layers.is_fast() else 0.0

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        floats = x.device.type == "cpu" and x.dtype == self.scale.dtype == torch.float32
        if self._per_code and floats and not x.requires_grad:
            return self.on_integers(x)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return self._compute(x, self.weight.to(x.dtype), bias)

    def on_integers(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        """The layer on 8-bit integers. Sums are exact; the scale of the output rounds once, and once more a bias."""
        assert self.input_scale is not None
        codes = _codes_behind(x)
        if codes is None:
            codes = torch.add(x.new_full((), 0.5), x, alpha=self._per_code).to(torch.uint8)  # x / input_scale is whole
        scale = (self.scale * self.input_scale).expand(self.shape[0]).contiguous()
        if self.is_linear:
            y = int8_layers.int8_linear_scaled(codes.flatten(0, -2), self.integer_levels(), scale)
            y = y.view(*x.shape[:-1], -1)
        else:
            y = int8_layers.int8_conv2d_scaled(codes, self.integer_levels(), scale, *self._geometry)
        return y if self.bias is None else y.add_(self.bias.view(-1, *[1] * (0 if self.is_linear else 2)))

    def extra_repr(self) -> str:
        return f"{self.shape}, bits={self.bits}, bytes={self.packed.numel()}, integer={self.input_scale is not None}"


Compute = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class _Linear:
    """(x, weight, bias) -> y as `nn.Linear` computes it."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


class _Convolution:
    """(x, weight, bias) -> y as a convolution of the same geometry as `layer` computes it."""

    def __init__(self, layer: Any) -> None:
        self.function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[layer.weight.dim() - 2]
        self.geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        self.mode, self.margins = layer.padding_mode, layer._reversed_padding_repeated_twice

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride, padding, dilation, groups = self.geometry
        if self.mode != "zeros":  # circular, reflect, replicate: torch's convolutions pad with zeros only
            x, padding = F.pad(x, self.margins, mode=self.mode), 0
        return self.function(x, weight, bias, stride, padding, dilation, groups)


class _Transposed:
    """(x, weight, bias) -> y as a transposed convolution of the same geometry as `layer` computes it."""

    def __init__(self, layer: Any) -> None:
        self.function = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[layer.weight.dim() - 2]
        self.geometry = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.function(x, weight, bias, *self.geometry)


def _compute_of(layer: nn.Module) -> Compute:
    if isinstance(layer, nn.Linear):
        return _Linear()
    return (_Transposed if layer.transposed else _Convolution)(layer)


class PackedActivation(nn.Module):
    """A ReLU and its quantiser as deployed: y = scale Y_k, k the number of `thresholds` below x.

    The thresholds are those of x itself, and exact: for every float x, k is the quantiser's own code of relu(x).
    Buffers: `levels` (steps + 1), those that x can reach; `thresholds` (steps), ascending; `scale` ().
    """

    levels: Tensor
    thresholds: Tensor
    scale: Tensor

    def __init__(self, levels: Tensor, thresholds: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("levels", levels.detach().clone())
        self.register_buffer("thresholds", thresholds.detach().clone())
        self.register_buffer("scale", scale.detach().reshape(()).clone())
        self.counts = torch.equal(levels, torch.arange(len(levels), dtype=levels.dtype, device=levels.device))

    @classmethod
    def of(cls, relu: nn.Module, quantizer: Quantizer) -> "PackedActivation | None":
        """The packed form of Sequential(relu, quantizer); None where the scale depends on x (XNOR).

        Raises:
            InputError: the quantiser falls, since its scale became negative.
        """
        with torch.no_grad():
            if isinstance(relu, nn.Identity):
                return None
            scale = quantizer.scale(quantizer.levels[:1])
            if not scale > 0:
                raise InputError("a quantiser with a negative scale cannot be packed; train it more gently")
            first, thresholds = exact_thresholds(lambda x: quantizer.codes(relu(x)), scale)
            return cls(quantizer.levels[first : first + len(thresholds) + 1], thresholds, scale)

    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        """k of every entry of x."""
        x = x.to(torch.promote_types(x.dtype, self.thresholds.dtype))  # bfloat16 is too coarse to compare
        if len(self.thresholds) > 31:  # a search costs as much as 30 to 45 comparisons (measured)
            return torch.bucketize(x.contiguous(), self.thresholds, out_int32=True).to(torch.uint8)
        if len(self.thresholds) == 0:
            return torch.zeros_like(x, dtype=torch.uint8)
        first, *others = self.thresholds.unbind()
        k = (x > first).view(torch.uint8)
        for threshold in others:
            k.add_((x > threshold).view(torch.uint8))
        return k

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        k = self.codes(x)
        if not self.counts:
            return (self.levels * self.scale)[k.int()].to(x.dtype)
        return _with_codes((k * self.scale).to(x.dtype), k)

    def extra_repr(self) -> str:
        return f"{len(self.levels)} levels, scale={self.scale.item():g}"


def _with_codes(y: Tensor, k: Tensor) -> Tensor:
    """y = scale k, which carries k along: a layer that gets this very tensor need not divide and round it again."""
    if not y.is_inference() and not torch.compiler.is_compiling():
        y._codes = (k, y._version)  # type: ignore[attr-defined]
    return y


def _codes_behind(x: Tensor) -> Tensor | None:
    """The codes that x carries, unless something was written into it since."""
    if x.is_inference() or torch.compiler.is_compiling():
        return None
    codes, version = getattr(x, "_codes", (None, None))
    return codes if version == x._version else None


def exact_thresholds(codes: Callable[[Tensor], Tensor], like: Tensor) -> tuple[int, Tensor]:
    """The code of 0, and for each higher code that occurs the largest number that is still below it.

    `codes` must not fall. By bisection over the bits of all positive numbers of the type of `like`, float32 or float64,
    which as integers have the numbers' order.
    """
    integer, top = {torch.float32: (torch.int32, 31), torch.float64: (torch.int64, 63)}[like.dtype]
    highest = torch.tensor([torch.finfo(like.dtype).max], dtype=like.dtype, device=like.device)
    first, last = (int(codes(x)) for x in (torch.zeros_like(highest), highest))
    if last < first:
        raise InputError("a quantiser that falls cannot be packed: its scale became negative; train it more gently")
    wanted = torch.arange(first + 1, last + 1, device=like.device)
    low = torch.zeros_like(wanted, dtype=integer)
    high = highest.view(integer).expand_as(low)
    for _ in range(top):
        middle = low + (high - low) // 2
        reached = codes(middle.view(like.dtype)) >= wanted
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return first, low.view(like.dtype)


def pack(model: nn.Module, sample: Any = None) -> nn.Module:
    """A copy of a quantised network in eval mode, as it is deployed: packed weights, activations as thresholds.

    It computes what `model` computes in eval mode. All else in it is as it was.

    Args:
        sample: one batch of inputs, or of (inputs, labels). One pass over it shows which layers get their input
            straight from an activation quantiser with whole levels (or through max pooling, flattening and the like):
            they compute on integers, where the processor is quicker at that. Its values do not matter. None: on floats.

    Raises:
        InputError: the model has no quantisers.
    """
    if not quantizers(model):
        raise InputError("the model has no quantisers to pack; call quantize first")
    packed = copy.deepcopy(model).eval()
    new: dict[int, nn.Module] = {}  # by the id of what it replaces
    for name, quantizer in quantizers(packed, "weights").items():
        layer = packed.get_submodule(name)
        new[id(layer)] = PackedLayer.of(layer, quantizer, float_weight(packed, name))
    for name, quantizer in quantizers(packed, "activations").items():
        pair = packed.get_submodule(name)
        if not isinstance(pair, nn.Sequential):  # a quantiser that somebody put there by hand
            continue
        if (deployed := PackedActivation.of(pair[0], quantizer)) is not None:
            new[id(pair)] = deployed
    replace_modules(packed, new)
    if sample is not None:
        _find_integer_inputs(packed, inputs_of(sample).to(device_of(packed)))
    return packed


def replace_modules(model: nn.Module, new: Mapping[int, nn.Module]) -> None:
    """Puts `new[id(module)]` in the place of each such module of `model`, under all its names."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) in new:
            model.set_submodule(name, new[id(module)])


def packed_layers(model: nn.Module) -> dict[str, PackedLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedLayer)}


def packed_activations(model: nn.Module) -> dict[str, PackedActivation]:
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedActivation)}


@torch.inference_mode(False)
@torch.no_grad()
def _find_integer_inputs(model: nn.Module, sample: Tensor) -> None:
    """Sets `input_scale` of each layer whose inputs all come from one activation quantiser with whole levels."""
    origins = _Origins()
    sources: dict[PackedLayer, set[PackedActivation | None]] = {}

    def after_activation(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, PackedActivation)
        if module.counts:
            origins.set(output, module)

    def before_layer(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, PackedLayer)
        sources.setdefault(layer, set()).add(origins.of(inputs[0]))

    layers = [layer for layer in packed_layers(model).values() if layer.takes_integers()]
    hooks = [module.register_forward_hook(after_activation) for module in packed_activations(model).values()]
    hooks += [layer.register_forward_pre_hook(before_layer) for layer in layers]
    try:
        with origins:
            model(sample)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, (source, *more) in sources.items():
        if source is not None and not more:
            layer.set_input_scale(source.scale)


MOVES = {
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
    *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze, torch.clone),
    *(Tensor.flatten, Tensor.reshape, Tensor.view, Tensor.permute, Tensor.transpose, Tensor.squeeze),
    *(Tensor.unsqueeze, Tensor.contiguous, Tensor.clone, Tensor.detach, Tensor.__getitem__),
}
"""Functions that only move or select entries. All else, average pooling and sums among it, makes new numbers."""
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)


class _Origins(TorchFunctionMode):
    """Follows tensors, not their values: which of them hold nothing but outputs of one activation quantiser."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, int, PackedActivation]] = {}  # the tensor is held: its id stays its own

    def set(self, tensor: Tensor, origin: PackedActivation) -> None:
        self._known[id(tensor)] = (tensor, tensor._version, origin)

    def of(self, tensor: Tensor) -> PackedActivation | None:
        if id(tensor) not in self._known:
            return None
        _, version, origin = self._known[id(tensor)]
        return origin if version == tensor._version else None  # else something was written into it

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        moves = function in MOVES or (function in DROPOUTS and (kwargs or {}).get("training") is False)
        moved = moves and args and isinstance(args[0], Tensor) and isinstance(output, Tensor)
        if moved and (origin := self.of(args[0])) is not None:
            self.set(output, origin)
        return output
