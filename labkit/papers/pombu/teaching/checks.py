"""Properties that tell a right implementation from a wrong one. One check, three uses: test, exercise, mutants.

Each takes the candidate as its argument and raises AssertionError, in words a student can act on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.papers.pombu.method import lqr, tabular
from labkit.papers.pombu.method.objective import conservative_loss
from labkit.papers.pombu.method.uncertainty import local_uncertainty, propagate
from labkit.workbench.exercises import close

# -- the theory -------------------------------------------------------------------------------------------------------


def check_propagation(bellman: Callable[..., Any]) -> None:
    """`bellman(u, transitions, policy, gamma)` -> U (horizon, states, actions): the uncertainty Bellman equation."""
    for seed, gamma in ((0, 0.9), (1, 0.6)):
        posterior = tabular.random_posterior(seed=seed, gamma=gamma)
        u = np.random.default_rng(seed).uniform(0.1, 1, posterior.reward.shape)
        got = np.asarray(bellman(u.copy(), posterior.mean_transitions, posterior.policy, gamma))
        assert got.shape == u.shape, f"U has one number per (h, s, a), {u.shape}; got {got.shape}."
        close(got[-1], u[-1], "At the last step there is no future: U = u.")
        wanted = tabular.propagate(u, posterior)
        close(got[-2], wanted[-2], "U^h = u^h + gamma^2 sum P sum pi U^{h+1}: variances shrink by gamma squared.")
        close(got, wanted, "The recursion must run over all steps, from the last to the first.")


def check_exact_recursion(local: Callable[..., Any]) -> None:
    """`local(v_mean, mean_transitions, policy, models_v, models_transitions, gamma)` -> w (horizon, states).

    Known rewards: with the right w the recursion gives Var_p[V] itself.
    """
    posterior = tabular.Posterior(**{**_fields(tabular.random_posterior(seed=3)), "reward_std": 0.0})
    models = tabular.sample(posterior, 20_000, np.random.default_rng(0))
    _, v_mean = tabular.mean_values(posterior)
    w = np.asarray(local(v_mean, posterior.mean_transitions, posterior.policy, models.v, models.transitions, 0.95))
    _, exact = tabular.exact_variance(posterior)
    assert w.shape == exact[:-1].shape, f"one number per (h, s), {exact[:-1].shape}; got {w.shape}."
    assert np.abs(w[-1]).max() < 1e-9, "at the last step V = r is known here: w = 0."
    variance = tabular.propagate_states(w, posterior)
    error = float(np.abs(variance[:-1] - exact[:-2]).max() / exact[:-2].max())
    assert error < 0.03, (
        f"the recursion with your w is off by {error:.0%} of the largest variance (sampling: 1 %): "
        "w = gamma^2 { Var_(a,s'~pi,P-bar)[V-bar(s')] - E_p Var_(a,s'~pi,P)[V_p(s')] }."
    )


def _fields(posterior: tabular.Posterior) -> dict[str, Any]:
    return dict(vars(posterior))


def check_bias(answer: Any) -> None:
    """The expectation of the K-divided variance over the truth, for K = 2, 5 and 20."""
    assert isinstance(answer, Sequence), "answer with three numbers, for K = 2, 5 and 20"
    assert len(answer) == 3, f"answer with three numbers, for K = 2, 5 and 20; got {len(answer)}"
    drawn = np.random.default_rng(0).standard_normal((40_000, 20))
    for members, guess in zip((2, 5, 20), answer, strict=True):
        measured = float(drawn[:, :members].var(1).mean())
        assert abs(guess - measured) < 0.02, f"with K = {members} models it is {measured:.2f} on average, not {guess}."


# -- the objective ----------------------------------------------------------------------------------------------------


def check_scaling(scale: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`scale(u, advantage)` -> sqrt(U) in units of the standardised advantage: the reward's unit must cancel."""
    generator = torch.Generator().manual_seed(0)
    advantage = 2 * torch.randn(500, generator=generator) + 1
    u = 0.3 * torch.rand(500, generator=generator)
    got = torch.as_tensor(scale(u.clone(), advantage.clone()))
    assert got.shape == u.shape, f"one number per sample, {tuple(u.shape)}; got {tuple(got.shape)}."
    for c in (10.0, 0.1):
        again = torch.as_tensor(scale(c**2 * u, c * advantage))
        change = float((again / got - 1).abs().max())
        assert change < 1e-2, f"rewards {c:g} times as large must change nothing; your sqrt(U) changes by {change:.0%}."
    wanted = (u / advantage.var(correction=0)).sqrt()
    error = float((got / wanted - 1).abs().max())
    assert error < 1e-2, f"divide U by the variance of the advantages, then take the root; off by {error:.0%}."


def check_best_step(best: Callable[[float, float, float, float], float]) -> None:
    """`best(advantage, sqrt_u, alpha, clip)`: the shortest delta within +-clip that minimises (5)."""
    grid = torch.linspace(-1, 1, 401, dtype=torch.float64)[:, None]
    for advantage in (-2.0, -0.3, 0.0, 0.3, 2.0):
        for sqrt_u, alpha, clip in ((0.0, 2.0, 0.2), (0.5, 0.0, 0.2), (0.5, 2.0, 0.2), (0.1, 2.0, 0.1)):
            delta = clip * grid
            filled = torch.full_like(delta, advantage), torch.full_like(delta, sqrt_u)
            losses = conservative_loss(delta, *filled, alpha, clip)
            winners = delta[losses <= losses.min() + 1e-12][:, 0]
            wanted = float(winners[winners.abs().argmin()])
            got = float(best(advantage, sqrt_u, alpha, clip))
            assert abs(got - wanted) < 1e-9, (
                f"A = {advantage}, sqrt(U) = {sqrt_u}, alpha = {alpha}, clip = {clip}: the best delta is {wanted:g}, "
                f"not {got:g}. A move pays only where |A| > alpha sqrt(U)."
            )


# -- numbers that the notebook prints ---------------------------------------------------------------------------------


def lqr_error(models: lqr.LinearEnsemble, horizon: int) -> float:
    """Largest difference between U of the sampled code and its closed form, along rollouts with changing members."""
    generator, reward, q = torch.Generator().manual_seed(0), [], []
    p, c = lqr.value_functions(models, horizon)
    state, states, actions = torch.randn(6, models.a.shape[1], generator=generator, dtype=models.a.dtype), [], []
    for t in range(horizon):
        noise = torch.randn(6, models.b.shape[2], generator=generator, dtype=state.dtype)
        action = -state @ models.gain.T + models.std * noise
        predictions = models.next_states(state, action)
        states.append(state)
        actions.append(action)
        reward.append(models.reward(state, action))
        q.append(reward[-1][:, None] + models.gamma * lqr.value(models, p[t + 1], c[t + 1], predictions))
        state = predictions[torch.arange(6), torch.randint(predictions.shape[1], (6,), generator=generator)]
    u = local_uncertainty(torch.stack(q), dim=-1)
    sampled = propagate(torch.stack(reward), u, gamma=models.gamma).uncertainty_target
    closed = lqr.closed_form_uncertainty(models, torch.stack(states, 1), torch.stack(actions, 1))
    return float((sampled.T - closed).abs().max())


def penalty_gradient_at_zero() -> float:
    """Largest gradient of alpha |delta| sqrt(U) at delta = 0, where the first minibatch of every update stands."""
    delta = torch.zeros(4, requires_grad=True)
    conservative_loss(delta, torch.zeros(4), torch.ones(4), 2.0, 0.2).backward()
    assert delta.grad is not None
    return float(delta.grad.abs().max())
