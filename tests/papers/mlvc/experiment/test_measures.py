"""Quality and BD-rate: values known in closed form, the sheet's table from published points, independent libraries."""

import math
import warnings

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.mlvc.experiment.bjontegaard import bd_rate
from labkit.papers.mlvc.experiment.measures import luma_psnr, ms_ssim, psnr, rgb_psnr

MLVC = {  # [official code: README]
    "B": ((0.0728, 0.1040, 0.1604, 0.2410), (33.08, 34.01, 35.11, 36.05)),
    "C": ((0.1322, 0.1981, 0.2933, 0.4143), (29.15, 30.42, 32.00, 33.49)),
    "D": ((0.1244, 0.1943, 0.2891, 0.4105), (29.34, 30.59, 32.23, 33.76)),
    "E": ((0.0260, 0.0338, 0.0509, 0.0732), (36.11, 37.12, 38.25, 38.92)),
    "UVG": ((0.0598, 0.0793, 0.1143, 0.1600), (35.26, 36.03, 37.21, 38.11)),
}
DVC = {  # [peer code]
    "B": ((0.0766, 0.1162, 0.1664, 0.2939), (31.83, 33.02, 34.11, 35.10)),
    "C": ((0.1339, 0.1934, 0.2727, 0.4123), (28.77, 29.95, 31.25, 32.51)),
    "D": ((0.1416, 0.2063, 0.2892, 0.4370), (28.41, 29.73, 31.17, 32.53)),
    "E": ((0.0368, 0.0499, 0.0710, 0.1215), (36.02, 37.53, 38.70, 39.80)),
    "UVG": ((0.0601, 0.0766, 0.1086, 0.1853, 0.2389), (34.55, 35.52, 36.69, 37.69, 38.27)),
}
KNOWN = {"B": -37.8, "C": -12.0, "D": -25.5, "E": -21.6, "UVG": -16.5}  # M-LVC against DVC, %
RATE, QUALITY = (0.1, 0.2, 0.4, 0.9), (30.0, 32.5, 34.9, 37.0)


@pytest.mark.parametrize("name", KNOWN)
def test_bd_rate_of_published_points(name):
    assert bd_rate(*DVC[name], *MLVC[name]) == pytest.approx(KNOWN[name], abs=0.5)  # points rounded to 1e-4 and .01


def test_bd_rate_of_curves_that_differ_by_a_factor():
    assert bd_rate(RATE, QUALITY, RATE, QUALITY) == pytest.approx(0, abs=1e-12)
    cheaper = [0.9 * rate for rate in RATE]
    assert bd_rate(RATE, QUALITY, cheaper, QUALITY) == pytest.approx(-10, abs=1e-9)
    there, back = bd_rate(RATE, QUALITY, cheaper, QUALITY) / 100, bd_rate(cheaper, QUALITY, RATE, QUALITY) / 100
    assert (1 + there) * (1 + back) == pytest.approx(1)
    assert bd_rate(RATE[::-1], QUALITY[::-1], cheaper, QUALITY) == pytest.approx(-10, abs=1e-9)  # any order


def test_bd_rate_without_common_quality_and_with_bad_points():
    assert math.isnan(bd_rate(RATE, QUALITY, RATE, [q + 20 for q in QUALITY]))
    with pytest.raises(InputError, match="two points or more"):
        bd_rate(RATE[:1], QUALITY[:1], RATE, QUALITY)
    with pytest.raises(InputError, match="rates must be positive"):
        bd_rate((0.0, *RATE[1:]), QUALITY, RATE, QUALITY)
    with pytest.raises(InputError, match="same quality"):
        bd_rate(RATE, (30.0, 30.0, 31.0, 32.0), RATE, QUALITY)


@pytest.mark.parametrize("name", KNOWN)
def test_bd_rate_agrees_with_an_independent_library(name):
    bjontegaard = pytest.importorskip("bjontegaard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where curves overlap little
        theirs = bjontegaard.bd_rate(
            *map(np.array, (*DVC[name], *MLVC[name])), method="pchip", min_overlap=0, require_matching_points=False
        )
    assert bd_rate(*DVC[name], *MLVC[name]) == pytest.approx(theirs, abs=1e-6)


def test_psnr_of_known_errors():
    grey = torch.full((2, 3, 8, 8), 100 / 255)
    assert float(psnr(torch.tensor(1.0))) == pytest.approx(48.1308, abs=1e-3)
    torch.testing.assert_close(rgb_psnr(grey, grey + 1 / 255), torch.full((2,), 48.1308), rtol=0, atol=1e-3)
    torch.testing.assert_close(luma_psnr(grey, grey + 1 / 255), torch.full((2,), 48.1308), rtol=0, atol=1e-3)
    assert float(rgb_psnr(grey, grey)[0]) == pytest.approx(100)
    green = grey.clone()
    green[:, 1] += 10 / 255
    assert float(rgb_psnr(grey, green)[0]) == pytest.approx(10 * math.log10(255**2 / (100 / 3)), abs=1e-3)
    assert float(luma_psnr(grey, green)[0]) == pytest.approx(10 * math.log10(255**2 / 5.87**2), abs=1e-3)


def test_quality_is_that_of_eight_bits():
    """What a screen shows: a quarter of a level is nothing, values beyond the range are clipped."""
    grey = torch.full((1, 3, 8, 8), 100 / 255)
    assert float(rgb_psnr(grey, grey + 0.25 / 255)[0]) == pytest.approx(100)
    assert float(rgb_psnr(torch.ones(1, 3, 8, 8), torch.full((1, 3, 8, 8), 1.5))[0]) == pytest.approx(100)


def test_the_mean_of_psnr_is_not_the_psnr_of_the_mean():
    grey = torch.full((2, 3, 8, 8), 100 / 255)
    off = grey + torch.tensor([1.0, 16.0])[:, None, None, None] / 255
    assert float(rgb_psnr(grey, off).mean()) > float(psnr(torch.tensor((1 + 256) / 2.0))) + 5


@pytest.mark.slow
def test_ms_ssim():
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 3, 176, 192, generator=generator)
    noisy = (frames + 0.1 * torch.randn(frames.shape, generator=generator)).clamp(0, 1)
    assert float(ms_ssim(frames, frames)[0]) == pytest.approx(1, abs=1e-5)
    assert 0.5 < float(ms_ssim(frames, noisy)[0]) < 0.995
    assert ms_ssim(frames[..., :160], noisy[..., :160]) is None
