"""The rivals on the same data path: HER (DDPG), SAC version 2 and, for rows of bits, Q-learning."""

import copy
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from labkit.papers.sher.method.agent import Settings, Sizes, backup, per_copy
from labkit.papers.sher.method.hindsight import Transitions
from labkit.papers.sher.method.model import GaussianPolicy, GoalInput, Value
from labkit.papers.sher.method.soft_actor_critic import Temperature
from labkit.rl.gaussian import tanh_gaussian
from labkit.rl.networks import StackedMLP, polyak_


class DeterministicActorCritic(nn.Module):
    """HER's learner: DDPG with a target policy. [official code of HER]

        y = clip(r + gamma Q-bar(s', pi-bar(s',g), g))     J_Q = 1/2 E (Q - y)^2
        J_pi = -E Q(s, pi(s,g), g) + l2 E |pi(s,g)|^2 / dim(a)

    It cannot explore by itself: noise is the caller's business, and what SHER's entropy is to replace.
    """

    action_l2: Tensor

    def __init__(
        self, sizes: Sizes, settings: Settings, action_l2: Sequence[float], generators: Sequence[Generator]
    ) -> None:
        super().__init__()
        copies, hidden, gain = len(action_l2), settings.hidden, settings.final_gain
        self.settings = settings
        self.noise_size = sizes.action  # drawn and not used: every agent of a replica has the same random numbers
        self.inputs = GoalInput(copies, sizes.observation, sizes.goal, settings.normalize)
        state, both = self.inputs.size, self.inputs.size + sizes.action
        self.policy = StackedMLP(copies, (state, *hidden, sizes.action), final_gain=gain, generators=generators)
        self.q = Value(copies, both, hidden, gain, generators)
        self.policy_target, self.q_target = (copy.deepcopy(n).requires_grad_(False) for n in (self.policy, self.q))
        self.register_buffer("action_l2", per_copy(action_l2))

    def act(
        self, x: Float[Tensor, "copies batch input"], noise: Float[Tensor, "copies batch action"] | None
    ) -> Float[Tensor, "copies batch action"]:
        """tanh(policy); there is nothing to sample."""
        return torch.tanh(self.policy(x))

    def losses(self, batch: Transitions, noise: Float[Tensor, "copies batch action"]) -> dict[str, Tensor]:
        x = self.inputs(batch.observation, batch.goal)
        x_next = self.inputs(batch.next_observation, batch.goal)
        with torch.no_grad():
            q_next = self.q_target(x_next, torch.tanh(self.policy_target(x_next)))
            y = backup(batch.reward, q_next, batch.ended, self.settings)
        action = torch.tanh(self.policy(x))
        penalty = self.action_l2 * (action**2).mean(-1)
        return {
            "critic": 0.5 * ((self.q(x, batch.action) - y) ** 2).mean(-1),
            "policy": (penalty - self.q(x, action)).mean(-1),
        }

    def parts(self) -> Mapping[str, list[nn.Parameter]]:
        return {"critic": list(self.q.parameters()), "policy": list(self.policy.parameters())}

    def update_targets(self, keep: float) -> None:
        polyak_(self.policy_target, self.policy, keep)
        polyak_(self.q_target, self.q, keep)


class SoftActorCritic2(nn.Module):
    """SAC version 2: no V, slow copies of both Q, the minimum in the policy's loss too. [peer code]

    y_Q = clip(r + gamma (min(Q1-bar, Q2-bar)(s',a',g) - alpha log pi(a'|s',g))),   a' ~ pi(.|s',g)
    J_pi = E[ alpha log pi(a~|s,g) - min(Q1,Q2)(s,a~,g) ]
    """

    def __init__(
        self, sizes: Sizes, settings: Settings, alphas: Sequence[float | None], generators: Sequence[Generator]
    ) -> None:
        super().__init__()
        copies, hidden, gain = len(alphas), settings.hidden, settings.final_gain
        self.settings, self.noise_size = settings, 2 * sizes.action
        self.inputs = GoalInput(copies, sizes.observation, sizes.goal, settings.normalize)
        state, both = self.inputs.size, self.inputs.size + sizes.action
        self.policy = GaussianPolicy(
            copies, state, sizes.action, hidden, settings.head, settings.log_std, gain, generators
        )
        self.q1, self.q2 = (Value(copies, both, hidden, gain, generators) for _ in range(2))
        self.q1_target, self.q2_target = (copy.deepcopy(q).requires_grad_(False) for q in (self.q1, self.q2))
        self.temperature = Temperature(alphas)

    def act(
        self, x: Float[Tensor, "copies batch input"], noise: Float[Tensor, "copies batch action"] | None
    ) -> Float[Tensor, "copies batch action"]:
        mean, log_std = self.policy(x)
        return torch.tanh(mean) if noise is None else tanh_gaussian(mean, log_std, noise)[0]

    def losses(self, batch: Transitions, noise: Float[Tensor, "copies batch twice"]) -> dict[str, Tensor]:
        here, there = noise.chunk(2, dim=-1)
        x = self.inputs(batch.observation, batch.goal)
        x_next = self.inputs(batch.next_observation, batch.goal)
        alpha = self.temperature()
        with torch.no_grad():
            mean, log_std = self.policy(x_next)
            next_action, next_log_prob = tanh_gaussian(mean, log_std, there)
            q_next = torch.minimum(self.q1_target(x_next, next_action), self.q2_target(x_next, next_action))
            y_q = backup(batch.reward, q_next - alpha * next_log_prob, batch.ended, self.settings)
        mean, log_std = self.policy(x)
        action, log_prob = tanh_gaussian(mean, log_std, here)
        q_least = torch.minimum(self.q1(x, action), self.q2(x, action))
        squares = (self.q1(x, batch.action) - y_q) ** 2 + (self.q2(x, batch.action) - y_q) ** 2
        losses = {"critic": 0.5 * squares.mean(-1), "policy": (alpha * log_prob - q_least).mean(-1)}
        if self.temperature.any_learned:
            losses["temperature"] = self.temperature.loss(log_prob, batch.action.shape[-1])
        return losses

    def parts(self) -> Mapping[str, list[nn.Parameter]]:
        parts = {"critic": [*self.q1.parameters(), *self.q2.parameters()], "policy": list(self.policy.parameters())}
        return parts | ({"temperature": [self.temperature.log_alpha]} if self.temperature.any_learned else {})

    def update_targets(self, keep: float) -> None:
        polyak_(self.q1_target, self.q1, keep)
        polyak_(self.q2_target, self.q2, keep)


class QLearning(nn.Module):
    """Deep Q-learning for finitely many actions: y = clip(r + gamma max_a Q-bar(s',a,g)), J_Q = 1/2 E (Q - y)^2."""

    def __init__(self, sizes: Sizes, settings: Settings, generators: Sequence[Generator]) -> None:
        super().__init__()
        self.settings, self.noise_size = settings, 1
        copies = len(generators)
        self.inputs = GoalInput(copies, sizes.observation, sizes.goal, settings.normalize)
        widths = (self.inputs.size, *settings.hidden, sizes.action)
        self.q = StackedMLP(copies, widths, final_gain=settings.final_gain, generators=generators)
        self.q_target = copy.deepcopy(self.q).requires_grad_(False)

    def act(self, x: Float[Tensor, "copies batch input"], noise: Tensor | None) -> Int[Tensor, "copies batch"]:
        """The index of the best action."""
        return self.q(x).argmax(-1)

    def losses(self, batch: Transitions, noise: Tensor) -> dict[str, Tensor]:
        x = self.inputs(batch.observation, batch.goal)
        with torch.no_grad():
            q_next = self.q_target(self.inputs(batch.next_observation, batch.goal)).amax(-1)
            y = backup(batch.reward, q_next, batch.ended, self.settings)
        q = self.q(x).gather(-1, batch.action.long()).squeeze(-1)
        return {"critic": 0.5 * ((q - y) ** 2).mean(-1)}

    def parts(self) -> Mapping[str, list[nn.Parameter]]:
        return {"critic": list(self.q.parameters())}

    def update_targets(self, keep: float) -> None:
        polyak_(self.q_target, self.q, keep)
