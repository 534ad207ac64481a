"""Image sets held in memory: digits, the others from hand-made files of the real layout, and real ones if there."""

import contextlib
import gzip
import hashlib
import io
import os
import random
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.data import CIFAR10_MEAN, best_available, cifar10, digits, fashion_mnist, normalize, registry
from labkit.data.images import read_idx
from labkit.data.registry import RemoteFile
from labkit.errors import DataError, InputError


def needs(name: str) -> None:
    """Skip where the real dataset is not in LABKIT_DATA."""
    if (current := registry.status(name)).state != "present":
        pytest.skip(f"{name} is {current.state} in LABKIT_DATA ({current.detail})")


def register(monkeypatch, name: str, content: dict[str, bytes], *, alternative: bool = False) -> None:
    """Pretend that these bytes are the published files of a dataset, and put them in place."""
    folder = registry.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for file, data in content.items():
        (folder / file).write_bytes(data)
        files.append(RemoteFile(file, "https://example.org", hashlib.sha256(data).hexdigest(), len(data)))
    change = {"alternative": tuple(files)} if alternative else {"files": tuple(files)}
    monkeypatch.setitem(registry.DATASETS, name, replace(registry.get(name), **change))


@pytest.fixture
def empty_data(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    return tmp_path


# ---- digits --------------------------------------------------------------------------------------------------------


def test_digits_are_the_fixed_split_of_the_whole_set():
    from sklearn.datasets import load_digits

    source = load_digits()
    order = np.random.RandomState(0).permutation(1797)
    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1200, 597)
    images, labels = torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels])
    np.testing.assert_array_equal(labels, source.target[order])
    np.testing.assert_array_equal(images[:, 0], np.minimum(source.images[order] * 16, 255))
    assert images.max() == 255
    assert train.name == "digits"


def test_first_and_statistics():
    train = digits("train")
    assert torch.equal(train.first(7).images, train.images[:7])
    mean, std = train.statistics()
    scaled = normalize(train.images, mean, std)
    torch.testing.assert_close(scaled.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="digits has 1,200 images here; asked for the first 1,201"):
        train.first(1201)


def test_normalize_takes_one_value_or_one_per_channel():
    images = torch.tensor([0, 100, 200], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert normalize(images, 100.0, 50.0).flatten().tolist() == [-2, 0, 2]
    assert normalize(images, (0.0, 50.0, 100.0), (1.0, 2.0, 4.0)).flatten().tolist() == [0, 25, 25]
    assert images.flatten().tolist() == [0, 100, 200]
    with pytest.raises(InputError, match="1 or 3 values, one per channel; got 2"):
        normalize(images, (0.0, 1.0), 1.0)


@pytest.mark.parametrize("load", [digits, fashion_mnist, cifar10])
def test_unknown_split(load):
    with pytest.raises(InputError, match="split must be 'train' or 'test'; got 'valid'"):
        load("valid")


# ---- Fashion-MNIST -------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def small_fashion(n: int) -> dict[str, bytes]:
    pixels = np.random.RandomState(1).randint(0, 256, (n, 28, 28))
    return {
        f"{part}-{kind}.gz": idx(array)
        for part in ("train", "t10k")
        for kind, array in (("images-idx3-ubyte", pixels), ("labels-idx1-ubyte", np.arange(n) % 10))
    }


def test_fashion_layout(empty_data, monkeypatch):
    register(monkeypatch, "fashion-mnist", small_fashion(12))
    for split in ("train", "test"):
        images = fashion_mnist(split)
        np.testing.assert_array_equal(images.images[:, 0], np.random.RandomState(1).randint(0, 256, (12, 28, 28)))
        assert images.labels.tolist() == [*range(10), 0, 1]
        assert images.classes[9] == "Ankle boot"


def test_damaged_idx_files_are_named(tmp_path):
    """Bytes changed in front of and behind the compression, cuts, and a header that announces the whole memory."""
    path, rng = tmp_path / "labels.gz", random.Random(0)
    plain = gzip.decompress(idx(np.arange(24).reshape(2, 3, 4)))
    path.write_bytes(gzip.compress(plain))
    whole, right = path.read_bytes(), read_idx(path)
    bomb = struct.pack(">HBB4I", 0, 8, 4, 60_000, 600, 600, 600) + bytes(100_000)
    endless = struct.pack(">HBB1I", 0, 8, 1, 10) + bytes(2**20)
    altered = [bytes([*plain[:k], plain[k] ^ 1, *plain[k + 1 :]]) for k in range(16)]
    for content in (b"", bomb, endless, plain[:3], plain[:9], *altered):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=r"labels\.gz is not .*IDX file.*labkit data get"):
            read_idx(path)
    for _ in range(100):
        content = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        with contextlib.suppress(DataError):  # gzip's own time stamp may change without harm
            assert torch.equal(read_idx(path), right)


def test_best_available_says_what_it_used_and_never_hides_damage(empty_data, monkeypatch):
    assert best_available("test").name == "digits"
    register(monkeypatch, "fashion-mnist", small_fashion(3))
    assert best_available("test").name == "fashion-mnist"
    (registry.folder("fashion-mnist") / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is missing"):
        best_available("train")


@pytest.mark.slow
def test_fashion_known_values():
    needs("fashion-mnist")
    train, test = fashion_mnist("train"), fashion_mnist("test")
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [6000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    (mean,), (std,) = train.statistics()
    assert mean == pytest.approx(72.940, abs=5e-4)
    assert std == pytest.approx(90.021, abs=5e-4)


# ---- CIFAR-10 ------------------------------------------------------------------------------------------------------


def cifar_archive(pixels: np.ndarray, *, without: str = "") -> bytes:
    """An archive of the official layout: each of six batches holds the same few images; batch k labels them k."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for label, name in enumerate(["test_batch.bin", *(f"data_batch_{k}.bin" for k in range(1, 6))]):
            records = b"".join(bytes([label]) + image.tobytes() for image in pixels)
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(records)
            if name != without:
                tar.addfile(member, io.BytesIO(records))
    return buffer.getvalue()


def cifar_jpegs(pixels: np.ndarray) -> bytes:
    from PIL import Image

    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=95)
        files.append(np.frombuffer(buffer.getvalue(), np.uint8))
    arrays = {
        "jpeg": np.concatenate(files),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": np.arange(len(pixels), dtype=np.uint8),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{split}_{key}": value for split in ("train", "test") for key, value in arrays.items()})
    return buffer.getvalue()


@pytest.fixture
def smooth():
    """Four images that JPEG keeps within a few grey values: planes of one colour each."""
    colours = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [120, 130, 140]], np.uint8)
    return np.broadcast_to(colours[:, :, None, None], (4, 3, 32, 32)).copy()


def test_official_archive(empty_data, monkeypatch):
    pixels = np.random.RandomState(2).randint(0, 256, (4, 3, 32, 32)).astype(np.uint8)
    register(monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": cifar_archive(pixels)})
    train, test = cifar10("train"), cifar10("test")
    assert train.name == "cifar10"
    np.testing.assert_array_equal(train.images, np.tile(pixels, (5, 1, 1, 1)))
    assert train.labels.tolist() == [label for label in range(1, 6) for _ in range(4)]
    assert test.labels.tolist() == [0, 0, 0, 0]
    assert sorted(os.listdir(registry.folder("cifar10"))) == ["cifar-10-binary.tar.gz"]  # nothing unpacked


def test_archive_without_a_batch(empty_data, monkeypatch, smooth):
    archive = cifar_archive(smooth, without="data_batch_3.bin")
    register(monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": archive})
    with pytest.raises(DataError, match=r"lacks a whole data_batch_3\.bin\. Get it anew: labkit data get cifar10"):
        cifar10("train")


def test_jpeg_copy_is_marked_lossy_and_decoded_once(empty_data, monkeypatch, smooth):
    register(monkeypatch, "cifar10", {"cifar10_jpeg.npz": cifar_jpegs(smooth)}, alternative=True)
    first = cifar10("test")
    assert (first.images.int() - torch.from_numpy(smooth).int()).abs().max() <= 3
    assert first.name == "cifar10-jpeg"
    assert "LOSSY" in first.provenance

    with monkeypatch.context() as patch:
        patch.setattr("labkit.data.cifar._decode", lambda *_: pytest.fail("decoded again"))
        assert torch.equal(cifar10("test").images, first.images)

    (cache,) = (empty_data / "runs" / "cache").iterdir()
    damaged = bytearray(cache.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    cache.write_bytes(damaged)
    assert torch.equal(cifar10("test").images, first.images)  # the flipped bit was noticed, and decoded anew


def test_pixels_decoded_from_another_archive_are_not_used(empty_data, monkeypatch, smooth):
    """Catches: a cache that is trusted by its name, with an archive that was checked and then never read."""
    for pixels in (smooth, smooth[::-1].copy()):
        register(monkeypatch, "cifar10", {"cifar10_jpeg.npz": cifar_jpegs(pixels)}, alternative=True)
        assert (cifar10("test").images.int() - torch.from_numpy(pixels).int()).abs().max() <= 3
    (cache,) = (empty_data / "runs" / "cache").iterdir()
    np.savez(cache, pixels=np.zeros((4, 3, 32, 32), np.uint8))  # somebody else's, whole and of the right shape
    cache.with_name(f"{cache.name}.npz").rename(cache)
    assert (cifar10("test").images.int() - torch.from_numpy(pixels).int()).abs().max() <= 3


def test_jpeg_copy_without_a_place_to_cache(empty_data, monkeypatch, smooth):
    register(monkeypatch, "cifar10", {"cifar10_jpeg.npz": cifar_jpegs(smooth)}, alternative=True)
    (empty_data / "runs").write_text("a file where a folder should be")
    assert len(cifar10("train")) == 4


def test_the_archive_is_preferred_to_the_copy(empty_data, monkeypatch, smooth):
    register(monkeypatch, "cifar10", {"cifar10_jpeg.npz": cifar_jpegs(smooth)}, alternative=True)
    register(monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": cifar_archive(smooth)})
    assert cifar10("test").name == "cifar10"


@pytest.mark.slow
def test_cifar_known_values(monkeypatch, tmp_path):
    """The test part only: decoding 10,000 JPEGs takes a second."""
    needs("cifar10")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    test = cifar10("test")
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.labels.bincount().tolist() == [1000] * 10
    mean, _ = test.statistics()
    assert mean == pytest.approx(CIFAR10_MEAN, abs=1.5)  # of the training part; a test part is as bright
    if test.name == "cifar10-jpeg":
        assert test.labels[:20].tolist() == [*range(10), *range(10)]
