"""Intervals: coverage, known values, pairs against independent samples, strata."""

import math

import numpy as np
import pytest
from scipy import stats

from labkit.errors import InputError
from labkit.metrics.intervals import bootstrap, bootstrap_band, bootstrap_of, prediction, student, wilson
from labkit.rl.statistics import pooled_iqm

RANDOM = np.random.default_rng(7)


def difference(a, b, axis):
    return a.mean(axis) - b.mean(axis)


def test_it_covers_the_mean_as_often_as_it_says():
    """80 % intervals of 30 exponential values, 300 times. Their true coverage is near .77 (skewed, small), the standard
    error .024: outside of .66 to .88 once in 100,000 seeds."""
    random = np.random.default_rng(1)
    covered = 0
    for k in range(300):
        actual = bootstrap([random.exponential(size=30)], level=0.8, draws=300, seed=k)
        covered += actual.low <= 1 <= actual.high
    assert 0.66 < covered / 300 < 0.88


def test_the_width_is_that_of_the_standard_error_and_strata_stay_apart():
    """The unit between the two strata is no noise: pooled, it would double the width."""
    data = [np.random.default_rng(k).normal(k, 1, 200) for k in range(2)]
    actual = bootstrap(data, lambda a, b, axis: (a.mean(axis) + b.mean(axis)) / 2)
    error = math.sqrt(sum(each.var() / 200 for each in data)) / 2
    assert actual.value == pytest.approx(np.mean([each.mean() for each in data]))
    assert actual.high - actual.low == pytest.approx(2 * 1.96 * error, rel=0.1)  # 4,000 draws: quantiles within 3 %
    assert actual.replicates == 200


def test_columns_of_a_sample_are_drawn_together():
    """Rivals that differ by a constant on every replicate: paired there is no width, independent there is."""
    base = RANDOM.normal(size=20)
    paired = bootstrap([np.stack([base + 0.3, base])], lambda rows, axis: rows[0].mean(axis) - rows[1].mean(axis))
    assert paired == pytest.approx((0.3, 0.3, 0.3, 20))
    apart = bootstrap([base + 0.3, base], difference)
    assert apart.high - apart.low > 0.5
    assert apart.value == pytest.approx(0.3)


def test_a_statistic_of_all_strata_together():
    layouts = [RANDOM.uniform(size=10), RANDOM.uniform(size=10)]
    actual = bootstrap(layouts, lambda *parts, axis: pooled_iqm(parts))
    assert actual.value == pytest.approx(stats.trim_mean(np.concatenate(layouts), 0.25))
    assert actual.low < actual.value < actual.high


def test_it_is_reproducible_and_the_level_sets_the_width():
    values = RANDOM.normal(size=12)
    first = bootstrap([values], seed=3)
    assert first == bootstrap([values], seed=3)
    assert first != bootstrap([values], seed=4)
    assert first.low < bootstrap([values], level=0.5).low < first.value < first.high


def test_one_replicate_says_nothing_of_the_spread_but_may_stand_beside_more():
    alone = bootstrap([[2.0]])
    assert (alone.value, alone.replicates) == (2.0, 1)
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    beside = bootstrap([[1.0], [2.0, 4.0]], difference)
    assert beside == pytest.approx((-2.0, -3.0, -1.0, 2))


def test_a_band_holds_the_intervals_point_by_point_and_a_general_measure_is_the_mean_again():
    curves = RANDOM.uniform(size=(9, 4))
    band = bootstrap_band(curves, draws=2000, seed=5)
    for k in range(4):
        np.testing.assert_allclose(band[:, k], bootstrap([curves[:, k]], draws=2000, seed=5)[1:3], atol=1e-12)
    general = bootstrap_of(lambda some: float(np.mean(some)), list(curves[:, 0]), draws=2000, seed=5)
    np.testing.assert_allclose(general, bootstrap([curves[:, 0]], draws=2000, seed=5), atol=1e-12)
    np.testing.assert_array_equal(bootstrap_band(curves[:1]), np.repeat(curves[:1], 2, axis=0))


def test_draws_on_which_a_measure_is_not_defined_are_left_out():
    def share(some):
        return some.count("seen") / some.count("there") if "there" in some else math.nan

    actual = bootstrap_of(share, ["seen", "there"], draws=200)
    assert np.isfinite(actual[:3]).all()


def test_students_interval_is_scipys():
    values = [1.0, 2.5, 2.0, 4.0]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert student(values) == pytest.approx((2.375, expected.low, expected.high, 4))
    assert student([3.0])[0] == 3.0
    assert math.isnan(student([3.0]).low)


def test_a_prediction_interval_holds_one_more_value_as_often_as_it_says():
    """2,000 draws, a share of .9: the standard error is .0067, six of them are allowed."""
    draws = stats.norm.rvs(size=(2000, 4), random_state=0)
    inside = 0
    for *earlier, new in draws.tolist():
        low, high = prediction(earlier, 0.9)
        inside += low <= new <= high
    assert 0.86 < inside / len(draws) < 0.94
    assert prediction([1.0]) == (-math.inf, math.inf)


def test_wilsons_interval_by_hand():
    """Both ends solve (p - rate)^2 = z^2 p (1 - p) / n; none of ten still allows z^2 / (n + z^2)."""
    z2 = stats.norm.ppf(0.975) ** 2
    assert wilson(0, 10) == pytest.approx((0.0, 0.0, z2 / (10 + z2), 10))
    actual = wilson(3, 20)
    for end in (actual.low, actual.high):
        assert (end - 0.15) ** 2 == pytest.approx(z2 * end * (1 - end) / 20)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap([]), "one replicate or more"),
        (lambda: bootstrap([[1.0], []], difference), "one replicate or more"),
        (lambda: bootstrap([[1.0, 2.0]], level=2.0), "level must lie between 0 and 1"),
        (lambda: bootstrap([[1.0, 2.0]], draws=0), "draws must be at least 1"),
        (lambda: bootstrap_band(np.zeros((0, 3))), "at least one"),
        (lambda: student([]), "one value or more"),
        (lambda: wilson(3, 2), "3 of 2"),
    ],
)
def test_it_refuses(call, words):
    with pytest.raises(InputError, match=words):
        call()
