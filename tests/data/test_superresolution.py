"""Photographs: real layout made by hand, luma, codecs, PSNR."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from labkit.data.superresolution import (
    COUNTS,
    crop_to_multiple,
    hevc_pair,
    jpeg_pair,
    luma,
    photographs,
    psnr,
)
from labkit.errors import DataError, InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    random = np.random.default_rng(0)
    for name, count in (("Set5", 5), ("T91", 91)):
        (tmp_path / "sr" / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (12, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "sr" / name / f"i{i:02d}.png")
    return tmp_path / "sr"


def test_luma_of_black_white_and_red():
    colours = torch.tensor([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], dtype=torch.uint8)
    torch.testing.assert_close(luma(colours), torch.tensor([[16.0, 235.0, 81.481]]))


def test_a_set_in_its_real_layout(folder):
    actual = photographs("Set5")
    assert len(actual) == 5
    assert actual.titles[0] == "i00"
    assert actual.images[0].shape == (12, 14)
    pixels = np.asarray(Image.open(folder / "Set5" / "i00.png")).astype(float)
    wanted = 16 + (65.481 * pixels[..., 0] + 128.553 * pixels[..., 1] + 24.966 * pixels[..., 2]) / 255
    np.testing.assert_allclose(actual.images[0].numpy(), wanted, rtol=1e-6)
    assert len(actual.first(2)) == 2


def test_grey_images_stay_grey_levels(folder):
    Image.fromarray(np.full((9, 9), 77, np.uint8)).save(folder / "Set5" / "i00.png")
    assert float(photographs("Set5").images[0].max()) == 77


def test_an_empty_file_is_left_out(folder):
    (folder / "T91" / "i15.png").write_bytes(b"")
    actual = photographs("T91")
    assert len(actual) == 90
    assert "i15" not in actual.titles


def test_missing_incomplete_and_damaged(folder):
    with pytest.raises(DataError, match="Set14 is not in LABKIT_DATA; 14 images are expected as sr/Set14"):
        photographs("Set14")
    (folder / "Set5" / "i00.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"i00\.png is damaged"):
        photographs("Set5")
    (folder / "Set5" / "i01.png").unlink()
    with pytest.raises(DataError, match="holds 4 images"):
        photographs("Set5")
    with pytest.raises(DataError, match="BSD200"):
        photographs("291")
    with pytest.raises(InputError, match="there is no set 'Set6'"):
        photographs("Set6")
    with pytest.raises(InputError, match="asked for the first 9"):
        photographs("bundled test").first(9)


def test_bundled_photographs_do_not_overlap():
    train, test = photographs("bundled train"), photographs("bundled test")
    assert [image.shape for image in train.images] == [(427, 448)] * 2
    assert [image.shape for image in test.images] == [(427, 192)] * 2
    assert set(COUNTS) == {"T91", "BSD200", "Set5", "Set14", "BSD68"}


def test_jpeg_loses_more_at_lower_quality():
    image = photographs("bundled test").images[0]
    values = [psnr(*jpeg_pair(image, quality)) for quality in (10, 20, 90)]
    assert values == sorted(values)
    assert 25 < values[1] < 40


def test_hevc_loses_more_at_higher_qp():
    pytest.importorskip("av")
    image = photographs("bundled test").images[0][:63, :64]
    values = [psnr(*hevc_pair(image, qp)) for qp in (22, 37)]
    assert values[0] > values[1] + 3
    assert hevc_pair(image, 30)[0].shape == (62, 64)


def test_psnr():
    image = torch.full((10, 10), 100.0)
    assert psnr(image + 1, image) == pytest.approx(10 * math.log10(255**2))
    noisy = image.clone()
    noisy[0] = 0
    assert psnr(noisy, image, shave=1) == math.inf
    assert crop_to_multiple(torch.zeros(13, 14), 4).shape == (12, 12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: psnr(torch.zeros(2, 2), torch.zeros(2, 2), 1), "nothing is left"),
        (lambda: jpeg_pair(torch.zeros(8, 8), 96), "between 1 and 95; got 96"),
        (lambda: hevc_pair(torch.zeros(8, 8), 52), "between 0 and 51"),
        (lambda: crop_to_multiple(torch.zeros(2, 9), 3), "smaller than the scale"),
        (lambda: luma(torch.zeros(3, 4, 5)), "colours last"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
