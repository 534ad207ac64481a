"""ImageNet's layout as a hand-made tree: odd sizes, grey, CMYK, and a PNG that calls itself .JPEG."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from labkit.data import image_batches, imagenet
from labkit.errors import DataError, InputError


@pytest.fixture
def tree(monkeypatch, tmp_path):
    """train: n01 with 4 images, n02 with 2; val: one each. Smooth pictures, so that JPEG changes little."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    root = tmp_path / "imagenet"
    save(root / "train/n02/n02_1.JPEG", (70, 50))
    save(root / "train/n02/n02_2.JPEG", (33, 90))
    save(root / "train/n01/n01_4.JPEG", (40, 40), mode="L")
    save(root / "train/n01/n01_3.JPEG", (61, 47), mode="CMYK")
    save(root / "train/n01/n01_1.JPEG", (47, 61), format="PNG")
    save(root / "train/n01/n01_2.JPEG", (300, 20))
    save(root / "val/n01/val_2.JPEG", (64, 48))
    save(root / "val/n02/val_1.JPEG", (48, 64))
    return root


def save(path, size, mode="RGB", format="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    pixels = np.stack([across, down, 255 - across], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, format, **({} if format == "PNG" else {"quality": 95}))


def test_labels_count_sorted_wnids_and_files_are_sorted(tree, monkeypatch):
    """Whatever order the disk lists them in."""
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: sorted(listed(path), key=lambda entry: entry.name, reverse=True))
    train = imagenet("train")
    assert train.classes == ("n01", "n02")
    assert train.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert [train.path(k).name for k in range(6)] == [f"n01_{k}.JPEG" for k in (1, 2, 3, 4)] + [
        "n02_1.JPEG",
        "n02_2.JPEG",
    ]


def test_hidden_files_and_folders_are_no_images_and_no_classes(tree):
    (tree / "train" / ".cache").mkdir()
    (tree / "train" / "n01" / "._n01_1.JPEG").write_bytes(b"what macOS leaves in archives")
    train = imagenet("train")
    assert train.classes == ("n01", "n02")
    assert len(train) == 6


def test_a_strip_is_refused_before_it_fills_the_memory(tree):
    """60,000 x 1 pixels, with the shorter side made 256, are 12 GB."""
    save(tree / "train/n01/n01_1.JPEG", (60_000, 1))
    with pytest.raises(DataError, match=r"n01_1.JPEG has 60,000 x 1 pixels, sides of more than 100 to 1"):
        imagenet("train").image(0)


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_kind_of_file_becomes_rgb_of_one_size(tree, split):
    images = imagenet(split)
    for k in range(len(images)):
        image = images.image(k)
        assert image.shape == (3, 224, 224)
        assert image.dtype == torch.uint8


def test_grey_has_equal_channels(tree):
    grey = imagenet("train").image(3)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])


def test_centre_crop_shows_the_centre(tree):
    """64x48 becomes 341x256, its crop columns 58..281 and rows 16..239 of two ramps 0..255."""
    image = imagenet("val").image(0).float()
    assert image[0].mean() == pytest.approx(127.5, abs=2)
    assert image[0, :, 0].mean() == pytest.approx(255 * 58 / 340, abs=3)
    assert image[0, :, -1].mean() == pytest.approx(255 * 281 / 340, abs=3)
    assert image[1, 0].mean() == pytest.approx(255 * 16 / 255, abs=4)
    assert torch.equal(imagenet("val").image(0, epoch=0), imagenet("val").image(0, epoch=7))


def test_crops_depend_on_seed_epoch_and_index_alone(tree):
    train = imagenet("train", seed=3)
    reference = train.image(4, epoch=1)
    assert torch.equal(imagenet("train", seed=3).image(4, epoch=1), reference)
    assert not torch.equal(train.image(4, epoch=2), reference)
    assert not torch.equal(imagenet("train", seed=4).image(4, epoch=1), reference)


def test_training_crops_stay_inside_and_half_are_mirrored(tree):
    """Red rises from left to right, unless mirrored; a crop that left the image would show black."""
    train = imagenet("train", size=28)  # resized to 44x32: free to move by 16 and 4 pixels
    crops = torch.stack([train.image(4, epoch) for epoch in range(400)]).float()
    mirrored = crops[:, 0, :, 0].mean(1) > crops[:, 0, :, -1].mean(1)
    assert 150 < mirrored.sum() < 250  # standard deviation 10: fails once in 2 million
    tops = crops[:, 1, 0].mean(1).sort().values
    assert (tops.diff() > 4).sum() == 4  # every one of 5 vertical offsets occurs, 8 grey levels apart


def test_batches_come_in_the_order_given(tree):
    train = imagenet("train", size=32)
    order = torch.tensor([5, 0, 3, 1, 4])
    batches = list(image_batches(train, order, 2, epoch=3))
    assert [len(pixels) for pixels, _ in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([labels for _, labels in batches]), train.labels[order])
    assert torch.equal(torch.cat([p for p, _ in batches]), torch.stack([train.image(k, 3) for k in order.tolist()]))
    resumed = list(image_batches(train, order[2:], 2, epoch=3))
    assert torch.equal(resumed[0][0], batches[1][0])


def test_worker_processes_change_nothing(tree):
    train = imagenet("train", size=32)
    order = torch.tensor([2, 4, 1, 0])
    alone, shared = (list(image_batches(train, order, 2, workers=workers)) for workers in (0, 2))
    for (pixels, labels), (others, other_labels) in zip(alone, shared, strict=True):
        assert torch.equal(pixels, others)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"not an image", lambda data: b""]
)
def test_a_damaged_file_is_named(tree, damage, workers):
    path = tree / "train/n01/n01_2.JPEG"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"^Image .*train/n01/n01_2\.JPEG is damaged \(.*Unpack it anew"):
        list(image_batches(imagenet("train"), torch.arange(6), 3, workers=workers))


def test_bad_requests(tree):
    train = imagenet("train")
    with pytest.raises(InputError, match="split must be 'train' or 'val'; got 'test'"):
        imagenet("test")
    with pytest.raises(InputError, match=r"order must hold indices 0\.\.5; got 0\.\.6"):
        next(image_batches(train, torch.arange(7), 2))
    with pytest.raises(InputError, match="batch_size must be 1 or more"):
        next(image_batches(train, torch.arange(2), 0))
    (tree / "train" / "n03").mkdir()
    with pytest.raises(DataError, match=r"n03 holds no \.JPEG files"):
        imagenet("train")
