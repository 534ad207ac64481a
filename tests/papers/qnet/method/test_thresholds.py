import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from labkit.errors import InputError
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.thresholds import initialize, kmeans_centroids, kmeans_thresholds


def gaussian(count=20_000):
    """Evenly spaced quantiles of N(0, 1): a Gaussian sample without noise."""
    return torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(count, dtype=torch.float64) + 0.5) / count)


@pytest.mark.parametrize("clusters", [2, 3, 5, 7, 16])
@pytest.mark.parametrize("kind", ["mixture", "heavy tail", "relu"])
def test_as_good_as_scikit_learn(clusters, kind):
    """Not worse than the best of ten of theirs."""
    generator = torch.Generator().manual_seed(clusters)
    noise = torch.randn(2200, generator=generator)
    samples = {
        "mixture": torch.cat([noise[:1500], 3 + 0.3 * noise[1500:]]),
        "heavy tail": noise.exp(),
        "relu": (noise - 0.5).relu(),
    }[kind]
    centroids = kmeans_centroids(samples, clusters)
    theirs = KMeans(clusters, n_init=10, random_state=0, tol=0, max_iter=1000).fit(samples[:, None].numpy())
    inertia = (samples.double()[:, None] - centroids).square().min(1).values.sum().item()
    assert inertia <= theirs.inertia_ * 1.001


def test_scikit_learn_finds_nothing_left_to_move():
    """Lloyd's algorithm started at our centroids stays there."""
    samples = torch.randn(4000, generator=torch.Generator().manual_seed(0)).exp().double()
    ours = kmeans_centroids(samples, 4)
    fitted = KMeans(4, init=ours[:, None].numpy(), n_init=1, tol=0, max_iter=1000).fit(samples[:, None].numpy())
    np.testing.assert_allclose(ours.numpy(), np.sort(fitted.cluster_centers_[:, 0]), rtol=1e-9)


@pytest.mark.parametrize(
    ("count", "thresholds", "levels"),
    [(2, [0.0], [0.7979]), (3, [0.6120], [1.2240]), (4, [0.0, 0.9816], [0.4528, 1.5104]), (8, [0, 0.5005], [0.2451])],
)
def test_lloyd_max_of_a_gaussian(count, thresholds, levels):
    """The tables of Max (1960)."""
    upper = kmeans_thresholds(gaussian(), count)[(count - 1) // 2 :]
    np.testing.assert_allclose(upper[: len(thresholds)], thresholds, atol=3e-3)
    positive = kmeans_centroids(gaussian(), count)[(count + 1) // 2 :]
    np.testing.assert_allclose(positive[: len(levels)], levels, atol=3e-3)


def test_large_inputs_are_thinned_evenly():
    big = gaussian(200_000)[torch.randperm(200_000, generator=torch.Generator().manual_seed(0))]
    np.testing.assert_allclose(kmeans_thresholds(big, 3), kmeans_thresholds(gaussian(), 3), atol=1e-3)


class TestInitialize:
    def test_range_spans_one_and_a_quarter_of_the_levels(self):
        """beta = 5 p / (4 q)."""
        beta, thresholds = initialize(0.02 * gaussian(), LEVELS["W3pm4"])
        assert (beta * 0.02 * gaussian()).abs().max().item() == pytest.approx(1.25 * 4)
        assert len(thresholds) == 6
        np.testing.assert_allclose(thresholds, -thresholds.flip(0), atol=1e-2)

    def test_thresholds_do_not_depend_on_the_scale_of_the_samples(self):
        for init in ("range", "trimmed", "mse"):
            beta, thresholds = initialize(gaussian(), LEVELS["W2"], init)
            small_beta, small_thresholds = initialize(1e-3 * gaussian(), LEVELS["W2"], init)
            assert small_beta == pytest.approx(1e3 * beta)
            torch.testing.assert_close(small_thresholds, thresholds)

    def test_binary_weights_switch_at_zero_whatever_the_samples(self):
        _, thresholds = initialize(gaussian() + 0.3, LEVELS["W1"])
        assert thresholds.tolist() == [0]

    def test_trimming_keeps_an_outlier_from_ruling(self):
        """One activation a hundred times the rest: by range all others fall below the first level."""
        samples = torch.cat([gaussian().relu(), torch.tensor([300.0])])
        by_range, _ = initialize(samples, LEVELS["A2"], "range")
        trimmed, thresholds = initialize(samples, LEVELS["A2"], "trimmed")
        assert trimmed > 50 * by_range
        assert trimmed == pytest.approx(3 / 3.0, rel=0.05)  # 3 / the 99.73 % quantile of a half Gaussian, sigma 1
        assert thresholds[0] < 1 < thresholds[-1] < 3

    @pytest.mark.parametrize("name", ["A1", "A2", "A3", "W2"])
    def test_mse_beats_every_other_scale(self, name):
        samples = gaussian() if name[0] == "W" else gaussian().relu()
        levels = torch.tensor(LEVELS[name], dtype=torch.float64)
        middles = (levels[1:] + levels[:-1]) / 2

        def error(beta):
            return (levels[torch.bucketize(beta * samples, middles)] / beta - samples).square().mean().item()

        beta, thresholds = initialize(samples, LEVELS[name], "mse")
        torch.testing.assert_close(thresholds.double(), middles)
        assert all(error(beta) <= error(beta * factor) * 1.02 for factor in np.linspace(0.5, 2, 31))

    @pytest.mark.parametrize(
        ("samples", "levels", "init", "message"),
        [
            (torch.zeros(9), (-1.0, 0.0, 1.0), "range", "all zero"),
            (torch.tensor([1.0, float("nan")]), (-1.0, 1.0), "range", "finite numbers"),
            (torch.zeros(0), (-1.0, 1.0), "range", "at least one"),
            (torch.tensor([0.0, 1.0]), (0.0, 1.0, 2.0), "trimmed", "2 distinct values cannot be split into 3 clusters"),
            (torch.tensor([0.0, 1.0]), (1.0, 0.0), "range", "ascending order"),
        ],
    )
    def test_bad_samples(self, samples, levels, init, message):
        with pytest.raises(InputError, match=message):
            initialize(samples, levels, init)


def test_exact_on_few_values():
    """Against all ways to cut ten values into four intervals."""
    values = torch.rand(10, generator=torch.Generator().manual_seed(3), dtype=torch.float64).sort().values
    best = min(
        sum((part - part.mean()).square().sum().item() for part in torch.tensor_split(values, cuts))
        for cuts in itertools.combinations(range(1, 10), 3)
    )
    error = (values[:, None] - kmeans_centroids(values, 4)).square().min(1).values.sum().item()
    assert error == pytest.approx(best)
