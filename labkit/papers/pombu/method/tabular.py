"""The theory where it can be counted: a posterior over small MDPs, the true variance of Q, and three bounds for it.

All in float64. A posterior has Dirichlet transitions and Gaussian rewards, independent between (h, s, a); a policy is
fixed; the value of an MDP p at the last step H is 0. Bars are posterior means.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from numpy.random import Generator

from labkit.errors import InputError
from labkit.seeds import derive


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is believed about an MDP with states indexed by time, so that no state comes back.

    Args:
        counts: Dirichlet parameters of P(. | h, s, a).
        reward: means of r(h, s, a). reward_std: their common standard deviation.
        policy: pi(a | h, s). gamma: discount.
        shared: one P and one r hold at all times (a stationary, cyclic MDP): the bound's assumption is broken.
    """

    counts: Float64[np.ndarray, "horizon states actions next"]
    reward: Float64[np.ndarray, "_ _ _"]  # horizon, states, actions
    policy: Float64[np.ndarray, "_ _ _"]  # the same; whether they fit is said in words
    reward_std: float = 0.3
    gamma: float = 0.95
    shared: bool = False

    def __post_init__(self) -> None:
        if self.counts.shape[:3] != self.reward.shape or self.reward.shape != self.policy.shape:
            raise InputError(
                f"counts (h, s, a, s'), reward and policy (h, s, a) must agree; got {self.counts.shape}, "
                f"{self.reward.shape} and {self.policy.shape}."
            )
        if self.counts.shape[1] != self.counts.shape[3]:
            raise InputError(f"counts must have as many next states as states; got {self.counts.shape}.")
        if not (self.counts > 0).all():
            raise InputError("Dirichlet parameters (counts) must be positive: add a prior such as 0.5 to counts of 0.")
        if not np.allclose(self.policy.sum(-1), 1) or (self.policy < 0).any():
            raise InputError("policy must hold probabilities that add up to 1 over the actions.")
        if not 0 < self.gamma <= 1 or self.reward_std < 0:
            raise InputError(f"choose 0 < gamma <= 1 and reward_std >= 0; got {self.gamma} and {self.reward_std}.")
        if self.shared and not all((a == a[:1]).all() for a in (self.counts, self.reward, self.policy)):
            raise InputError("a shared model has the same counts, rewards and policy at every step: use `stationary`.")

    @property
    def horizon(self) -> int:
        return self.counts.shape[0]

    @property
    def mean_transitions(self) -> Float64[np.ndarray, "horizon states actions next"]:
        """P-bar."""
        return self.counts / self.counts.sum(-1, keepdims=True)


def random_posterior(
    states: int = 4, actions: int = 2, horizon: int = 5, seed: int = 0, gamma: float = 0.95, data: float = 1.0
) -> Posterior:
    """A posterior to play with: counts U(.3, 3) times `data`, reward means N(0, 1), a random policy.

    More `data` makes the same belief more certain: the reward's standard deviation .3 shrinks by its root.
    """
    if min(states, actions, horizon) < 1 or data <= 0:
        raise InputError(f"sizes and data must be positive; got {states}, {actions}, {horizon} and {data}.")
    rng = np.random.default_rng(seed)
    counts = rng.uniform(0.3, 3, (horizon, states, actions, states)) * data
    reward = rng.normal(size=(horizon, states, actions))
    policy = rng.dirichlet(np.ones(actions), (horizon, states))
    return Posterior(counts, reward, policy, reward_std=0.3 / data**0.5, gamma=gamma)


def stationary(posterior: Posterior, horizon: int) -> Posterior:
    """The first layer of `posterior` repeated: one unknown P and r for all `horizon` steps, so states come back."""

    def repeat(array: np.ndarray) -> np.ndarray:
        return np.repeat(array[:1], horizon, 0)

    counts, reward, policy = (repeat(array) for array in (posterior.counts, posterior.reward, posterior.policy))
    return replace(posterior, shared=True, counts=counts, reward=reward, policy=policy)


@dataclass(frozen=True, eq=False)
class Models:
    """MDPs drawn from a posterior, and their values under its policy."""

    transitions: Float64[np.ndarray, "samples horizon states actions next"]
    rewards: Float64[np.ndarray, "samples horizon states actions"]
    q: Float64[np.ndarray, "samples horizon states actions"]
    v: Float64[np.ndarray, "samples horizon+1 states"]


def sample(posterior: Posterior, samples: int, rng: Generator) -> Models:
    """Draw MDPs. With `posterior.shared` the first layer's draw holds at every step."""
    if samples < 2:
        raise InputError(f"a variance needs at least 2 samples; got {samples}.")
    layers = 1 if posterior.shared else posterior.horizon
    counts, mean = posterior.counts[:layers], posterior.reward[:layers]
    gammas = rng.standard_gamma(np.broadcast_to(counts, (samples, *counts.shape)))
    transitions = gammas / gammas.sum(-1, keepdims=True)
    rewards = mean + posterior.reward_std * rng.standard_normal((samples, *mean.shape))
    if posterior.shared:
        transitions = np.broadcast_to(transitions, (samples, *posterior.counts.shape))
        rewards = np.broadcast_to(rewards, (samples, *posterior.reward.shape))
    q, v = values(transitions, rewards, posterior.policy, posterior.gamma)
    return Models(transitions, rewards, q, v)


def values(
    transitions: Float64[np.ndarray, "*models horizon states actions next"],
    rewards: Float64[np.ndarray, "*models horizon states actions"],
    policy: Float64[np.ndarray, "horizon states actions"],
    gamma: float,
) -> tuple[Float64[np.ndarray, "*models horizon states actions"], Float64[np.ndarray, "*models horizon+1 states"]]:
    """Q^h(s, a) = r + gamma sum_s' P(s'|s,a) V^{h+1}(s'),  V^h(s) = sum_a pi(a|s) Q^h(s, a),  V^H = 0."""
    horizon, states = policy.shape[:2]
    q = np.zeros(rewards.shape)
    v = np.zeros((*rewards.shape[:-3], horizon + 1, states))
    for h in reversed(range(horizon)):
        following = v[..., h + 1, None, :, None]  # (*models, 1, next, 1)
        q[..., h, :, :] = rewards[..., h, :, :] + gamma * (transitions[..., h, :, :, :] @ following)[..., 0]
        v[..., h, :] = (policy[h] * q[..., h, :, :]).sum(-1)
    return q, v


def mean_values(
    posterior: Posterior,
) -> tuple[Float64[np.ndarray, "horizon states actions"], Float64[np.ndarray, "horizon+1 states"]]:
    """Q and V of the mean MDP: where no state comes back, these are the posterior means of Q and V."""
    return values(posterior.mean_transitions, posterior.reward, posterior.policy, posterior.gamma)


# -- the bounds -------------------------------------------------------------------------------------------------------


def local_uncertainty(posterior: Posterior) -> Float64[np.ndarray, "horizon states actions"]:
    """The paper's local term (1): u = Var_p[ r + gamma sum_s' P(s'|s,a) V-bar(s') ].

    For P ~ Dirichlet(c) with mean m and c_0 = sum c:  Var[sum P V] = (sum m V^2 - (sum m V)^2) / (c_0 + 1).
    """
    _, v = mean_values(posterior)
    m, following = posterior.mean_transitions, v[1:, None, None, :]
    spread = (m * following**2).sum(-1) - (m * following).sum(-1) ** 2
    total = posterior.counts.sum(-1)
    return posterior.reward_std**2 + posterior.gamma**2 * spread / (total + 1)


def loose_local_uncertainty(posterior: Posterior, q_max: float) -> Float64[np.ndarray, "horizon states actions"]:
    """O'Donoghue's local term (2): u = Var[r] + Q_max^2 sum_s' Var[P(s'|s,a)] / P-bar(s'|s,a).

    Var[P(s')] = m (1 - m) / (c_0 + 1), so the sum is (states - 1) / (c_0 + 1) whatever the belief favours.
    """
    states, total = posterior.counts.shape[1], posterior.counts.sum(-1)
    return posterior.reward_std**2 + q_max**2 * (states - 1) / (total + 1)


def propagate(
    u: Float64[np.ndarray, "horizon states actions"], posterior: Posterior
) -> Float64[np.ndarray, "horizon states actions"]:
    """The uncertainty Bellman equation: U^h = u^h + gamma^2 P-bar^pi U^{h+1}, U^H = 0."""
    return values(posterior.mean_transitions, u, posterior.policy, posterior.gamma**2)[0]


def luis_local_uncertainty(posterior: Posterior, models: Models) -> Float64[np.ndarray, "horizon states"]:
    """Luis et al. (2023): the local term of V with which the Bellman equation is exact, estimated from `models`.

    w(s) = Var_p[sum_a pi r] + gamma^2 { Var_{a,s'~pi,P-bar}[V-bar(s')] - E_p[ Var_{a,s'~pi,P}[V_p(s')] ] }
    """
    _, v = mean_values(posterior)
    pi = posterior.policy

    def spread(transitions: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Var of V(s') over action and next state."""
        reached = (pi[..., None] * transitions).sum(-2)  # (..., horizon, states, next)
        mean = (reached * following[..., None, :]).sum(-1)
        return (reached * following[..., None, :] ** 2).sum(-1) - mean**2

    outer = spread(posterior.mean_transitions, v[1:])
    inner = spread(models.transitions, models.v[:, 1:]).mean(0)
    return posterior.reward_std**2 * (pi**2).sum(-1) + posterior.gamma**2 * (outer - inner)


def propagate_states(
    w: Float64[np.ndarray, "horizon states"], posterior: Posterior
) -> Float64[np.ndarray, "horizon states"]:
    """U^h(s) = w^h(s) + gamma^2 sum_{a,s'} pi P-bar U^{h+1}(s'): with Luis' w it is Var_p[V^h(s)] itself."""
    repeated = np.repeat(w[..., None], posterior.policy.shape[-1], -1)
    return values(posterior.mean_transitions, repeated, posterior.policy, posterior.gamma**2)[1][:-1]


# -- the truth --------------------------------------------------------------------------------------------------------


def exact_variance(
    posterior: Posterior,
) -> tuple[Float64[np.ndarray, "horizon states actions"], Float64[np.ndarray, "horizon+1 states"]]:
    """Var_p[Q] and Var_p[V] without sampling, by second moments [ours].

    M^h = E[V^h V^h'] over pairs of states. For one (s, a): E[Q^2] = r^2 + sd^2 + 2 gamma r m'V + gamma^2 E[P'MP] with
    E[P_i P_j] = (c_0 m_i m_j + [i=j] m_i) / (c_0 + 1); for two different ones the mean m m' takes its place.
    """
    if posterior.shared:
        raise InputError("closed form needs (P, r) independent between steps; for a shared model use `sample`.")
    horizon, states, actions = posterior.reward.shape
    gamma, m = posterior.gamma, posterior.mean_transitions
    v = mean_values(posterior)[1]
    total = posterior.counts.sum(-1)
    second = np.zeros((states, states))  # M^{h+1}
    variance_q, variance_v = np.zeros(posterior.reward.shape), np.zeros((horizon + 1, states))
    for h in reversed(range(horizon)):
        rows = m[h].reshape(-1, states)
        diagonal = (total[h] * (m[h] @ second * m[h]).sum(-1) + m[h] @ second.diagonal()) / (total[h] + 1)
        covariance = gamma**2 * (rows @ second @ rows.T - np.outer(rows @ v[h + 1], rows @ v[h + 1]))
        variance_q[h] = posterior.reward_std**2 + gamma**2 * (diagonal - (m[h] @ v[h + 1]) ** 2)
        np.fill_diagonal(covariance, variance_q[h].reshape(-1))
        mix = np.zeros((states, states, actions))
        mix[np.arange(states), np.arange(states)] = posterior.policy[h]
        flat = mix.reshape(states, -1)
        spread = flat @ covariance @ flat.T
        variance_v[h] = spread.diagonal()
        second = spread + np.outer(v[h], v[h])
    return variance_q, variance_v


def identity(
    posterior: Posterior, models: Models
) -> tuple[Float64[np.ndarray, "horizon states actions"], Float64[np.ndarray, "horizon states actions"]]:
    """Both sides of (3), estimated from `models`: the law of total variance, one step.

    Var[Q] = Var[r] + gamma^2 { Var_{s'~P-bar}[V-bar] + E_{s'~P-bar} Var_p[V(s')] - E_p[ Var_{s'~P}[V_p(s')] ] }
    """
    _, v = mean_values(posterior)
    m = posterior.mean_transitions

    def spread(transitions: np.ndarray, following: np.ndarray) -> np.ndarray:
        following = following[..., None, None, :]
        return (transitions * following**2).sum(-1) - (transitions * following).sum(-1) ** 2

    inner = spread(models.transitions, models.v[:, 1:]).mean(0)
    onward = (m * models.v[:, 1:].var(0)[:, None, None, :]).sum(-1)
    bracket = spread(m, v[1:]) + onward - inner
    return models.q.var(0), posterior.reward_std**2 + posterior.gamma**2 * bracket


def stationary_bound(posterior: Posterior) -> Float64[np.ndarray, "states actions"]:
    """The paper's U of a stationary MDP over an endless horizon: U = (I - gamma^2 P-bar_pi)^-1 u_pi, from layer 0."""
    m, pi, gamma = posterior.mean_transitions[0], posterior.policy[0], posterior.gamma
    _endless(gamma)
    reached, eye = (pi[..., None] * m).sum(1), np.eye(len(m))
    v = np.linalg.solve(eye - gamma * reached, (pi * posterior.reward[0]).sum(-1))
    spread = (m @ v**2 - (m @ v) ** 2) / (posterior.counts[0].sum(-1) + 1)
    u = posterior.reward_std**2 + gamma**2 * spread
    return u + gamma**2 * m @ np.linalg.solve(eye - gamma**2 * reached, (pi * u).sum(-1))


def stationary_variance(posterior: Posterior, samples: int, rng: Generator) -> Float64[np.ndarray, "states actions"]:
    """Var_p[Q] of the same endless MDP, each drawn model's Q by a linear solve."""
    _endless(posterior.gamma)
    models = sample(stationary(posterior, 1), samples, rng)
    transitions, rewards = models.transitions[:, 0], models.rewards[:, 0]
    pi, states = posterior.policy[0], posterior.counts.shape[1]
    reached = (pi[..., None] * transitions).sum(2)
    v = np.linalg.solve(np.eye(states) - posterior.gamma * reached, (pi * rewards).sum(-1)[..., None])
    return (rewards + posterior.gamma * (transitions @ v[:, None])[..., 0]).var(0)


def _endless(gamma: float) -> None:
    if gamma >= 1:
        raise InputError("an endless horizon needs gamma < 1.")


# -- the study --------------------------------------------------------------------------------------------------------


def compare_bounds(samples: int, seed: int) -> dict[str, float]:
    """The tabular part of a run's result: the bounds over the true variance, and what happens when states come back.

    The posterior itself changes with the seed. Q_max of (2) is the largest |Q| in any of the sampled models.
    """
    posterior, rng = random_posterior(seed=seed), np.random.default_rng(derive(seed, 1))
    models = sample(posterior, samples, rng)
    measured, (exact, _) = models.q.var(0), exact_variance(posterior)
    tight = propagate(local_uncertainty(posterior), posterior)
    loose = propagate(loose_local_uncertainty(posterior, float(np.abs(models.q).max())), posterior)
    luis = propagate_states(luis_local_uncertainty(posterior, models), posterior)
    lhs, rhs = identity(posterior, models)
    cyclic = stationary_bound(posterior) / stationary_variance(posterior, samples, rng)
    return {
        "tight_min": float((tight / exact).min()),
        "tight_mean": float((tight / exact).mean()),
        "tight_max": float((tight / exact).max()),
        "tight_min_measured": float((tight / measured).min()),
        "loose_min": float((loose / exact).min()),
        "loose_mean": float((loose / exact).mean()),
        "loose_max": float((loose / exact).max()),
        "luis_error": float(np.abs(luis / models.v[:, :-1].var(0) - 1).max()),
        "identity_error": float(np.abs(rhs / lhs - 1).max()),
        "sampling_error": float(np.abs(measured / exact - 1).max()),
        "mean_error": float(np.abs(models.q.mean(0) - mean_values(posterior)[0]).max()),
        "cyclic_min": float(cyclic.min()),
        "cyclic_max": float(cyclic.max()),
    }
