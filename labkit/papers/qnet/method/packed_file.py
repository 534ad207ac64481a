"""Packed networks on disk: one checked file, read back onto the reader's float network without any data."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, JsonValue
from torch import Tensor, nn

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.qnet.method.batches import device_of
from labkit.papers.qnet.method.levels import MOST_LEVELS, bits_needed
from labkit.papers.qnet.method.packing import (
    PackedActivation,
    PackedLayer,
    packed_activations,
    packed_layers,
    replace_modules,
    unpack_weights,
)
from labkit.papers.qnet.method.relus import RELUS, rewrite_relus
from labkit.papers.qnet.method.soft_quantizer import quantizers
from labkit.papers.qnet.method.weights import WEIGHTED

Name = Annotated[str, Field(max_length=1000)]
Size = Annotated[int, Field(ge=1, le=2**31)]


class Header(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """What the tensors of the file are, and what of the float network they replace."""

    format: Literal["labkit-qnet-packed-2"]
    layers: dict[Name, Annotated[tuple[Size, ...], Field(min_length=2, max_length=5)]]  # shape of the weights
    activations: tuple[Name, ...]
    separated: tuple[Name, ...]  # modules whose shared ReLUs were separated, see `relus.rewrite_relus`
    about: dict[Name, JsonValue]  # whatever the writer wanted to keep beside


def save(packed: nn.Module, path: str | Path, about: Mapping[str, JsonValue] | None = None) -> int:
    """Writes a packed network, atomically; returns the size of the file in bytes.

    Args:
        about: plain values to keep with it, such as the names of the classes; `about_file` reads them.

    Raises:
        InputError: the network is not packed, or has activation quantisers whose scale depends on the input.
    """
    layers, activations = packed_layers(packed), packed_activations(packed)
    if not layers and not activations:
        raise InputError("the model has no packed layers; save(pack(model), path)")
    if left := quantizers(packed):
        raise InputError(f"these quantisers have no packed form: {', '.join(left)}; they scale by their input (XNOR)")
    header = Header(
        format="labkit-qnet-packed-2",
        layers={name: layer.shape for name, layer in layers.items()},
        activations=tuple(activations),
        separated=tuple(name for name, module in packed.named_modules() if isinstance(module, torch.fx.GraphModule)),
        about=dict(about or {}),
    )
    return tensor_files.write(Path(path), packed.state_dict(), header)


def about_file(path: str | Path) -> dict[str, Any]:
    """What `save` was told to keep beside the network. Raises InputError as `load` does."""
    return tensor_files.read(Path(path), Header)[1].about


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """The packed network of the file, on the architecture of the float network `model`, which is not changed.

    The result is in eval mode and on the device of `model`.

    Raises:
        InputError: no such file; not a packed network, damaged or cut short; of another architecture.
    """
    tensors, header = tensor_files.read(Path(path), Header)
    if quantizers(model):
        raise InputError("load takes the float network, without quantisers: the file brings its own")
    try:
        loaded = rewrite_relus(copy.deepcopy(model).eval(), header.separated)
        for name, shape in header.layers.items():
            replace_modules(loaded, {id(_module(loaded, name)): _layer(loaded, name, shape, tensors)})
        for name in header.activations:
            replace_modules(loaded, {id(_module(loaded, name)): _activation(loaded, name, tensors)})
        loaded.load_state_dict(tensors)
    except (InputError, RuntimeError) as error:
        raise InputError(f"'{path}' does not fit this network: {error}") from error
    return loaded.to(device_of(model))


def _layer(model: nn.Module, name: str, shape: tuple[int, ...], tensors: dict[str, Tensor]) -> PackedLayer:
    layer = _module(model, name)
    if not isinstance(layer, WEIGHTED) or tuple(layer.weight.shape) != shape:
        raise InputError(f"it has a layer '{name}' with weights {shape}, and the network has not")
    levels, scale = _ascending(tensors, f"{name}.levels"), _floats(tensors, f"{name}.scale")
    packed = tensors.get(f"{name}.packed")
    bits, count = bits_needed(levels.tolist()), math.prod(shape)
    if packed is None or packed.dtype != torch.uint8 or packed.shape != (bits, math.ceil(count / 8)):
        raise InputError(f"the weights of '{name}' are not {count} codes of {bits} bits")
    if scale.numel() not in (1, shape[0]):
        raise InputError(f"the weights of '{name}' have one scale, or one for each of {shape[0]}; got {scale.numel()}")
    if int(unpack_weights(packed, shape).max()) >= len(levels):
        raise InputError(f"the weights of '{name}' have codes beyond their {len(levels)} levels")
    new = PackedLayer(layer, levels, scale, packed, shape)
    if f"{name}.input_scale" in tensors:
        if not new.takes_integers():
            raise InputError(f"'{name}' cannot compute on integers, and the file says so")
        new.set_input_scale(_positive(tensors, f"{name}.input_scale"))
    return new


def _activation(model: nn.Module, name: str, tensors: dict[str, Tensor]) -> PackedActivation:
    if not isinstance(_module(model, name), RELUS):
        raise InputError(f"it has a quantised ReLU '{name}', and the network has none there")
    levels, thresholds = _ascending(tensors, f"{name}.levels"), _ascending(tensors, f"{name}.thresholds")
    if len(levels) != len(thresholds) + 1:
        raise InputError(f"'{name}' has {len(levels)} levels and {len(thresholds)} thresholds between them")
    return PackedActivation(levels, thresholds, _positive(tensors, f"{name}.scale"))


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _floats(tensors: dict[str, Tensor], name: str) -> Tensor:
    value = tensors.get(name)
    if value is None or value.dtype not in (torch.float32, torch.float64) or value.numel() > 2**20:
        raise InputError(f"its '{name}' is missing, or not floating-point numbers")
    return value


def _ascending(tensors: dict[str, Tensor], name: str) -> Tensor:
    value = _floats(tensors, name)
    if value.dim() != 1 or len(value) > MOST_LEVELS or (value.diff() < 0).any():
        raise InputError(f"its '{name}' must be up to {MOST_LEVELS} ascending numbers; got shape {tuple(value.shape)}")
    return value


def _positive(tensors: dict[str, Tensor], name: str) -> Tensor:
    value = _floats(tensors, name)
    if value.dim() != 0 or not value > 0:
        raise InputError(f"its '{name}' must be one positive number")
    return value
