"""ImageNet weights of VGG-11 for the trunk: which key of torchvision's file belongs to which convolution."""

from pathlib import Path

import torch
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.stmc.method.spatial import SpatialMultiCue
from labkit.tensor_files import read_torch

VGG11 = tuple(f"features.{k}" for k in (0, 3, 6, 8, 11, 13, 16, 18))
"""The eight convolutions of VGG-11; the ninth of our trunk has no counterpart, and starts at random. [inferred]"""


def load_vgg11(spatial: SpatialMultiCue, path: str | Path) -> tuple[str, ...]:
    """Load a state dict of VGG-11 into the trunk; returns the names of the convolutions that were set.

    Nothing in the file is run, and none fills the memory from a few kB (`tensor_files.read_torch`).

    Raises:
        InputError: no such file, another network's, or an architecture whose trunk has other sizes.
    """
    weights = _read(Path(path))
    rows = (("trunk", spatial.trunk), ("middle", spatial.middle), ("top", spatial.top))
    layers = [
        (f"{row}.{name}", layer)
        for row, part in rows
        if part is not None
        for name, layer in part.named_children()
        if isinstance(layer, nn.Conv2d)
    ][: len(VGG11)]
    for (name, layer), key in zip(layers, VGG11, strict=False):
        for kind in ("weight", "bias"):
            given, wanted = weights.get(f"{key}.{kind}"), getattr(layer, kind)
            if given is None or given.shape != wanted.shape:
                shape = "missing" if given is None else tuple(given.shape)
                raise InputError(
                    f"{path} does not fit: {key}.{kind} is {shape}, and {name} needs {tuple(wanted.shape)}. VGG-11's "
                    "weights fit the architecture 'paper' with width 1 alone."
                )
            with torch.no_grad():
                wanted.copy_(given)
    return tuple(name for name, _ in layers)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"there is no weight file {path}.")
    weights = read_torch(path)
    if not isinstance(weights, dict):
        raise InputError(f"{path} holds a {type(weights).__name__} in place of a state dict.")
    return weights
