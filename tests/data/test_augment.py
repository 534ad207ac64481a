import pytest
import torch

from labkit.data import random_crop_flip
from labkit.errors import InputError


def one_by_one(images, padding, generator):
    """The same augmentation as a loop over images, written from its description."""
    n, channels, height, width = images.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    result = torch.empty_like(images)
    for k in range(n):
        canvas = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=images.dtype)
        canvas[:, padding : padding + height, padding : padding + width] = images[k]
        crop = canvas[:, top[k, 0] : top[k, 0] + height, left[k, 0] : left[k, 0] + width]
        result[k] = crop.flip(-1) if mirrored[k, 0] else crop
    return result


@pytest.mark.parametrize(
    ("shape", "dtype", "padding"),
    [((50, 3, 32, 32), torch.uint8, 4), ((9, 1, 5, 7), torch.float32, 2), ((4, 2, 6, 3), torch.float64, 0)],
)
def test_equals_the_loop(shape, dtype, padding):
    images = torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    fast = random_crop_flip(images, padding, torch.Generator().manual_seed(5))
    slow = one_by_one(images, padding, torch.Generator().manual_seed(5))
    assert torch.equal(fast, slow)
    assert fast.dtype == dtype


def test_draws_cover_every_offset_evenly_and_half_are_mirrored():
    """One bright pixel in the middle tells where the crop was: 25 places, each with probability 1/25."""
    images = torch.zeros(5000, 1, 5, 5)
    images[:, :, 2, 2] = 1
    places = random_crop_flip(images, 2, torch.Generator().manual_seed(0)).flatten(1).argmax(1)
    counts = places.bincount(minlength=25)
    assert counts.min() > 120  # expected 200, standard deviation 13.9: 50 chances of 4e-9 to fail
    assert counts.max() < 280

    ramp = torch.arange(4.0).expand(5000, 1, 1, 4)
    mirrored = random_crop_flip(ramp, 0, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 3
    assert 2300 < mirrored.sum() < 2700  # standard deviation 35: fails once in 60 million


def test_generator_is_the_only_source_of_chance():
    images = torch.rand(8, 3, 8, 8)
    generator = torch.Generator().manual_seed(1)
    first, second = random_crop_flip(images, 4, generator), random_crop_flip(images, 4, generator)
    assert not torch.equal(first, second)
    torch.manual_seed(99)
    assert torch.equal(first, random_crop_flip(images, 4, torch.Generator().manual_seed(1)))


def test_negative_padding():
    with pytest.raises(InputError, match="padding must be 0 or more pixels; got -1"):
        random_crop_flip(torch.zeros(1, 1, 4, 4), -1, torch.Generator())
