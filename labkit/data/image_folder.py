"""ImageNet as a folder of JPEGs: read lazily, decoded by worker processes, cropped and mirrored reproducibly."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from labkit.data import registry
from labkit.data.images import check_split
from labkit.data.pictures import read_picture
from labkit.errors import DataError, InputError

if TYPE_CHECKING:
    from PIL import Image

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # the customary ones, in 0..255


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images in class folders, opened only when asked for.

    files: path of each image below `folder`, as fixed-width bytes: a million str objects would be copied into every
    worker process, because counting references writes to them.
    augment: random crop and mirroring instead of the centre crop.
    """

    folder: Path
    files: np.ndarray
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    size: int
    augment: bool
    seed: int
    name: str = "imagenet"

    def __len__(self) -> int:
        return len(self.files)

    def without_augmentation(self) -> "ImageFolder":
        """The same images, all with the centre crop."""
        return replace(self, augment=False)

    def path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.files[index])

    def image(self, index: int, epoch: int = 0) -> UInt8[Tensor, "3 {self.size} {self.size}"]:
        """One image, 0..255: shorter side to size * 256 / 224, then a crop of `size` pixels.

        The crop is central, or with `augment` a function of (seed, epoch, index) alone: the same whichever worker
        decodes it. No scale jitter [official code].

        Raises DataError that names a damaged file.
        """
        image = _decode(self.path(index), shorter_side=self.size * 256 // 224)
        free_x, free_y = image.width - self.size, image.height - self.size
        left, top, mirrored = free_x // 2, free_y // 2, False
        if self.augment:
            random = np.random.default_rng([self.seed, epoch, index])
            left, top = int(random.integers(free_x + 1)), int(random.integers(free_y + 1))
            mirrored = random.random() < 0.5
        pixels = np.asarray(image)[top : top + self.size, left : left + self.size]
        pixels = pixels[:, ::-1] if mirrored else pixels
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def imagenet(split: str, seed: int = 0, size: int = 224) -> ImageFolder:
    """ImageNet: 'train' with random crops and mirroring, 'val' with the centre crop. Labels count the sorted wnids.

    Raises DataError when the folders are not there; the text says where to register and how to lay them out.
    """
    check_split(split, ("train", "val"))
    folder = registry.require("imagenet") / split
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    files, labels = [], []
    for label, wnid in enumerate(classes):
        visible = (e.name for e in os.scandir(folder / wnid) if not e.name.startswith("."))  # macOS adds ._<name>
        names = sorted(name for name in visible if name.lower().endswith((".jpeg", ".jpg")))
        if not names:
            raise DataError(
                f"{folder / wnid} holds no .JPEG files; unpack that class anew, then: labkit data check imagenet"
            )
        files += [os.fsencode(f"{wnid}/{name}") for name in names]
        labels += [label] * len(names)
    return ImageFolder(folder, np.array(files), torch.tensor(labels), tuple(classes), size, split == "train", seed)


def _decode(path: Path, shorter_side: int) -> "Image.Image":
    """The image as RGB, resized: the set also holds grey and CMYK JPEGs, and a PNG under the name .JPEG."""
    from PIL import Image

    image = read_picture(path, "Unpack it anew from ImageNet's archive.")
    scale = shorter_side / min(image.size)
    width, height = (max(shorter_side, int(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def image_batches(
    images: ImageFolder, order: Int64[Tensor, " n"], batch_size: int, *, epoch: int = 0, workers: int = 0
) -> Iterator[tuple[UInt8[Tensor, "b 3 size size"], Int64[Tensor, " b"]]]:
    """Batches of pixels 0..255 and labels, in exactly this order; the last one may be smaller.

    order: indices into `images`. A resumed run passes what is left of it, a process among many its own share.
    Pixels stay bytes, a quarter of the traffic to the GPU: `normalize` them there.
    """
    if batch_size < 1 or workers < 0:
        raise InputError(f"batch_size must be 1 or more and workers 0 or more; got {batch_size} and {workers}.")
    if len(order) and (order.min() < 0 or order.max() >= len(images)):
        raise InputError(f"order must hold indices 0..{len(images) - 1}; got {order.min()}..{order.max()}.")
    batches = DataLoader(
        _Batches(images, order, batch_size, epoch),
        batch_size=None,  # an item is a batch already
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in batches:
        if isinstance(batch, DataError):
            raise batch
        yield batch


class _Batches(Dataset):
    """Batch k, decoded in a worker process. A damaged file comes back as a value: raised there, it would arrive here
    with the worker's traceback in front of its text."""

    def __init__(self, images: ImageFolder, order: Tensor, batch_size: int, epoch: int) -> None:
        self.images, self.order, self.batch_size, self.epoch = images, order, batch_size, epoch

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor] | DataError:
        indices = self.order[k * self.batch_size : (k + 1) * self.batch_size]
        try:
            pixels = torch.stack([self.images.image(index, self.epoch) for index in indices.tolist()])
        except DataError as error:
            return error
        return pixels, self.images.labels[indices]
