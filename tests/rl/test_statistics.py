"""Interquartile means and deviations inside of strata: known values, another implementation."""

import numpy as np
import pytest
from scipy import stats

from labkit.errors import InputError
from labkit.rl.statistics import interquartile_mean, mean_seed_deviation


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


def test_deviation_is_inside_of_strata():
    assert float(mean_seed_deviation([np.array([0.0, 2.0]), np.array([100.0, 104.0])])) == pytest.approx(
        (np.sqrt(2) + np.sqrt(8)) / 2
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interquartile_mean([]), "of nothing"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
