"""The rivals on the same data path: HER (DDPG) and, for rows of bits, Q-learning."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit.papers.sher.experiment.config import Experiment
from labkit.papers.sher.method.agent import Lane, Sizes, clip_target, per_copy, starting_generators
from labkit.papers.sher.method.hindsight import Transitions
from labkit.papers.sher.method.model import GoalInput, Value
from labkit.rl.networks import StackedMLP, polyak_


class DeterministicActorCritic(nn.Module):
    """HER's learner: DDPG with a target policy. [official code of HER]

        y = clip(r + gamma Q-bar(s', pi-bar(s',g), g))     J_Q = 1/2 E (Q - y)^2
        J_pi = -E Q(s, pi(s,g), g) + l2 E |pi(s,g)|^2 / dim(a)

    It cannot explore by itself: noise is the caller's business, and what SHER's entropy is to replace.
    """

    action_l2: Tensor

    def __init__(self, lanes: Sequence[Lane], experiment: Experiment, sizes: Sizes, device: torch.device) -> None:
        super().__init__()
        copies = len(lanes)
        self.lanes, self.gamma, self.clip = lanes, experiment.gamma, lanes[0].arm.clip
        self.noise_size = sizes.action  # drawn and not used: every agent of a replica sees the same random numbers
        self.inputs = GoalInput(copies, sizes.observation, sizes.goal, experiment.normalize)
        state, both = self.inputs.size, self.inputs.size + sizes.action
        start = starting_generators(lanes)
        hidden, gain = experiment.hidden, experiment.final_gain
        widths = (state, *hidden, sizes.action)
        self.policy = StackedMLP(copies, widths, final_gain=gain, generators=start)
        self.q = Value(copies, both, hidden, gain, start)
        self.policy_target = StackedMLP(copies, widths, generators=start).requires_grad_(False)
        self.q_target = Value(copies, both, hidden, gain, start).requires_grad_(False)
        self.update_targets(keep=0.0)
        self.register_buffer("action_l2", per_copy([lane.arm.action_l2 for lane in lanes], torch.device("cpu")))
        self.to(device)

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
            y = clip_target(batch.reward + self.gamma * q_next, self.gamma, self.clip)
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


class QLearning(nn.Module):
    """Deep Q-learning for finitely many actions: y = clip(r + gamma max_a Q-bar(s',a,g)), J_Q = 1/2 E (Q - y)^2."""

    def __init__(self, lanes: Sequence[Lane], experiment: Experiment, sizes: Sizes, device: torch.device) -> None:
        super().__init__()
        copies = len(lanes)
        self.lanes, self.gamma, self.clip, self.actions = lanes, experiment.gamma, lanes[0].arm.clip, sizes.action
        self.noise_size = 1
        self.inputs = GoalInput(copies, sizes.observation, sizes.goal, experiment.normalize)
        start = starting_generators(lanes)
        widths = (self.inputs.size, *experiment.hidden, sizes.action)
        self.q = StackedMLP(copies, widths, final_gain=experiment.final_gain, generators=start)
        self.q_target = StackedMLP(copies, widths, generators=start).requires_grad_(False)
        self.update_targets(keep=0.0)
        self.to(device)

    def act(self, x: Float[Tensor, "copies batch input"], noise: Tensor | None) -> Int[Tensor, "copies batch"]:
        """The index of the best action."""
        return self.q(x).argmax(-1)

    def losses(self, batch: Transitions, noise: Tensor) -> dict[str, Tensor]:
        x = self.inputs(batch.observation, batch.goal)
        with torch.no_grad():
            q_next = self.q_target(self.inputs(batch.next_observation, batch.goal)).amax(-1)
            y = clip_target(batch.reward + self.gamma * q_next, self.gamma, self.clip)
        q = self.q(x).gather(-1, batch.action.long()).squeeze(-1)
        return {"critic": 0.5 * ((q - y) ** 2).mean(-1)}

    def parts(self) -> Mapping[str, list[nn.Parameter]]:
        return {"critic": list(self.q.parameters())}

    def update_targets(self, keep: float) -> None:
        polyak_(self.q_target, self.q, keep)
