"""Local disagreement and the uv-trace: closed forms, the recursion written out, the kernel, mutants."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.method.uncertainty import alive, local_uncertainty, propagate

STEPS, COPIES = 13, (2, 3)


def a_rollout(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    r, u, v, w = torch.randn(4, STEPS, *COPIES, generator=generator, dtype=torch.float64).to(dtype)
    done = torch.zeros(STEPS, *COPIES, dtype=torch.bool)
    done[4, 0, 1] = done[12, 1, 2] = done[0, 1, 0] = done[7, 0, 1] = True  # the second one of a copy is past its end
    return r, u.abs(), v, w, done


# -- local ------------------------------------------------------------------------------------------------------------


def test_local_uncertainty_is_the_population_variance_over_members():
    q = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    assert local_uncertainty(q, 1).tolist() == pytest.approx([2 / 3, 0.0])
    assert local_uncertainty(q, 1, bessel=True).tolist() == pytest.approx([1.0, 0.0])
    assert local_uncertainty(q, 0).tolist() == pytest.approx([4.0, 2.25, 1.0])


@pytest.mark.parametrize(("members", "expected"), [(2, 0.5), (5, 0.8), (20, 0.95)])
def test_few_members_underestimate_by_a_known_factor(members, expected):
    q = torch.randn(members, 200_000, generator=torch.Generator().manual_seed(members))
    assert local_uncertainty(q).mean().item() == pytest.approx(expected, abs=0.01)
    assert local_uncertainty(q, bessel=True).mean().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("shape", "dim"), [((1, 4), 0), ((4, 1), 1), ((4,), 3), ((4,), -2)])
def test_disagreement_needs_two_members(shape, dim):
    with pytest.raises(InputError, match="two members"):
        local_uncertainty(torch.zeros(shape), dim)


# -- the trace --------------------------------------------------------------------------------------------------------


def written_out(r, u, v, w, gamma, lam, done) -> dict[str, Tensor]:
    """Each copy by itself, number by number, cut at the first end."""
    wanted = {name: torch.zeros_like(r) for name in ("A", "V", "AU", "U")}
    for i in range(COPIES[0]):
        for j in range(COPIES[1]):
            ends = [t for t in range(STEPS) if done is not None and done[t, i, j]]
            last = ends[0] if ends else STEPS - 1
            a = au = 0.0
            for t in range(last, -1, -1):
                after = 0.0 if t == last else float(v[t + 1, i, j])
                after_u = 0.0 if t == last else max(float(w[t + 1, i, j]), 0.0)
                here_u = max(float(w[t, i, j]), 0.0)
                a = float(r[t, i, j]) + gamma * after - float(v[t, i, j]) + gamma * lam * a
                au = float(u[t, i, j]) + gamma**2 * after_u - here_u + gamma**2 * lam * au
                wanted["A"][t, i, j], wanted["V"][t, i, j] = a, a + float(v[t, i, j])
                wanted["AU"][t, i, j], wanted["U"][t, i, j] = au, max(au + here_u, 0.0)
    return wanted


@pytest.mark.parametrize("lam", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("with_done", [False, True])
def test_the_trace_is_the_recursion(lam, with_done):
    r, u, v, w, done = a_rollout()
    ends = done if with_done else None
    got, wanted = propagate(r, u, v, w, gamma=0.9, lam=lam, done=ends), written_out(r, u, v, w, 0.9, lam, ends)
    for mine, name in zip(got, ("A", "V", "AU", "U"), strict=True):
        torch.testing.assert_close(mine, wanted[name], rtol=0, atol=1e-12)


def check_trace(trace: Callable[..., object]) -> None:
    """What identifies the trace: gamma for rewards, gamma^2 for variances, sums for lam = 1, one step for lam = 0."""
    r, u, v, w, _ = a_rollout()
    gamma, steps = 0.8, torch.arange(STEPS, dtype=torch.float64)
    sums = trace(r, u, v, w, gamma=gamma, lam=1.0)
    weight = torch.triu(gamma ** (steps[None] - steps[:, None]).clamp_min(0))
    torch.testing.assert_close(sums.value_target, torch.einsum("tj,j...->t...", weight, r))
    torch.testing.assert_close(sums.uncertainty_target, torch.einsum("tj,j...->t...", weight**2, u))
    one = trace(r, u, v, w, gamma=gamma, lam=0.0)
    following = torch.cat([w.clamp_min(0)[1:], torch.zeros(1, *COPIES, dtype=torch.float64)])
    torch.testing.assert_close(one.uncertainty_target, u + gamma**2 * following)
    constant = trace(r, torch.full_like(u, 3.0), gamma=gamma).uncertainty_target[:, 0, 0]
    torch.testing.assert_close(constant, 3 * (1 - gamma ** (2 * (STEPS - steps))) / (1 - gamma**2))


def test_the_trace_has_the_known_values():
    check_trace(propagate)


def gamma_not_squared(r, u, v=None, w=None, *, gamma, lam=1.0):
    right = propagate(r, u, v, w, gamma=gamma, lam=lam)
    return right._replace(uncertainty_target=propagate(u, u, w, w, gamma=gamma, lam=lam).value_target)


def negative_u_kept(r, u, v=None, w=None, *, gamma, lam=1.0):
    right = propagate(r, u, v, w, gamma=gamma, lam=lam)
    if w is None:
        return right
    return right._replace(uncertainty_target=propagate(u, u, w, gamma=gamma**2, lam=lam).value_target)


def lam_forgotten(r, u, v=None, w=None, *, gamma, lam=1.0):
    return propagate(r, u, v, w, gamma=gamma)


@pytest.mark.parametrize("wrong", [gamma_not_squared, negative_u_kept, lam_forgotten])
def test_the_check_rejects(wrong):
    with pytest.raises(AssertionError):
        check_trace(wrong)


def test_rows_after_the_end_count_nothing():
    r, u, v, w, done = a_rollout()
    full = propagate(r, u, v, w, gamma=0.9, lam=0.95, done=done)
    there = alive(done)
    assert there[:, 0, 1].tolist() == [True] * 5 + [False] * 8
    for values in full:
        assert (values[~there] == 0).all()
    poisoned = [torch.where(there, x, torch.tensor(float("nan"), dtype=x.dtype)) for x in (r, u, v, w)]
    for mine, clean in zip(propagate(*poisoned, gamma=0.9, lam=0.95, done=done), full, strict=True):
        torch.testing.assert_close(mine, clean, rtol=0, atol=0)


def test_no_gradient_flows_and_float32_is_enough():
    r, u, v, w, done = a_rollout(torch.float32)
    v.requires_grad_()
    got = propagate(r, u, v, w, gamma=0.99, done=done)
    assert not any(values.requires_grad for values in got)
    exact = propagate(*(x.detach().double() for x in (r, u, v, w)), gamma=0.99, done=done)
    for mine, double in zip(got, exact, strict=True):
        torch.testing.assert_close(mine.double(), double, rtol=1e-5, atol=1e-5)


def test_a_target_is_never_below_zero_by_rounding():
    u = torch.zeros(50, 4)
    w = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * 1e3
    assert propagate(u, u, None, w, gamma=0.97).uncertainty_target.min() >= 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: propagate(x, x[:, :1], gamma=0.9), "uncertainty must have the shape"),
        (lambda x: propagate(x, x, gamma=1.1), "gamma must lie"),
        (lambda x: propagate(x, x, gamma=0.9, lam=1.5), "lam"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        call(torch.zeros(3, 2))
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)
