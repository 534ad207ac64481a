"""Members with a learned variance: the loss against the normal law, its gradient by hand, a known noise found again."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from labkit.papers.pombu.experiment import gaussian_members as g
from labkit.papers.pombu.method import ensemble as e


def numbers(count: int, *shape: int, seed: int = 0) -> tuple[Tensor, ...]:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).unbind()


# -- the loss ---------------------------------------------------------------------------------------------------------


def check_likelihood(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Twice the negative log-likelihood of torch's own normal law, up to log 2 pi; the gradients are those by hand."""
    mean, log_variance, target = (x.requires_grad_() for x in numbers(3, 4, 5))
    actual = loss(mean, log_variance, target)
    law = torch.distributions.Normal(mean, (log_variance / 2).exp())
    torch.testing.assert_close(actual, -2 * law.log_prob(target) - math.log(2 * math.pi), rtol=1e-12, atol=1e-12)
    by_mean, by_log_variance = torch.autograd.grad(actual.sum(), (mean, log_variance))
    off, precision = target - mean, (-log_variance).exp()
    torch.testing.assert_close(by_mean, -2 * off * precision, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(by_log_variance, 1 - off.square() * precision, rtol=1e-12, atol=1e-12)


def test_the_loss():
    check_likelihood(g.gaussian_loss)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda mean, log_variance, target: (target - mean).square(),
        lambda mean, log_variance, target: (target - mean).square() * (-log_variance).exp(),
        lambda mean, log_variance, target: (target - mean).square() * (-log_variance / 2).exp() + log_variance,
        lambda mean, log_variance, target: (target - mean).square() * (-log_variance).exp() + log_variance / 2,
        lambda mean, log_variance, target: (target - mean).square() * log_variance.exp() - log_variance,
    ],
)
def test_the_check_rejects(wrong):
    with pytest.raises(AssertionError):
        check_likelihood(wrong)


def test_the_variance_stays_between_its_bounds_and_moves_freely_between_them():
    lowest, highest = torch.full((1, 1, 1), -10.0), torch.full((1, 1, 1), 0.5)
    raw = torch.tensor([-1e4, -30.0, -10.0, -5.0, -4.0, 0.5, 30.0, 1e4]).view(1, -1, 1).requires_grad_()
    bent = g.soft_bound(raw, lowest, highest)
    values = bent.flatten().tolist()
    assert values == sorted(values)
    assert values[0] == pytest.approx(-10, abs=1e-5)
    assert values[-1] == pytest.approx(0.5, abs=1e-3)
    assert values[3:5] == pytest.approx([-5, -4], abs=0.02)
    assert values[5] == pytest.approx(0.5 - math.log(2), abs=1e-3)  # softplus(0) below the upper bound
    (slope,) = torch.autograd.grad(bent.sum(), raw)
    assert (slope[0, 1:-1] > 0).all()  # a clamp would have lost the gradient
    assert slope[0, 3:5, 0].tolist() == pytest.approx([1, 1], abs=0.02)


def test_every_copy_has_its_own_loss_and_the_bounds_their_price():
    net = g.StackedGaussianMLP(2, (3, 8, 2), generators=[torch.Generator().manual_seed(i) for i in range(2)])
    x, y = torch.randn(2, 2, 6, 3, generator=torch.Generator().manual_seed(3))
    y = y[..., :2]
    mean, log_variance = net.distribution(x)
    assert mean.shape == log_variance.shape == (2, 6, 2)
    assert torch.equal(net(x), mean)
    plain = g.gaussian_loss(mean, log_variance, y).mean((1, 2))
    torch.testing.assert_close(net.loss(x, y), plain + 0.01 * 2 * 10.5)
    net.loss(x, y)[0].backward()
    assert all(not p.grad[1].any() for p in net.parameters())
    assert all(p.grad[0].any() for p in net.parameters())
    with torch.no_grad():
        net.highest.fill_(3.0)
    before = net.body.layers[0].weight.clone()
    net.initialize([torch.Generator().manual_seed(i + 7) for i in range(2)])
    assert (net.highest == 0.5).all()
    assert not torch.equal(net.body.layers[0].weight, before)


# -- in the ensemble --------------------------------------------------------------------------------------------------


def noisy_line(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A linear system with noise of sd .1 in one component; in the other .4 where the action is positive, else .05."""
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(1, rows, 2, generator=generator)
    action = torch.rand(1, rows, 1, generator=generator) * 2 - 1
    spread = torch.cat([torch.full_like(action, 0.1), torch.where(action > 0, 0.4, 0.05)], -1)
    clean = state @ torch.tensor([[0.9, 0.2], [-0.1, 0.8]]) + action * torch.tensor([0.5, -0.3])
    return state, action, clean + spread * torch.randn(1, rows, 2, generator=generator), clean


@pytest.fixture(scope="module")
def fitted() -> g.GaussianEnsemble:
    gaussians = g.GaussianEnsemble(1, 2, 2, 1, (32,), seeds=[3])
    state, action, after, _ = noisy_line(3000)
    inputs, change = torch.cat([state, action], -1), after - state
    gaussians.normalize_by(inputs.mean(1), inputs.std(1), change.mean(1), change.std(1))
    splits, generator = e.TrajectorySplits(1, 2), torch.Generator().manual_seed(1)
    splits.add(30, 100, generator)
    settings = e.FitSettings(2e-2, 1e-3, batch=200, by_epoch=False, rounds=500, patience=500, max_norm=10.0)
    e.fit(gaussians, state, action, after, splits, generator, settings)
    return gaussians


@pytest.mark.slow
def test_a_known_noise_is_found_again(fitted):
    """In units of the truth .1, .4 and .05 the members find 1.00 +- .02, 1.04 +- .02 and 1.10 +- .17 over 24 seeds."""
    state, action, _, clean = noisy_line(400)
    expected, std = fitted.outcome(state, action)
    assert torch.equal(expected, fitted(state, action))
    assert expected.shape == std.shape == (1, 2, 400, 2)
    assert (expected - clean[:, None]).abs().mean() < 0.05
    loud, quiet = action[0, :, 0] > 0.2, action[0, :, 0] < -0.2
    for member in range(2):
        assert std[0, member, :, 0].mean().item() == pytest.approx(0.1, rel=0.25)
        assert std[0, member, loud, 1].mean().item() == pytest.approx(0.4, rel=0.25)
        assert 0.03 < std[0, member, quiet, 1].mean().item() < 0.2


def test_gaussian_members_begin_anew_like_the_others():
    gaussians = g.GaussianEnsemble(1, 2, 2, 1, (8,), seeds=[3])
    first = {name: value.clone() for name, value in gaussians.state_dict().items()}
    with torch.no_grad():
        for parameter in gaussians.parameters():
            parameter.add_(1.0)
    gaussians.freeze()  # nothing to multiply out: rollouts go on using the network itself
    assert torch.equal(gaussians(torch.zeros(1, 1, 2), torch.zeros(1, 1, 1)), gaussians.outcome(*zeros())[0])
    gaussians.initialize([3])
    assert all(torch.equal(value, first[name]) for name, value in gaussians.state_dict().items())


def zeros() -> tuple[Tensor, Tensor]:
    return torch.zeros(1, 1, 2), torch.zeros(1, 1, 1)
