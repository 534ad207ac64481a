import math

import pytest
import torch
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.experiment.diagnostics import (
    gradient_agreement,
    learning_fraction,
    slope,
)
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.soft_quantizer import SoftQuantizer, set_temperature, wide_bell

UNIFORM = torch.linspace(-1, 1, 100_001, dtype=torch.float64)


def quantizer(temperature, **options):
    layer = SoftQuantizer(LEVELS["W2"], (-0.5, 0.5), beta=1.0, alpha=0.7, **options).double()
    set_temperature(layer, temperature)
    return layer


def test_slope_is_the_paper_formula():
    g = torch.sigmoid(8 * (UNIFORM[:, None] - torch.tensor([-0.5, 0.5])))
    torch.testing.assert_close(slope(quantizer(8.0), UNIFORM), 0.7 * 8 * (g * (1 - g)).sum(1))


@pytest.mark.parametrize("temperature", [100.0, 1000.0])
def test_who_still_learns(temperature):
    """Two bumps, each 4 artanh(sqrt(0.99)) / T wide at one percent, on values that are uniform over a length of 2."""
    width = 4 * math.atanh(math.sqrt(0.99)) / temperature
    assert width == pytest.approx(11.97 / temperature, rel=1e-3)
    assert learning_fraction(quantizer(temperature), UNIFORM) == pytest.approx(2 * width / 2, rel=0.01)
    half = learning_fraction(quantizer(temperature), UNIFORM, share=0.5)
    assert half == pytest.approx(3.5255 / temperature, rel=0.01)


def test_a_wide_bell_keeps_everybody_learning():
    frozen, awake = quantizer(1000.0), quantizer(1000.0, backward=wide_bell(5.0))
    assert learning_fraction(frozen, UNIFORM) < 0.02
    assert learning_fraction(awake, UNIFORM) == 1


def test_slope_is_soft_in_eval_mode_and_leaves_no_trace():
    layer = quantizer(8.0).eval()
    torch.testing.assert_close(slope(layer, UNIFORM), slope(layer.train(), UNIFORM))
    assert layer.forced_mode is None
    assert layer.alpha.grad is None


class TestGradientAgreement:
    def test_known_directions(self):
        w = nn.Parameter(torch.zeros(2))
        batches = [torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]), torch.tensor([5.0, 0.0])]
        got = gradient_agreement(lambda batch: (w * batch).sum(), batches, [w])
        assert got.norm == pytest.approx(4)
        assert got.cosine == pytest.approx(1 / 3)  # of three pairs one is parallel, two are orthogonal

    def test_one_batch_has_no_cosine(self):
        w = nn.Parameter(torch.zeros(2))
        with pytest.raises(InputError, match="two batches or more; got 1"):
            gradient_agreement(lambda batch: (w * batch).sum(), [torch.ones(2)], [w])


def test_share():
    with pytest.raises(InputError, match=r"between 0 and 1; got 1\.0"):
        learning_fraction(quantizer(5.0), UNIFORM, share=1.0)
