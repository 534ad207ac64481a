"""MNIST in its official layout, and what is said where it is missing."""

import gzip
import struct

import numpy as np
import pytest
import torch

from labkit.data import mnist, registry
from labkit.errors import DataError


def test_mnist_reads_the_official_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    folder = tmp_path / "mnist"
    folder.mkdir()
    pixels = np.arange(2 * 28 * 28, dtype=np.int64).astype(np.uint8)
    for prefix in ("train", "t10k"):
        with gzip.open(folder / f"{prefix}-images-idx3-ubyte.gz", "wb") as stream:
            stream.write(b"\0\0\x08\x03" + struct.pack(">3i", 2, 28, 28) + pixels.tobytes())
        with gzip.open(folder / f"{prefix}-labels-idx1-ubyte.gz", "wb") as stream:
            stream.write(b"\0\0\x08\x01" + struct.pack(">i", 2) + bytes([7, 3]))
    with pytest.raises(DataError, match="damaged"):
        mnist.mnist("train")
    monkeypatch.setattr(registry, "require", lambda name: folder)
    loaded = mnist.mnist("train")
    assert (loaded.name, loaded.labels.tolist()) == ("mnist", [7, 3])
    assert torch.equal(loaded.images.flatten(), torch.from_numpy(pixels))
    assert mnist.mnist_or_fashion("test").name == "mnist"


def test_mnist_missing_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    with pytest.raises(DataError, match="labkit data get mnist"):
        mnist.mnist("train")
    with pytest.raises(DataError, match="labkit data get fashion-mnist"):
        mnist.mnist_or_fashion("train")
