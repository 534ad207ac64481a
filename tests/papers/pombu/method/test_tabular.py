"""The theory on small MDPs: bounds, identity, exact recursion, and the place where the bound breaks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.papers.pombu.method import tabular
from labkit.papers.pombu.teaching import checks

SAMPLES = 20_000
RNG = np.random.default_rng


@pytest.fixture(scope="module")
def posterior():
    return tabular.random_posterior(seed=0)


@pytest.fixture(scope="module")
def models(posterior):
    return tabular.sample(posterior, SAMPLES, np.random.default_rng(1))


def test_closed_form_variance_is_what_sampling_finds(posterior, models):
    variance_q, variance_v = tabular.exact_variance(posterior)
    np.testing.assert_allclose(models.q.var(0), variance_q, rtol=0.05)
    np.testing.assert_allclose(models.v.var(0)[:-1], variance_v[:-1], rtol=0.06)
    assert (variance_v[-1] == 0).all()


def test_two_states_by_hand():
    """One step of uncertainty: V = (0, 1) at the next step, P ~ Beta(2, 3): Var[P] = 6 / (25 * 6) = 0.04."""
    counts = np.full((2, 2, 1, 2), 1e9)
    counts[0] = np.array([3.0, 2.0])
    reward = np.zeros((2, 2, 1))
    reward[1, 1] = 1.0
    posterior = tabular.Posterior(counts, reward, np.ones((2, 2, 1)), reward_std=0.0, gamma=0.5)
    u = tabular.local_uncertainty(posterior)
    np.testing.assert_allclose(u[0, :, 0], 0.25 * 0.04)
    np.testing.assert_allclose(tabular.propagate(u, posterior)[0, :, 0], 0.01)
    np.testing.assert_allclose(tabular.exact_variance(posterior)[0][0, :, 0], 0.01)


def check_bound(bound: Callable[[tabular.Posterior], Any]) -> None:
    """`bound(posterior)` -> U (horizon, states, actions): never below the true variance, and tight at the last step."""
    for seed in range(6):
        posterior = tabular.random_posterior(seed=seed)
        exact, _ = tabular.exact_variance(posterior)
        ratio = np.asarray(bound(posterior)) / exact
        assert ratio.shape == exact.shape, f"one number per (h, s, a), {exact.shape}; got {ratio.shape}."
        assert ratio.min() >= 1 - 1e-9, f"a bound must not lie below the true variance; here {ratio.min():.3f} of it."
        assert np.abs(ratio[-1] - 1).max() < 1e-9, "at the last step Var[Q] = Var[r], and the bound is exact."
        assert ratio.mean() < 3, f"on average {ratio.mean():.1f} times the truth: the paper's is below 3."


def test_the_papers_bound_holds_and_is_tight(posterior, models):
    check_bound(lambda p: tabular.propagate(tabular.local_uncertainty(p), p))
    ratio = tabular.propagate(tabular.local_uncertainty(posterior), posterior) / models.q.var(0)
    loose = tabular.loose_local_uncertainty(posterior, float(np.abs(models.q).max()))
    wide = tabular.propagate(loose, posterior) / models.q.var(0)
    assert ratio.min() >= 0.97
    assert ratio.mean() < wide.mean() / 10
    assert wide.min() > 20


def test_local_terms_are_the_sampled_variances(posterior, models):
    _, v = tabular.mean_values(posterior)
    one_step = models.rewards + posterior.gamma * (models.transitions * v[1:, None, None, :]).sum(-1)
    np.testing.assert_allclose(tabular.local_uncertainty(posterior), one_step.var(0), rtol=0.06)
    spread = (models.transitions.var(0) / posterior.mean_transitions).sum(-1)
    np.testing.assert_allclose(tabular.loose_local_uncertainty(posterior, 2.0), 0.09 + 4 * spread, rtol=0.06)


def test_identity_and_mean_values(posterior, models):
    lhs, rhs = tabular.identity(posterior, models)
    np.testing.assert_allclose(rhs, lhs, rtol=0.05)
    assert np.abs(models.q.mean(0) - tabular.mean_values(posterior)[0]).max() < 0.02


def test_jensen_over_actions():
    for seed in range(5):
        posterior = tabular.random_posterior(seed=seed)
        variance_q, variance_v = tabular.exact_variance(posterior)
        assert (variance_v[:-1] <= (posterior.policy * variance_q).sum(-1) + 1e-12).all()


def test_luis_recursion_is_exact(posterior, models):
    w = tabular.luis_local_uncertainty(posterior, models)
    actual = tabular.propagate_states(w, posterior)
    np.testing.assert_allclose(actual, tabular.exact_variance(posterior)[1][:-1], rtol=0.06)


def test_the_bound_breaks_where_states_come_back():
    posterior = tabular.random_posterior(seed=0)
    ratio = tabular.stationary_bound(posterior) / tabular.stationary_variance(posterior, 4_000, RNG(2))
    assert 0.1 < ratio.min() <= ratio.max() < 0.2


def test_a_shared_model_breaks_it_the_more_the_longer():
    posterior, rng, actual = tabular.random_posterior(seed=0), np.random.default_rng(3), []
    for horizon in (1, 10, 20, 60):
        tied = tabular.stationary(posterior, horizon)
        truth = tabular.sample(tied, 4_000, rng).q.var(0)
        actual.append(float((tabular.propagate(tabular.local_uncertainty(tied), tied) / truth)[0].mean()))
    assert actual[0] == pytest.approx(1, abs=0.1)
    assert actual == sorted(actual, reverse=True)
    assert actual[1] < 0.8
    assert actual[-1] < 0.25


def test_stationary_solve_is_the_limit_of_the_iteration():
    posterior = tabular.random_posterior(seed=4)
    long = tabular.stationary(posterior, 400)
    iterated = tabular.propagate(tabular.local_uncertainty(long), long)
    np.testing.assert_allclose(tabular.stationary_bound(posterior), iterated[0], rtol=1e-6)


def test_more_data_less_variance():
    few, many = (tabular.exact_variance(tabular.random_posterior(seed=0, data=d))[0].mean() for d in (1.0, 100.0))
    assert many < few / 20


def test_study_reports_what_the_sheet_measured():
    actual = tabular.compare_bounds(4_000, 0)
    assert actual["tight_min"] == pytest.approx(1)
    assert 1.2 < actual["tight_mean"] < 2.5
    assert actual["loose_mean"] > 10 * actual["tight_mean"]
    assert max(actual["luis_error"], actual["identity_error"], actual["sampling_error"]) < 0.2
    assert actual["cyclic_max"] < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": np.zeros((5, 4, 2, 4))}, "must be positive"),
        ({"counts": np.ones((5, 4, 2, 3))}, "as many next states"),
        ({"reward": np.zeros((4, 4, 2))}, "must agree"),
        ({"policy": np.ones((5, 4, 2))}, "add up to 1"),
        ({"gamma": 1.5}, "0 < gamma <= 1"),
        ({"shared": True}, "use `stationary`"),
    ],
)
def test_bad_posteriors_are_refused(posterior, change, message):
    with pytest.raises(InputError, match=message):
        replace(posterior, **change)


def test_other_bad_input(posterior):
    with pytest.raises(InputError, match="at least 2 samples"):
        tabular.sample(posterior, 1, np.random.default_rng(0))
    with pytest.raises(InputError, match="use `sample`"):
        tabular.exact_variance(tabular.stationary(posterior, 3))
    with pytest.raises(InputError, match="gamma < 1"):
        tabular.stationary_bound(replace(posterior, gamma=1.0))
    with pytest.raises(InputError, match="must be positive"):
        tabular.random_posterior(horizon=0)


# -- which bugs would the checks catch? -------------------------------------------------------------------------------


def right_propagation(u, transitions, policy, gamma):
    return tabular.values(transitions, u, policy, gamma**2)[0]


def test_right_propagation_passes():
    checks.check_propagation(right_propagation)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda u, transitions, policy, gamma: tabular.values(transitions, u, policy, gamma)[0],
        lambda u, transitions, policy, gamma: u,
        lambda u, transitions, policy, gamma: tabular.values(transitions, u, np.full_like(policy, 0.5), gamma**2)[0],
        lambda u, transitions, policy, gamma: right_propagation(u, transitions, policy, gamma).mean(-1),
    ],
)
def test_wrong_propagation_is_rejected(wrong):
    with pytest.raises(AssertionError):
        checks.check_propagation(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p: tabular.local_uncertainty(p),
        lambda p: tabular.propagate(np.full_like(p.reward, p.reward_std**2), p),
        lambda p: tabular.propagate(tabular.loose_local_uncertainty(p, 3.0), p),
        lambda p: tabular.values(p.mean_transitions, tabular.local_uncertainty(p), p.policy, p.gamma)[0] * 1.01,
    ],
)
def test_wrong_bounds_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_bound(wrong)
