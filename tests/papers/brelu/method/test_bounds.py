"""Bounds: known values of the normal distribution first, then the streaming statistic against the whole data."""

import math

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.brelu.method.bounds import (
    RANKS,
    RULES,
    ActivationStatistics,
    best_bound,
    gaussian_error,
    laplace_error,
    order_statistic,
)
from labkit.papers.brelu.teaching import checks
from labkit.papers.brelu.teaching.exercises import mean_order_statistic


@pytest.fixture(scope="module")
def half_normal() -> torch.Tensor:
    return torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).relu()


def statistics_of(*batches: torch.Tensor) -> ActivationStatistics:
    statistics = ActivationStatistics()
    for batch in batches:
        statistics.add(batch)
    return statistics


@pytest.mark.parametrize(("rule", "sigmas"), [("3sigma", 3.000), ("3.5sigma", 3.503)])
def test_ranks_are_3_and_3_5_sigma_of_a_normal(half_normal, rule, sigmas):
    assert order_statistic(half_normal, RANKS[rule]) == pytest.approx(sigmas, rel=0.02)
    assert statistics_of(*half_normal.split(100_000)).bound(rule) == pytest.approx(sigmas, rel=0.02)


@pytest.mark.parametrize(
    ("levels", "k"), [(255, 4.215), (127, 3.921), (63, 3.608), (31, 3.271), (15, 2.902), (7, 2.483), (3, 1.973)]
)
def test_best_bound_of_a_normal(levels, k):
    assert best_bound(gaussian_error, levels) == pytest.approx(k, abs=2e-3)


def test_what_a_wrong_bound_costs():
    best = gaussian_error(3.921, 127)
    assert [gaussian_error(k, 127) / best for k in (3.0, 3.5, 6.0)] == pytest.approx([5.1, 1.35, 2.1], rel=0.03)
    best = gaussian_error(2.902, 15)
    assert [gaussian_error(k, 15) / best for k in (3.0, 3.5, 6.0)] == pytest.approx([1.01, 1.24, 3.6], rel=0.03)


def test_exponential_tails_move_the_best_bound():
    assert best_bound(laplace_error, 127) == pytest.approx(9.9, abs=0.15)


def test_gaussian_error_is_the_error_of_samples(half_normal):
    for k, levels in ((2.0, 15), (3.5, 31)):
        clipped = half_normal.double().clamp(max=k)
        rounded = torch.floor(clipped * levels / k + 0.5) * k / levels
        measured = float((half_normal.double() - rounded).square().mean())
        assert measured == pytest.approx(gaussian_error(k, levels), rel=0.06)  # over 24 seeds 0.000 with 0.011
        assert statistics_of(half_normal).error(k, levels) == pytest.approx(measured, rel=0.03)


def test_rounding_a_uniform_variable_costs_step_squared_over_12():
    x = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    rounded = torch.floor(x * 15 + 0.5) / 15
    assert float((x - rounded).square().mean()) == pytest.approx((1 / 15) ** 2 / 12, rel=1e-3)


def test_streaming_equals_the_whole(half_normal):
    """Batches of very different ranges: the histogram has to grow."""
    batches = [half_normal[:1000] * 0.01, half_normal[1000:3000], half_normal[3000:9000] * 37, torch.zeros(50)]
    whole = torch.cat(batches)
    statistics = statistics_of(*batches)
    assert statistics.count == len(whole)
    assert statistics.bound("max") == pytest.approx(float(whole.max()))
    for percent in (90.0, 95.0, 99.0):
        wanted = float(np.percentile(whole.numpy(), percent, method="inverted_cdf"))  # upper end of the bin it lies in
        assert statistics.percentile(percent) == pytest.approx(wanted, abs=1.01 * statistics.limit / 2048)
    assert statistics.bound("mean+3sigma") == pytest.approx(float(whole.mean() + 3 * whole.std(correction=0)), rel=1e-4)
    assert statistics.clip_rate(5.0) == pytest.approx(float((whole > 5).double().mean()), abs=2e-3)
    assert statistics.clip_error(5.0) == pytest.approx(
        float((whole - 5).clamp(min=0).square().double().mean()), rel=5e-3
    )
    assert statistics.histogram.sum() + statistics.zeros == len(whole)


def test_mse_rule_finds_the_minimum(half_normal):
    assert statistics_of(half_normal).bound("mse", 15) == pytest.approx(2.902, abs=0.1)
    assert statistics_of(half_normal).bound("mse", 127) == pytest.approx(
        3.921, abs=0.4
    )  # over 24 seeds 0.006 with 0.055


def test_kl_rule_drops_a_lone_outlier_that_max_keeps(half_normal):
    with_outlier = torch.cat([half_normal, torch.tensor([200.0])])
    statistics = statistics_of(with_outlier)
    assert statistics.bound("max") == 200
    assert statistics.bound("kl", 127) < 20


def test_order_statistic_and_its_mutants():
    checks.check_order_statistic(mean_order_statistic)
    values = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])
    assert [order_statistic(values, rank) for rank in (0.0, 0.2, 0.5, 0.9, 1.0)] == [1, 2, 3, 5, 5]


def test_every_rule_gives_a_positive_bound(half_normal):
    statistics = statistics_of(half_normal[:5000])
    assert all(0 < statistics.bound(rule) <= 2 * statistics.maximum for rule in RULES)


@pytest.mark.parametrize(
    ("rule", "statistics", "message"),
    [
        ("sigma", statistics_of(torch.ones(3)), "there is no bound rule 'sigma'"),
        ("p0", statistics_of(torch.ones(3)), "no bound rule"),
        ("max", ActivationStatistics(), "run calibration images"),
        ("3sigma", statistics_of(torch.zeros(10)), "it is dead"),
    ],
)
def test_bad_input(rule, statistics, message):
    with pytest.raises(InputError, match=message):
        statistics.bound(rule)


def test_diverged_activations_are_named():
    with pytest.raises(InputError, match="diverged"):
        statistics_of(torch.tensor([1.0, math.inf]))
