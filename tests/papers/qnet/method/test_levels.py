import itertools

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.qnet.method.levels import (
    LEVELS,
    activation_levels,
    bits_needed,
    check_levels,
    is_binary,
    level_set,
    uniform_weight_levels,
)
from labkit.papers.qnet.method.soft_quantizer import SoftQuantizer


def test_the_sets_of_the_paper():
    assert LEVELS["W1"] == (-1, 1)
    assert LEVELS["W2"] == (-1, 0, 1)
    assert LEVELS["W3pm2"] == (-2, -1, 0, 1, 2)
    assert LEVELS["W3pm4"] == (-4, -2, -1, 0, 1, 2, 4)
    assert LEVELS["W3"] == (-3, -2, -1, 0, 1, 2, 3)
    assert LEVELS["A2"] == (0, 1, 2, 3)


@pytest.mark.parametrize("name", LEVELS)
def test_each_set_fits_its_bits(name):
    levels = LEVELS[name]
    assert bits_needed(levels) == int(name[1])
    assert all(low < high for low, high in itertools.pairwise(levels))
    assert levels[0] == (0 if name[0] == "A" else -levels[-1])  # weights symmetric, activations from zero


def test_official_coding_of_binary_weights_is_the_same_function():
    """[-1, 0, 1] with both thresholds at 0 equals {-1, 1}: soft, hard, and in every gradient."""
    x = torch.linspace(-2, 2, 81, dtype=torch.float64)

    def outputs(levels, thresholds):
        quantizer = SoftQuantizer(levels, thresholds, beta=1.7).double()
        quantizer.temperature.fill_(4.0)
        inputs = x.clone().requires_grad_()
        y = quantizer(inputs)
        gradients = torch.autograd.grad(y.square().sum(), [inputs, quantizer.alpha, quantizer.beta])
        return [y, *gradients, quantizer.eval()(x)]

    official = outputs((-1.0, 0.0, 1.0), (0.0, 0.0))
    for got, wanted in zip(outputs(LEVELS["W1"], (0.0,)), official, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_binary_is_told_from_one_bit():
    assert is_binary((-2.0, 2.0))
    assert not is_binary(LEVELS["A1"])


@pytest.mark.parametrize("levels", [(1.0,), (0.0, 0.0), (1.0, 0.0), (0.0, float("inf")), (0.0, float("nan"))])
def test_impossible_levels(levels):
    with pytest.raises(InputError, match="two or more finite numbers in ascending order; got"):
        check_levels(levels)


def test_unknown_names_and_bits():
    with pytest.raises(InputError, match="no level set 'w1'; there are W1, W2"):
        level_set("w1")
    assert level_set("W3pm4") is LEVELS["W3pm4"]
    for make in (uniform_weight_levels, activation_levels):
        with pytest.raises(InputError, match="at least one bit; got 0"):
            make(0)


def test_more_levels_than_a_byte_tells_apart():
    """Codes are bytes: level 256 would have the code of level 0."""
    assert len(check_levels(tuple(map(float, range(256))))) == 256
    with pytest.raises(InputError, match="tells 256 levels apart; got 257 levels"):
        check_levels(tuple(map(float, range(257))))
