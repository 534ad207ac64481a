"""Check 1 of the sheet: the density of a squashed Gaussian, where the naive form fails and where it agrees."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from labkit.rl.gaussian import gaussian_log_prob, log_tanh_slope, tanh_gaussian


def test_stable_slope_equals_the_definition_where_that_can_be_computed():
    u = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    error = (log_tanh_slope(u) - torch.log(1 - torch.tanh(u) ** 2)).abs().max()
    assert float(error) < 5e-11  # the definition itself loses digits at +-6: 4.5e-12 measured in the sheet


def test_the_naive_form_is_minus_infinity_where_ours_is_finite():
    u = torch.linspace(-12, 12, 2001)
    naive = torch.log(1 - torch.tanh(u) ** 2)
    assert 400 < int(torch.isinf(naive).sum()) < 600  # the sheet counts about 500 of 2001
    ours = log_tanh_slope(u)
    assert bool(torch.isfinite(ours).all())
    far = u.abs() > 10
    torch.testing.assert_close(ours[far], 2 * math.log(2) - 2 * u[far].abs(), rtol=1e-5, atol=1e-6)  # its asymptote


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.2, 0.4)])
def test_density_integrates_to_one(mean, log_std):
    edges = torch.linspace(-1, 1, 400_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    u = torch.atanh(middle)[:, None]
    noise = (u - mean) / math.exp(log_std)
    density = tanh_gaussian(torch.full_like(u, mean), torch.full_like(u, log_std), noise)[1].exp()
    assert float((density * edges.diff()).sum()) == pytest.approx(1, abs=2e-4)


def test_against_torch_distributions():
    """Catches a forgotten sum, a mean over components, std taken for variance."""
    generator = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(3, 7, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    action, log_prob = tanh_gaussian(mean, log_std, noise)
    normal = Independent(Normal(mean, log_std.exp()), 1)
    squashed = TransformedDistribution(normal, [TanhTransform()])
    u = mean + log_std.exp() * noise
    torch.testing.assert_close(action, torch.tanh(u))
    torch.testing.assert_close(gaussian_log_prob(u, mean, log_std), normal.log_prob(u))
    inside = action.abs().amax(-1) < 0.999  # torch inverts tanh, which loses digits near 1
    torch.testing.assert_close(log_prob[inside], squashed.log_prob(action)[inside], rtol=1e-6, atol=1e-6)


def test_gradients_flow_through_the_sample_and_stay_finite():
    mean = torch.tensor([[12.0, -12.0]], requires_grad=True)
    log_std = torch.full((1, 2), 2.0, requires_grad=True)
    action, log_prob = tanh_gaussian(mean, log_std, torch.ones(1, 2))
    (log_prob.sum() - action.sum()).backward()
    assert bool(torch.isfinite(mean.grad).all())
    assert bool(torch.isfinite(log_std.grad).all())
    assert float(mean.grad[0, 0]) == pytest.approx(2.0, abs=1e-4)  # d(-log slope)/du = 2 tanh u
