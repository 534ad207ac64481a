"""Generalised divisive normalisation: its formula, its limits, and that its parameters stay positive."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.mlvc.method.gdn import Gdn, lower_bound


def some(channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, 4, 5, generator=torch.Generator().manual_seed(0))


def set_to(layer: Gdn, beta: torch.Tensor, gamma: torch.Tensor) -> Gdn:
    with torch.no_grad():
        layer.beta_root.copy_(beta.sqrt())
        layer.gamma_root.copy_(gamma.sqrt())
    return layer


@pytest.mark.parametrize("inverse", [False, True])
def test_it_is_the_formula(inverse):
    """Row i of gamma belongs to output i: an asymmetric gamma would show a transpose."""
    beta, gamma = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([[0.1, 0.4, 0.0], [0.2, 0.3, 0.6], [0.0, 0.9, 0.1]])
    x, layer = some(), set_to(Gdn(3, inverse=inverse), beta, gamma)
    norm = torch.stack([beta[i] + sum(gamma[i, j] * x[:, j] ** 2 for j in range(3)) for i in range(3)], dim=1).sqrt()
    torch.testing.assert_close(layer(x), x * norm if inverse else x / norm, rtol=1e-5, atol=1e-5)


def test_without_gamma_it_is_the_identity():
    x = some()
    for inverse in (False, True):
        torch.testing.assert_close(set_to(Gdn(3, inverse), torch.ones(3), torch.zeros(3, 3))(x), x)


def test_igdn_is_not_the_inverse_of_gdn():
    x = some()
    assert (Gdn(3, inverse=True)(Gdn(3)(x)) - x).abs().max() > 0.01


def test_beta_and_gamma_stay_positive():
    """A loss that pulls both down with all force; without the bound they would be negative after a few steps."""
    layer = Gdn(3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (layer.beta.sum() + layer.gamma.sum()).backward()
        optimizer.step()
    assert (layer.beta > 0).all()
    assert (layer.gamma >= 0).all()
    assert torch.isfinite(layer(some())).all()


def test_gradients_are_those_of_finite_differences():
    layer = Gdn(2).double()
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))


def test_a_bounded_value_can_come_back():
    x = torch.tensor([0.0, 2.0], requires_grad=True)
    (-lower_bound(x, 1.0)).sum().backward()  # descent raises x
    assert x.grad.tolist() == [-1.0, -1.0]
    x.grad = None
    lower_bound(x, 1.0).sum().backward()  # descent would lower x further
    assert x.grad.tolist() == [0.0, 1.0]


def test_no_channels_are_refused():
    with pytest.raises(InputError, match="at least one channel"):
        Gdn(0)
