"""What a symbol costs: probabilities that sum to one, known entropies, and the price of noise."""

import math

import pytest
import torch

from labkit.papers.mlvc.method.priors import FactorizedPrior, bits, gaussian_likelihood, noisy


def trained(channels: int = 3) -> FactorizedPrior:
    """A prior whose parameters are nowhere near their start."""
    torch.manual_seed(0)
    prior = FactorizedPrior(channels)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return prior.eval()


def test_probabilities_of_all_symbols_sum_to_one():
    prior = trained().double()
    symbols = torch.arange(-3000.0, 3001.0).double().expand(1, 3, 1, 6001)
    torch.testing.assert_close(prior.likelihood(symbols).sum((0, 2, 3)), torch.ones(3).double(), rtol=0, atol=1e-4)
    k = torch.arange(-400, 401).double()
    for sigma in (0.11, 0.5, 3.0, 64.0):
        total = gaussian_likelihood(k, torch.tensor(sigma).double()).sum()
        assert total.item() == pytest.approx(1, abs=1e-4)


def test_distributions_are_monotone():
    points = torch.linspace(-100, 100, 2001).expand(3, 1, 2001)
    assert (trained().logits(points).diff(dim=-1) > 0).all()


def test_a_narrow_gaussian_is_sure_of_zero():
    assert gaussian_likelihood(torch.zeros(1), torch.tensor([0.0])).item() > 0.9999


@pytest.mark.parametrize("sigma", [2.0, 8.0, 40.0])
def test_a_wide_gaussian_has_the_entropy_of_the_density(sigma):
    """Of a Gaussian whose variance is larger by the 1/12 of a unit box: log2(sqrt(2 pi e (sigma^2 + 1/12))).

    Without the 1/12 it is off by log2(e) / (24 sigma^2), 0.015 bit at sigma = 2.
    """
    k = torch.arange(-2000, 2001).double()
    p = gaussian_likelihood(k, torch.tensor(sigma).double()).clamp_min(1e-300)
    wanted = math.log2(2 * math.pi * math.e * (sigma**2 + 1 / 12)) / 2
    assert -(p * p.log2()).sum().item() == pytest.approx(wanted, abs=1e-4)


def test_far_symbols_keep_their_digits():
    """Phi(a) - Phi(b) of two numbers near 1 would be 0 at 6 sigma in float32."""
    y, sigma = torch.tensor([60.0]), torch.tensor([10.0])
    wide = gaussian_likelihood(y.double(), sigma.double())
    torch.testing.assert_close(gaussian_likelihood(y, sigma).double(), wide, rtol=1e-3, atol=0)
    assert gaussian_likelihood(y, sigma) == gaussian_likelihood(-y, sigma)


def test_the_rate_of_noisy_values_is_not_below_that_of_rounded_ones():
    """For a smooth density the noisy rate is the entropy of y + noise, at least that of round(y): the gap is what
    training pays. 20000 draws scatter by 0.01 bit; the tolerance is 0.05."""
    generator = torch.Generator().manual_seed(0)
    y = 3 * torch.randn(1, 20000, generator=generator)
    sigma = torch.full_like(y, 3.0)
    noisy_rate = bits(gaussian_likelihood(noisy(y, generator), sigma)) / y.numel()
    rounded_rate = bits(gaussian_likelihood(y.round(), sigma)) / y.numel()
    assert noisy_rate > rounded_rate - 0.05
    assert noisy_rate < rounded_rate + 0.05


def test_the_median_is_the_median():
    prior = trained()
    torch.testing.assert_close(prior.logits(prior.median[:, None, None]).flatten(), torch.zeros(3), rtol=0, atol=1e-5)
    y = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 5
    steps = prior.quantize(y) - prior.median[:, None, None]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-5)
    assert (prior.quantize(y) - y).abs().max() <= 0.5 + 1e-5


@pytest.mark.parametrize("probability", [1e-6, 0.25, 1 - 1e-6])
def test_quantiles(probability):
    prior = trained().double()
    at = prior.logits(prior.quantile(probability)[:, None, None])
    torch.testing.assert_close(torch.sigmoid(at).flatten(), torch.full((3,), probability).double(), rtol=1e-5, atol=0)


def test_bits_reach_parameters_even_where_a_likelihood_vanishes():
    """The floor of 1e-9 must not cut the gradient that would lift the likelihood above it."""
    sigma = torch.tensor([[0.2]], requires_grad=True)
    spent = bits(gaussian_likelihood(torch.tensor([[50.0]]), sigma))
    assert spent.item() == pytest.approx(-math.log2(1e-9), abs=1e-3)
    prior, y = trained(1), torch.full((1, 1, 1, 1), 30.0)
    bits(prior.likelihood(y)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in prior.parameters())


def test_compressai_agrees():
    """Its entropy bottleneck has the same layers under other names."""
    models = pytest.importorskip("compressai.entropy_models", reason="CompressAI wants NumPy 1 and torchvision")
    ours, theirs = trained(), models.EntropyBottleneck(3)
    with torch.no_grad():
        for k, (matrix, bias) in enumerate(zip(ours.matrices, ours.biases, strict=True)):
            getattr(theirs, f"_matrix{k}").copy_(matrix)
            getattr(theirs, f"_bias{k}").copy_(bias)
        for k, factor in enumerate(ours.factors):
            getattr(theirs, f"_factor{k}").copy_(factor)
    y = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(ours.likelihood(y), theirs._likelihood(y.transpose(0, 1).flatten(1)[:, None])[0])
