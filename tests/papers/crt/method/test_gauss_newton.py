"""Gauss-Newton with CG: the dense solution, monotone, FR = PR where r is linear, problems that do not mix."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.crt.method.gauss_newton import Trace, gauss_newton


def linear(batch=1, n=12, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(batch, n, d, generator=generator, dtype=torch.float64)
    b = torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return a, b, lambda p: [(a @ p[0][..., None])[..., 0] - b]


@pytest.mark.parametrize("beta", ["PR", "FR"])
def test_as_many_steps_as_unknowns_solve_the_normal_equations(beta):
    a, b, residuals = linear()
    (actual,) = gauss_newton(residuals, [torch.zeros(1, 5, dtype=torch.float64)], [5], beta)
    torch.testing.assert_close(actual[0], torch.linalg.lstsq(a[0], b[0]).solution, rtol=0, atol=1e-10)


def test_fr_is_pr_on_a_quadratic_and_the_error_falls_in_the_a_norm():
    a, b, residuals = linear(n=20, d=9)
    best = torch.linalg.lstsq(a[0], b[0]).solution
    errors = []
    for count in range(1, 7):
        pr, fr = (
            gauss_newton(residuals, [torch.zeros(1, 9, dtype=torch.float64)], [count], beta)[0] for beta in ("PR", "FR")
        )
        torch.testing.assert_close(pr, fr, rtol=0, atol=1e-9)
        errors.append(float((a[0] @ (pr[0] - best)).norm()))
    assert errors == sorted(errors, reverse=True)


def test_problems_side_by_side_do_not_mix():
    """A step size shared by the batch would pass for one problem and fail here."""
    a, b, residuals = linear(batch=3)
    scale = torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64)[:, None]
    (together,) = gauss_newton(lambda p: [scale * residuals(p)[0]], [torch.zeros(3, 5, dtype=torch.float64)], [3])
    for k in range(3):

        def alone(p, k=k):
            return [scale[k : k + 1] * ((a[k : k + 1] @ p[0][..., None])[..., 0] - b[k : k + 1])]

        (single,) = gauss_newton(alone, [torch.zeros(1, 5, dtype=torch.float64)], [3])
        torch.testing.assert_close(together[k : k + 1], single, rtol=0, atol=1e-10)


def test_a_product_of_two_unknowns_needs_several_newton_steps():
    """r = u v^T - M for a matrix of rank 1: the factorised case, as with projection and filter."""
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.randn(1, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    m = u[:, :, None] * v[:, None, :]
    trace = Trace()
    start = [u + 0.3, v - 0.2]
    gauss_newton(
        lambda p: [p[0][:, :, None] * p[1][:, None, :] - m], start, [8] * 6, trace=trace, precondition=[1.0, 2.0]
    )
    losses = [float(loss) for loss in trace.losses]
    assert losses[-1] < 1e-8 * losses[0]
    assert len(trace.gradients) == 48


def test_what_was_given_stays():
    _, _, residuals = linear()
    start = torch.zeros(1, 5, dtype=torch.float64)
    gauss_newton(residuals, [start], [2])
    assert float(start.abs().max()) == 0
    assert not start.requires_grad


def test_the_direction_is_the_gradients():
    """One CG step goes along -J^T r, with J^T r checked by finite differences."""
    _, _, residuals = linear()
    start = torch.full((1, 5), 0.1, dtype=torch.float64)

    def loss(p):
        return float(residuals([p])[0].square().sum() / 2)

    eye = torch.eye(5, dtype=torch.float64)
    slope = torch.tensor([(loss(start + 1e-5 * e) - loss(start - 1e-5 * e)) / 2e-5 for e in eye], dtype=torch.float64)
    (moved,) = gauss_newton(residuals, [start], [1])
    step = (moved - start)[0]
    assert float(torch.cosine_similarity(step, -slope, dim=0)) == pytest.approx(1.0, abs=1e-8)


def test_bad_input():
    _, _, residuals = linear()
    start = [torch.zeros(1, 5, dtype=torch.float64)]
    with pytest.raises(InputError, match="PR or FR"):
        gauss_newton(residuals, start, [1], "HS")
    with pytest.raises(InputError, match="one positive number per parameter"):
        gauss_newton(residuals, start, [1], precondition=[1.0, 2.0])
