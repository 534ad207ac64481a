"""CIFAR-10, from the official binary archive or from a lossy JPEG copy."""

import contextlib
import os
import tarfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import BaseModel
from torch import Tensor

from labkit import paths, tensor_files
from labkit.data import registry
from labkit.data.images import ImageSet, check_split
from labkit.data.pictures import read_picture
from labkit.errors import DataError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_MEAN, CIFAR10_STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # of the official training pixels, 0..255
_RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue planes


def cifar10(split: str) -> ImageSet:
    """CIFAR-10, (n, 3, 32, 32): 'train' has 50,000 images, 'test' 10,000.

    Uses the official archive when it is there. Otherwise the JPEG copy, named 'cifar10-jpeg': its pixels differ, and so
    does its order (image k has class k mod 10).

    Raises DataError when neither is there, or the one in use is damaged.
    """
    check_split(split)
    archive = registry.require("cifar10") / "cifar-10-binary.tar.gz"
    return _from_archive(archive, split) if archive.is_file() else _from_jpegs(split)


def _from_archive(archive: Path, split: str) -> ImageSet:
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] if split == "train" else ["test_batch.bin"]
    batches = {}
    with tarfile.open(archive, "r:gz") as tar:  # read in passing, never unpacked: nothing is written
        for member in tar:
            name = os.path.basename(member.name)
            whole = member.isreg() and member.size <= 10_000 * _RECORD  # no link, and no more than is published
            if whole and name in names and (stream := tar.extractfile(member)):
                batches[name] = np.frombuffer(stream.read(), np.uint8)
    if missing := [name for name in names if name not in batches or len(batches[name]) % _RECORD]:
        raise DataError(f"{archive} lacks a whole {', '.join(missing)}. Get it anew: labkit data get cifar10")
    records = torch.from_numpy(np.concatenate([batches[name] for name in names]).reshape(-1, _RECORD))
    return ImageSet(
        images=records[:, 1:].reshape(-1, 3, 32, 32).contiguous(),
        labels=records[:, 0].to(torch.int64),
        classes=CIFAR10_CLASSES,
        name="cifar10",
        provenance=f"official CIFAR-10 binary archive, {split} split",
    )


def _from_jpegs(split: str) -> ImageSet:
    (file,) = registry.get("cifar10").alternative
    with np.load(registry.folder("cifar10") / file.name, allow_pickle=False) as copy:
        labels = torch.from_numpy(copy[f"{split}_labels"].astype(np.int64))
        cache = paths.runs_dir() / "cache" / f"cifar10-{split}.safetensors"
        origin = _Origin(archive=file.sha256, split=split, images=len(labels))
        pixels = _cached(cache, origin)
        if pixels is None:
            pixels = _decode(copy[f"{split}_jpeg"].tobytes(), copy[f"{split}_offsets"].tolist())
            with contextlib.suppress(OSError):  # 10 s of work for the next process; else that one decodes again
                tensor_files.write(cache, {"pixels": pixels}, origin)
    return ImageSet(
        images=pixels,
        labels=labels,
        classes=CIFAR10_CLASSES,
        name="cifar10-jpeg",
        provenance=f"LOSSY JPEG copy of CIFAR-10 (quality about 75), {split} split: not for published figures",
    )


class _Origin(BaseModel, frozen=True, extra="forbid", strict=True):
    """Header of decoded pixels: the archive that they come from, by its sum."""

    format: Literal["labkit decoded images"] = "labkit decoded images"
    archive: str
    split: str
    images: int


def _decode(data: bytes, offsets: list[int]) -> UInt8[Tensor, "n 3 32 32"]:
    """JPEG files laid end to end, file k in data[offsets[k]:offsets[k + 1]]."""
    pixels = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    for k in range(len(pixels)):
        one = data[offsets[k] : offsets[k + 1]]
        pixels[k] = np.asarray(read_picture(one, "Get it anew: labkit data get cifar10", name=f"{k} of CIFAR-10"))
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _cached(path: Path, origin: _Origin) -> UInt8[Tensor, "n 3 32 32"] | None:
    """Pixels decoded earlier; None when there are none, the file was altered, or they come from another archive."""
    try:
        tensors, header = tensor_files.read(path, _Origin)
    except tensor_files.TensorFileError:
        return None
    pixels = tensors.get("pixels")
    fits = pixels is not None and pixels.dtype == torch.uint8 and pixels.shape == (origin.images, 3, 32, 32)
    return pixels if fits and header == origin else None
