"""Interquartile means and bootstrap: known values, other implementations, coverage."""

import numpy as np
import pytest
from scipy import stats

from labkit.errors import InputError
from labkit.rl.statistics import (
    bootstrap_difference,
    interquartile_mean,
    mean_seed_deviation,
    pooled_iqm,
    stratified_bootstrap,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0, 1, 2, 3], 1.5),
        ([5, 0, 100, 1, 2, 3, 4, -70], 2.5),  # middle four of eight: 1 2 3 4
        ([0, 10], 5.0),  # half of each
        ([7], 7.0),
        ([0, 1, 2, 3, 40], (0.75 * 1 + 2 + 0.75 * 3) / 2.5),
        ([0, 1, 2, 3, 4, 100], (0.5 * 1 + 2 + 3 + 0.5 * 4) / 3),
    ],
)
def test_interquartile_mean_by_hand(values, wanted):
    assert float(interquartile_mean(values)) == pytest.approx(wanted)


def test_interquartile_mean_is_scipys_trimmed_mean_where_that_is_defined():
    values = np.random.default_rng(0).normal(size=(5, 40))
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25, axis=1))
    np.testing.assert_allclose(interquartile_mean(values, dim=0), interquartile_mean(values.T))


def test_bootstrap_of_a_mean_agrees_with_the_standard_error():
    data = [np.random.default_rng(k).normal(k, 1, 200) for k in range(2)]

    def mean(strata):
        return np.mean([s.mean(-1) for s in strata], axis=0)

    found = stratified_bootstrap(data, mean, draws=4000)
    error = np.sqrt(sum(d.var() / 200 for d in data)) / 2
    assert found.value == pytest.approx(np.mean([d.mean() for d in data]))
    assert found.high - found.low == pytest.approx(
        2 * 1.96 * error, rel=0.06
    )  # strata stay apart: 1 between them adds nothing


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        data = [generator.normal(size=30), generator.normal(size=30)]
        found = stratified_bootstrap(data, pooled_iqm, draws=300, seed=trial)
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_pairs_share_their_draws():
    """Methods that differ by a constant on every seed: the paired interval has no width, the other one has."""
    base = [np.random.default_rng(k).normal(size=20) for k in range(2)]
    better = [b + 0.3 for b in base]
    paired = bootstrap_difference(better, base, pooled_iqm)
    assert (paired.value, paired.low, paired.high) == pytest.approx((0.3, 0.3, 0.3))
    apart = bootstrap_difference(better, base, pooled_iqm, paired=False)
    assert apart.high - apart.low > 0.5


def test_deviation_is_inside_of_strata():
    assert float(mean_seed_deviation([np.array([0.0, 2.0]), np.array([100.0, 104.0])])) == pytest.approx(
        (np.sqrt(2) + np.sqrt(8)) / 2
    )


def test_draws_come_from_the_seed():
    data = [np.arange(9.0)]
    first, again, other = (stratified_bootstrap(data, pooled_iqm, 200, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 20), (50, 100)])
def test_wilson_against_scipy(successes, trials):
    wanted = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    found = wilson_interval(successes, trials)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interquartile_mean([]), "of nothing"),
        (lambda: stratified_bootstrap([], pooled_iqm), "list of strata"),
        (lambda: stratified_bootstrap([[1.0]], pooled_iqm, level=2.0), "between 0 and 1"),
        (lambda: bootstrap_difference([[1.0, 2.0]], [[1.0]], pooled_iqm), "equal numbers"),
        (lambda: wilson_interval(3, 2), "3 of 2"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
