"""Small image sets that fit in memory: what they share, scikit-learn's digits, Fashion-MNIST."""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from labkit.data import registry
from labkit.errors import DataError, InputError


def normalize(
    images: UInt8[Tensor, "n c h w"], mean: float | Sequence[float] | Tensor, std: float | Sequence[float] | Tensor
) -> Float32[Tensor, "n c h w"]:
    """(images - mean) / std, on the images' own device; mean and std in 0..255, one value or one per channel."""
    return (images.to(torch.float32) - _per_channel(images, mean)).div_(_per_channel(images, std))


def _per_channel(images: Tensor, value: float | Sequence[float] | Tensor) -> Tensor:
    values = torch.as_tensor(value, dtype=torch.float32, device=images.device).reshape(-1)
    if len(values) not in (1, images.shape[1]):
        raise InputError(f"mean and std must hold 1 or {images.shape[1]} values, one per channel; got {len(values)}.")
    return values[:, None, None]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size, whole in memory.

    images: pixels 0..255. labels: indices into `classes`. name: which set was really used, to be shown with every
    number. provenance: where the pixels come from and what was done to them.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    name: str
    provenance: str

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "ImageSet":
        """The first `count` images.

        Raises InputError when there are fewer.
        """
        if not 0 < count <= len(self):
            raise InputError(f"{self.name} has {len(self):,} images here; asked for the first {count:,}.")
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def to(self, device: str | torch.device) -> "ImageSet":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation over all pixels, one per channel, in 0..255."""
        channels = [self.images[:, c].to(torch.float64) for c in range(self.images.shape[1])]  # one at a time: memory
        return tuple(c.mean().item() for c in channels), tuple(c.std(correction=0).item() for c in channels)


def check_split(split: str, allowed: tuple[str, ...] = ("train", "test")) -> None:
    if split not in allowed:
        raise InputError(f"split must be {' or '.join(repr(a) for a in allowed)}; got '{split}'.")


def digits(split: str) -> ImageSet:
    """scikit-learn's handwritten digits, (n, 1, 8, 8): 'train' has 1200 images, 'test' the other 597.

    The set has no official split; ours shuffles with a fixed seed. Its values 0..16 become v * 16, 16 itself 255.
    """
    from sklearn.datasets import load_digits

    check_split(split)
    source = load_digits()
    order = np.random.RandomState(0).permutation(len(source.target))
    chosen = order[:1200] if split == "train" else order[1200:]
    images = (source.images[chosen, None] * 16).clip(0, 255).astype(np.uint8)
    return ImageSet(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(source.target[chosen].astype(np.int64)),
        classes=tuple("0123456789"),
        name="digits",
        provenance=f"scikit-learn digits, {split} part of a fixed 1200/597 split [ours]",
    )


FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def fashion_mnist(split: str) -> ImageSet:
    """Fashion-MNIST, (n, 1, 28, 28): 'train' has 60,000 images, 'test' 10,000, in the official order.

    Raises DataError when the files are missing or damaged.
    """
    check_split(split)
    folder = registry.require("fashion-mnist")
    prefix = "train" if split == "train" else "t10k"
    return ImageSet(
        images=read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")[:, None],
        labels=read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz").to(torch.int64),
        classes=FASHION_CLASSES,
        name="fashion-mnist",
        provenance=f"official Fashion-MNIST files, {split} split",
    )


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """An IDX file: two zero bytes, type (8: bytes), number of axes, their lengths as big-endian int32, then data.

    Raises DataError when it is another file, not whole, or announces more than 2^28 bytes.
    """
    mend = f"Get it anew: labkit data get {path.parent.name}"
    try:
        with gzip.open(path) as stream:
            *kind, axes = stream.read(4)
            shape = struct.unpack(f">{axes}I", stream.read(4 * axes))
            count = math.prod(shape)
            content = stream.read(count + 1) if count <= 2**28 else b""  # a few kB of gzip may hold any number of zeros
    except (OSError, EOFError, ValueError, zlib.error, struct.error) as error:
        raise DataError(f"{path} is not a whole IDX file ({error}). {mend}") from error
    if kind != [0, 0, 8] or not 0 < axes < 5 or not 0 < len(content) == count:
        raise DataError(f"{path} is not an IDX file of bytes. {mend}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape)


def best_available(split: str) -> ImageSet:
    """Fashion-MNIST when it is there, else digits: lessons run offline on a fresh machine. The set's name says which.

    Raises DataError when Fashion-MNIST is there but damaged: falling back would quietly change the experiment.
    """
    return digits(split) if registry.status("fashion-mnist").state == "missing" else fashion_mnist(split)
