"""Ridge regression against itself, its limits, and scikit-learn; every sheet identity to nearly machine precision."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Reference

from labkit.errors import InputError
from labkit.papers.crt.method import ridge
from labkit.papers.crt.teaching import checks, exercises


def problem(n, d, seed=0, batch=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, n, d, generator=generator, dtype=dtype)
    y = torch.randn(batch, n, generator=generator, dtype=dtype)
    return x, y, torch.rand(batch, n, generator=generator, dtype=dtype) + 0.1


@pytest.mark.parametrize(("n", "d"), [(60, 200), (200, 60), (1, 5), (7, 7)])
def test_primal_is_dual(n, d):
    x, y, omega = problem(n, d, batch=2)
    primal, dual = (ridge.fit(x, y, 0.1, omega, form=form) for form in ("primal", "dual"))
    torch.testing.assert_close(primal, dual, rtol=0, atol=1e-11)
    torch.testing.assert_close(ridge.fit(x, y, 0.1, omega), dual, rtol=0, atol=1e-11)


def test_float32_is_near_float64():
    """Rows of length 1, as the tracker's.

    With longer rows lam = .1 is next to nothing, and the primal suffers first.
    """
    x, y, omega = problem(200, 512)
    x = torch.nn.functional.normalize(x, dim=2)
    wide = ridge.fit(x, y, 0.1, omega)
    for form in ("primal", "dual"):
        narrow = ridge.fit(x.float(), y.float(), 0.1, omega.float(), form=form).double()
        assert float((narrow - wide).norm() / wide.norm()) < 3e-5


@pytest.mark.parametrize(("n", "d"), [(40, 12), (12, 40)])
def test_against_scikit_learn(n, d):
    x, y, omega = problem(n, d)
    peer = Reference(alpha=0.3, fit_intercept=False).fit(x[0].numpy(), y[0].numpy(), sample_weight=omega[0].numpy())
    np.testing.assert_allclose(ridge.fit(x, y, 0.3, omega)[0].numpy(), peer.coef_, rtol=0, atol=1e-8)


def test_dual_coefficients_are_residuals():
    x, y, omega = problem(30, 80)
    alpha, w = ridge.dual_coefficients(x, y, 0.2, omega), ridge.fit(x, y, 0.2, omega)
    torch.testing.assert_close(0.2 * alpha, omega.sqrt() * (y - (x @ w[..., None])[..., 0]), rtol=0, atol=1e-12)


def test_leave_one_out_is_a_refit():
    x, y, omega = problem(20, 50)
    fast = ridge.leave_one_out(x, y, 0.1, omega)
    for i in (0, 7, 19):
        kept = torch.arange(20) != i
        w = ridge.fit(x[:, kept], y[:, kept], 0.1, omega[:, kept])
        assert float(fast[0, i]) == pytest.approx(float(y[0, i] - x[0, i] @ w[0]), abs=1e-11)


def test_limits():
    x, y, _ = problem(10, 30)
    assert float(ridge.fit(x, y, 1e12).abs().max()) < 1e-9
    torch.testing.assert_close((x @ ridge.fit(x, y, 1e-10)[..., None])[..., 0], y, rtol=0, atol=1e-7)
    before = torch.randn(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(ridge.fit(x, y, 1e12, anchor=before), before, rtol=0, atol=1e-9)
    torch.testing.assert_close(ridge.fit(x, y, 0.1, anchor=torch.zeros_like(before)), ridge.fit(x, y, 0.1))


def test_weights_count_rows():
    x, y, _ = problem(10, 30)
    double = torch.ones(1, 10, dtype=torch.float64)
    double[0, 3], double[0, 5] = 2, 0
    rows = [0, 1, 2, 3, 3, 4, 6, 7, 8, 9]
    torch.testing.assert_close(ridge.fit(x, y, 0.1, double), ridge.fit(x[:, rows], y[:, rows], 0.1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_the_anchored_solution_is_stationary(form):
    x, y, omega = problem(10, 30)
    anchor = torch.randn(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    w = ridge.fit(x, y, 0.3, omega, anchor, form)
    gradient = x.mT @ (omega * ((x @ w[..., None])[..., 0] - y))[..., None] + 0.3 * (w - anchor)[..., None]
    assert float(gradient.abs().max()) < 1e-11


def test_running_gram_with_eta_1_over_t_is_the_batch():
    parts = [problem(9, 20, seed) for seed in range(5)]
    running = ridge.RunningGram(ridge.gram(*parts[0]), keep_first=0.0)
    for t, part in enumerate(parts[1:], start=2):
        running.update(*part, torch.tensor([1 / t], dtype=torch.float64))
    x, y, omega = (torch.cat(rows, 1) for rows in zip(*parts, strict=True))
    torch.testing.assert_close(running.solve(0.1), ridge.fit(x, y, 0.1, omega / 5), rtol=0, atol=1e-11)


def test_the_first_frame_keeps_its_share():
    first, later = problem(9, 5, 0), problem(9, 5, 1)
    running = ridge.RunningGram(ridge.gram(*first), keep_first=0.25)
    running.update(*later, torch.ones(1, dtype=torch.float64))  # eta 1 forgets all but the reserve
    x, y, omega = (torch.cat(rows, 1) for rows in zip(first, later, strict=True))
    share = torch.cat([0.25 * first[2], 0.75 * later[2]], 1)
    torch.testing.assert_close(running.solve(0.1), ridge.fit(x, y, 0.1, share), rtol=0, atol=1e-11)
    assert omega.shape == share.shape


def test_hardness_weights():
    omega = torch.full((1, 4), 0.25)
    residual = torch.tensor([[0.0, 0.5, -1.0, 0.1]])
    torch.testing.assert_close(ridge.hardness_weights(omega, residual, 0.0), omega)
    actual = ridge.hardness_weights(omega, residual, 1.0)
    assert float(actual.sum()) == pytest.approx(1.0)
    assert actual.argmax() == 2
    assert float(actual[0, 2] / actual[0, 0]) == pytest.approx(1.05 / 0.05, rel=1e-5)


def test_a_system_that_float32_cannot_factor_goes_through_float64():
    x = torch.ones(1, 3, 1) * torch.linspace(1, 1.0001, 40)  # rows alike: X^T X has rank 1
    w = ridge.fit(x, torch.ones(1, 3), 1e-9, form="primal")
    assert bool(w.isfinite().all())
    torch.testing.assert_close((x @ w[..., None])[..., 0], torch.ones(1, 3), rtol=0, atol=1e-2)


def test_the_checks_reject_wrong_solvers():
    checks.check_ridge(exercises.dual)
    for wrong in (exercises.dual_without_lam, lambda x, y, lam: exercises.dual(x, y, lam / 2)):
        with pytest.raises(AssertionError, match="gradient"):
            checks.check_ridge(wrong)
    with pytest.raises(AssertionError, match="1,000,000"):
        checks.check_uses_small_system(exercises.primal)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lam": 0.0}, "lam must be positive"),
        ({"omega": torch.full((1, 4), -1.0)}, "negative"),
        ({"omega": torch.ones(1, 3)}, "must agree"),
        ({"form": "cheap"}, "form must be"),
    ],
)
def test_bad_input(change, words):
    with pytest.raises(InputError, match=words):
        ridge.fit(**{"x": torch.ones(1, 4, 2), "y": torch.ones(1, 4), "lam": 0.1} | change)
    with pytest.raises(InputError, match="positive weights"):
        ridge.leave_one_out(torch.ones(1, 4, 2), torch.ones(1, 4), 0.1, torch.tensor([[1.0, 0, 1, 1]]))
    with pytest.raises(InputError, match="positive definite"):
        ridge.solve_spd(-torch.eye(2)[None], torch.ones(1, 2, 1))
