"""MATLAB's imresize: its kernel, its borders, published numbers."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from labkit.data.superresolution import photographs, psnr
from labkit.errors import InputError
from labkit.vision.bicubic import bicubic_resize, keys_kernel, resize_matrix


def test_kernel_is_keys_with_a_half():
    t = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, -0.5, 3.0], dtype=torch.float64)
    assert keys_kernel(t).tolist() == [1.0, 0.5625, 0.0, -0.0625, 0.0, 0.5625, 0.0]


@pytest.mark.parametrize(("before", "after"), [(40, 20), (41, 13), (20, 60), (7, 7), (5, 2)])
def test_rows_add_up_to_one_and_constants_stay(before, after):
    matrix = resize_matrix(before, after)
    assert matrix.shape == (after, before)
    torch.testing.assert_close(matrix.sum(1), torch.ones(after, dtype=torch.float64))
    image = torch.full((before, before), 37.0)
    torch.testing.assert_close(bicubic_resize(image, after, after), torch.full((after, after), 37.0))


def test_known_weights_of_halving():
    """imresize by 1/2: -3, -9, 29, 111, 111, 29, -9, -3 over 256, away from the border."""
    weights = resize_matrix(16, 8)[4] * 256
    assert [round(float(w), 6) for w in weights if w] == [-3, -9, 29, 111, 111, 29, -9, -3]


def test_borders_are_mirrored_with_the_edge_twice():
    image = torch.rand(12, 12, dtype=torch.float64)
    mirrored = torch.cat([image.flip(0), image, image.flip(0)])
    wide = bicubic_resize(mirrored, 18, 12)[6:12]
    torch.testing.assert_close(bicubic_resize(image, 6, 12), wide)


def test_interior_is_pytorchs_antialiased_bicubic():
    """An independent implementation; it treats borders in its own way."""
    image = torch.rand(1, 1, 48, 64, dtype=torch.float64)
    for size in ((24, 32), (16, 21), (96, 128)):
        wanted = F.interpolate(image, size=size, mode="bicubic", antialias=True)[0, 0]
        got = bicubic_resize(image, *size)[0, 0]
        torch.testing.assert_close(got[8:-8, 8:-8], wanted[8:-8, 8:-8], rtol=0, atol=1e-12)


@pytest.mark.skipif(
    not (Path(os.environ.get("LABKIT_DATA", "data")) / "sr" / "Set5").is_dir(), reason="Set5 is not in LABKIT_DATA"
)
@pytest.mark.parametrize(("scale", "published"), [(2, 33.67), (3, 30.40), (4, 28.43)])
def test_published_psnr_of_bicubic_on_set5(scale, published):
    """Check 10."""
    from labkit.papers.brelu.experiment.data import bicubic_pair

    values = [psnr(*bicubic_pair(image, scale), scale) for image in photographs("Set5").images]
    assert sum(values) / 5 == pytest.approx(published, abs=0.006)


def test_bad_input():
    with pytest.raises(InputError, match="1x1 or more; got 0x3"):
        bicubic_resize(torch.zeros(4, 4), 0, 3)
