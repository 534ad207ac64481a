"""The conservative objective: PPO at alpha 0, a dead zone where the gain is not worth the doubt, scales, mutants."""

import math
from collections.abc import Callable

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.method import objective as o

CLIP = 0.2


def samples(copies: int = 3, count: int = 400, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log pi, log pi_old, A, sqrt U in float64."""
    generator = torch.Generator().manual_seed(seed)
    old, shift, advantage, u = torch.randn(4, copies, count, generator=generator, dtype=torch.float64)
    return old + 0.3 * shift, old, advantage, u.abs()


def ppo_loss(log_prob: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
    """As in Stable-Baselines3, one copy."""
    ratio = torch.exp(log_prob - old)
    return -torch.min(advantage * ratio, advantage * torch.clamp(ratio, 1 - CLIP, 1 + CLIP)).mean()


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(at).sum(), at)[0]


def test_alpha_zero_is_ppo_to_the_last_bit_but_one_constant():
    log_prob, old, advantage, sqrt_u = samples()
    loss = o.conservative_loss(o.ratio_change(log_prob, old), advantage, sqrt_u, 0.0, CLIP)
    for copy in range(3):
        theirs = ppo_loss(log_prob[copy], old[copy], advantage[copy])
        assert loss[copy].item() == pytest.approx(theirs.item() + advantage[copy].mean().item(), abs=1e-12)
    mine = gradient(lambda x: o.conservative_loss(o.ratio_change(x, old), advantage, sqrt_u, 0.0, CLIP), log_prob)
    theirs = gradient(
        lambda x: torch.stack([ppo_loss(a, b, c) for a, b, c in zip(x, old, advantage, strict=True)]), log_prob
    )
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-15)


def test_identical_models_make_every_alpha_the_same():
    log_prob, old, advantage, _ = samples()
    nothing = torch.zeros_like(advantage)
    actual = [
        gradient(lambda x, a=a: o.conservative_loss(o.ratio_change(x, old), advantage, nothing, a, CLIP), log_prob)
        for a in (0.0, 0.5, 1e6)
    ]
    assert torch.equal(actual[0], actual[1])
    assert torch.equal(actual[0], actual[2])


def test_no_penalty_pulls_before_the_first_step():
    """At rho = 1 exactly the slope of |delta| is taken as 0: the first minibatch of an update is plain PPO."""
    _, old, advantage, sqrt_u = samples()

    def of(alpha: float, at: Tensor) -> Tensor:
        return gradient(lambda x: o.conservative_loss(o.ratio_change(x, old), advantage, sqrt_u, alpha, CLIP), at)

    assert torch.equal(of(0.0, old), of(100.0, old))
    assert not torch.equal(of(0.0, old + 1e-3), of(100.0, old + 1e-3))


def check_dead_zone(loss: Callable[..., Tensor]) -> None:
    """One sample: with |A| < alpha sqrt U no move pays, with |A| above it the best move is the clip's edge."""
    delta = torch.linspace(-0.6, 0.6, 241, dtype=torch.float64)
    for advantage, sqrt_u, alpha, best in (
        (1.0, 0.9, 2.0, 0.0), (-1.0, 0.6, 2.0, 0.0), (1.0, 0.4, 2.0, 0.2), (-1.0, 0.4, 2.0, -0.2), (1.0, 2.0, 0.4, 0.2),
    ):  # fmt: skip
        one = torch.ones(241, 1, dtype=torch.float64)
        values = loss(delta[:, None], advantage * one, sqrt_u * one, alpha, CLIP)
        assert delta[values.argmin()].item() == pytest.approx(best, abs=1e-9)
        at = (delta - 0.1).abs().argmin()
        assert values[at].item() == pytest.approx(alpha * 0.1 * sqrt_u - advantage * 0.1, abs=1e-12)


def test_the_dead_zone():
    check_dead_zone(o.conservative_loss)


def penalty_without_modulus(delta, advantage, sqrt_u, alpha, clip):
    return alpha * (delta * sqrt_u).mean(-1) - o.gain(delta, advantage, clip)


def variance_in_place_of_deviation(delta, advantage, sqrt_u, alpha, clip):
    return o.conservative_loss(delta, advantage, sqrt_u**2, alpha, clip)


def clip_on_the_ratio(delta, advantage, sqrt_u, alpha, clip):
    clipped = advantage * (delta.clamp(1 - clip, 1 + clip))
    return alpha * o.risk(delta, sqrt_u) - torch.minimum(advantage * delta, clipped).mean(-1)


@pytest.mark.parametrize("wrong", [penalty_without_modulus, variance_in_place_of_deviation, clip_on_the_ratio])
def test_the_check_rejects(wrong):
    with pytest.raises(AssertionError):
        check_dead_zone(wrong)


def test_the_share_of_samples_in_the_dead_zone():
    advantage = torch.tensor([[0.1, -0.3, 0.5, -2.0], [0.1, -0.3, 0.5, -2.0]])
    sqrt_u = torch.tensor([[0.1, 0.2, 0.2, 0.5], [0.1, 0.2, 0.2, 0.5]])
    assert o.dead_zone(advantage, sqrt_u, torch.tensor([0.0, 2.0])).tolist() == [0.0, 0.5]  # .1 < .2, .3 < .4
    assert o.dead_zone(advantage, sqrt_u, 100.0).tolist() == [1.0, 1.0]
    with pytest.raises((InputError, TypeCheckError)):
        o.dead_zone(advantage, sqrt_u[:, :2], 1.0)


@pytest.mark.parametrize(("alpha", "frozen"), [(0.0, False), (1e3, True)])
def test_a_huge_alpha_freezes_the_policy(alpha, frozen):
    """Gradient descent with falling steps on the log ratio itself: delta goes to 0 where the penalty rules."""
    _, old, advantage, sqrt_u = samples(copies=1, count=50)
    sqrt_u = sqrt_u + 0.1
    x = (old + 0.05).requires_grad_()
    for step in range(400):
        loss = o.conservative_loss(o.ratio_change(x, old), advantage, sqrt_u, alpha, CLIP).sum()
        (slope,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x -= 0.05 * 0.98**step * slope.sign()
    moved = o.ratio_change(x.detach(), old).abs().max().item()
    assert (moved < 1e-3) == frozen


def test_one_alpha_a_copy_is_each_copy_alone():
    log_prob, old, advantage, sqrt_u = samples()
    delta, alphas = o.ratio_change(log_prob, old), torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    together = o.conservative_loss(delta, advantage, sqrt_u, alphas, CLIP)
    for copy, alpha in enumerate(alphas.tolist()):
        alone = o.conservative_loss(delta[copy], advantage[copy], sqrt_u[copy], alpha, CLIP)
        assert together[copy].item() == pytest.approx(alone.item(), abs=1e-15)


# -- the alternatives -------------------------------------------------------------------------------------------------


def test_the_improvement_ratio_and_its_held_alpha():
    log_prob, old, advantage, sqrt_u = samples()
    delta = o.ratio_change(log_prob, old)
    gain, risk = o.gain(delta, advantage, CLIP), o.risk(delta, sqrt_u)
    torch.testing.assert_close(o.p_improve_ppo(delta, advantage, sqrt_u, CLIP), -gain / (risk + 1e-5))
    for scale, alpha in ((1.0, 0.1), (1e-6, 0.8)):  # gain / risk is below 0.1, or far above .8
        lifted = advantage.abs() * delta.sign() if scale < 1 else -advantage.abs() * delta.sign()
        got = o.p_improve_ppo2(delta, lifted, scale * sqrt_u, CLIP)
        torch.testing.assert_close(got, o.conservative_loss(delta, lifted, scale * sqrt_u, alpha, CLIP))
    at = log_prob.clone().requires_grad_()
    change = o.ratio_change(at, old)
    held = (o.gain(change, advantage, CLIP) / (o.risk(change, sqrt_u) + 1e-5)).detach().clamp(0.1, 0.8)
    pairs = [
        torch.autograd.grad(f.sum(), at, retain_graph=True)[0]
        for f in (
            o.p_improve_ppo2(change, advantage, sqrt_u, CLIP),
            o.conservative_loss(change, advantage, sqrt_u, held, CLIP),
        )
    ]
    torch.testing.assert_close(*pairs)


def test_every_objective_has_its_name():
    log_prob, old, advantage, sqrt_u = samples()
    delta = o.ratio_change(log_prob, old)
    values = {name: o.policy_loss(name, delta, advantage, sqrt_u, 0.5, CLIP) for name in o.OBJECTIVES}
    torch.testing.assert_close(values["variance_constrain"], o.conservative_loss(delta, advantage, sqrt_u, 0.5, CLIP))
    assert len({tuple(v.tolist()) for v in values.values()}) == 3


def test_the_approximate_kl_is_never_negative():
    log_prob, old, _, _ = samples()
    assert (o.approximate_kl(log_prob, old) > 0).all()
    assert (o.approximate_kl(old, old) == 0).all()


def test_the_approximate_kl_of_two_gaussians():
    """KL(N(0,1) | N(m,1)) = m^2 / 2."""
    x = torch.randn(1, 400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m = 0.05
    assert o.approximate_kl(-0.5 * (x - m) ** 2, -0.5 * x**2).item() == pytest.approx(m**2 / 2, rel=0.02)


# -- scales -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_first", [True, False])
def test_standardised_advantages(clip_first):
    _, _, advantage, _ = samples()
    advantage = 0.5 * advantage + 1
    standard = o.standardize(advantage, clip_first=clip_first)
    torch.testing.assert_close(standard.mean(-1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(standard.std(-1, correction=0), torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0)


def test_where_the_clip_acts():
    advantage = torch.zeros(1, 100, dtype=torch.float64)
    advantage[0, 0] = 1000.0
    assert o.standardize(advantage).max().item() == pytest.approx(9.95, abs=0.01)  # 5 among 99 zeros
    assert o.standardize(advantage, clip_first=False).max().item() == 5.0
    assert o.standardize(advantage, math.inf).max().item() == pytest.approx(9.95, abs=0.01)


@pytest.mark.parametrize("clip_first", [True, False])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_only_the_papers_scaling_is_free_of_the_units(clip_first, scale):
    """Rewards c times larger: A grows with c, U with c^2. The trap of the official code in one line."""
    _, _, advantage, sqrt_u = samples()
    u = 0.3 * sqrt_u**2
    options = {"clip_first": clip_first, "clip": math.inf if clip_first else 5.0}

    def scaled(mode: str) -> Tensor:
        return o.scale_uncertainty(scale**2 * u, scale * advantage, mode, low=1e-12, high=1e6, **options)

    base = {m: o.scale_uncertainty(u, advantage, m, low=1e-12, high=1e6, **options) for m in ("paper", "official")}
    torch.testing.assert_close(scaled("paper"), base["paper"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scaled("official"), scale * base["official"], rtol=1e-2, atol=1e-6)
    if clip_first:
        torch.testing.assert_close(base["official"], u.sqrt(), rtol=1e-6, atol=1e-6)  # a no-op


def test_the_bounds_of_u():
    advantage = torch.tensor([[-1.0, 1.0, -1.0, 1.0]])
    got = o.scale_uncertainty(torch.tensor([[0.0, 1.0, 4.0, 100.0]]), advantage)
    torch.testing.assert_close(got, torch.tensor([[1e-4, 1.0, 2.0, 5.0**0.5]]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: o.conservative_loss(x, x, x, -1.0, 0.2), "alpha must be 0 or more"),
        (lambda x: o.conservative_loss(x, x, x, 1.0, 0.0), "clip must be positive"),
        (lambda x: o.conservative_loss(x, x[:1], x, 1.0, 0.2), "one shape"),
        (lambda x: o.policy_loss("ppo", x, x, x, 1.0, 0.2), "objective must be one of"),
        (lambda x: o.scale_uncertainty(x, x, "raw"), "mode must be"),
        (lambda x: o.scale_uncertainty(x, x, low=2.0, high=1.0), "bounds of U"),
        (lambda x: o.standardize(x, 0.0), "clip must be positive"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        call(torch.zeros(2, 3))
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)
