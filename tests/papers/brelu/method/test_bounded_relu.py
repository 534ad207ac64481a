"""The bounded ReLU: values, slopes, rounding, a bound that learns."""

import copy
import math

import pytest
import torch
from torch import nn

from labkit.errors import InputError
from labkit.papers.brelu.method.bounded_relu import BoundedReLU, clip, round_to_levels, set_rounding


@pytest.mark.parametrize("learned", [False, True])
def test_values_and_slopes(learned):
    x = torch.tensor([-3.0, -0.1, 0.1, 1.0, 2.4, 2.6, 9.0], dtype=torch.float64, requires_grad=True)
    y = clip(x, torch.tensor(2.5, dtype=torch.float64, requires_grad=learned))
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.tolist() == [0.0, 0.0, 0.1, 1.0, 2.4, 2.5, 2.5]
    assert slope.tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_without_a_bound_it_is_a_relu():
    x = torch.randn(1000)
    assert torch.equal(BoundedReLU()(x), x.relu())
    rounding = BoundedReLU()
    rounding.rounding = True
    assert torch.equal(rounding(x), x.relu())


@pytest.mark.parametrize("levels", [1, 3, 15, 127])
def test_rounding_gives_levels_and_one_values(levels):
    relu = BoundedReLU(0.8, levels)
    set_rounding(relu, True)
    y = relu(torch.linspace(-1, 2, 10_000))
    assert len(y.unique()) == levels + 1
    assert float(y.max()) == pytest.approx(0.8)


def test_halves_round_up_as_the_shift_does():
    y = torch.tensor([0.5, 1.5, 2.5, 2.4999])
    assert round_to_levels(y, 10.0, 10).tolist() == [1, 2, 3, 2]


def test_gradients_go_straight_through_the_rounding():
    x = torch.tensor([0.31, 0.9], requires_grad=True)
    relu = BoundedReLU(0.8, 3)
    relu.rounding = True
    (slope,) = torch.autograd.grad(relu(x).sum(), x)
    assert slope.tolist() == [1, 0]


def test_a_bound_can_learn():
    """PACT: what lies above pulls at the bound, one unit each. Against finite differences."""
    x = torch.linspace(-1, 3, 41, dtype=torch.float64)
    bound = torch.tensor(1.234, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(clip(x, bound).sum(), bound)
    h = 1e-6
    measured = (x.clamp(0, 1.234 + h).sum() - x.clamp(0, 1.234 - h).sum()) / (2 * h)
    assert float(slope) == pytest.approx(float(measured), rel=1e-6)


def test_the_bound_is_saved_with_the_weights():
    other = BoundedReLU()
    other.load_state_dict(BoundedReLU(0.25).state_dict())
    assert float(other.bound) == 0.25


@pytest.mark.parametrize(("bound", "levels"), [(0.0, 127), (-1.0, 127), (math.nan, 127), (1.0, 0)])
def test_bad_input(bound, levels):
    with pytest.raises(InputError, match="must be"):
        BoundedReLU(bound, levels)


def test_no_bound_is_kept_as_a_finite_number():
    """A file with an infinite number in it would be refused as a training that diverged."""
    network = nn.Sequential(BoundedReLU(), BoundedReLU(2.5))
    state = network.state_dict()
    assert [float(state[f"{i}.bound"]) for i in (0, 1)] == [0, 2.5]
    again = nn.Sequential(BoundedReLU(1.0), BoundedReLU(1.0))
    again.load_state_dict(state)
    assert [float(relu.bound) for relu in again] == [math.inf, 2.5]
    assert float(network[0].bound) == math.inf
    assert float(copy.deepcopy(network).state_dict()["0.bound"]) == 0
