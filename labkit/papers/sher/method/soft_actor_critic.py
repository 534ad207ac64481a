"""The paper's agent: maximum-entropy reinforcement learning on relabelled experience.

With a binary variable O_t, p(O_t = 1 | s, a, g) = exp(r / alpha), rewards of -1 and 0 are probabilities as they stand:
exp(-1/alpha) away from the goal, 1 at the goal. Maximising the evidence bound of log p(O_1..T | g) gives soft backups

    V(s,g) = E_{a~pi}[ Q(s,a,g) - alpha log pi(a|s,g) ],   Q(s,a,g) = r + gamma E V(s',g),   pi ~ exp((Q - V) / alpha)

that hold for *every* goal: this is what hindsight needs. [standard derivation; the abstract announces the programme]
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from labkit.papers.sher.method.agent import Settings, Sizes, backup, per_copy
from labkit.papers.sher.method.hindsight import Transitions
from labkit.papers.sher.method.model import GaussianPolicy, GoalInput, Value
from labkit.rl.gaussian import tanh_gaussian
from labkit.rl.networks import polyak_


class Temperature(nn.Module):
    """alpha of every copy: fixed (SHER), or, where it is None, learned with the target entropy -dim(a) [peer code]."""

    fixed: Tensor
    learned: Tensor

    def __init__(self, alphas: Sequence[float | None]) -> None:
        super().__init__()
        self.register_buffer("fixed", per_copy([0.0 if alpha is None else alpha for alpha in alphas]))
        self.register_buffer("learned", per_copy([float(alpha is None) for alpha in alphas]))
        self.log_alpha = nn.Parameter(torch.full_like(self.fixed, 0.1).log())
        self.any_learned = any(alpha is None for alpha in alphas)

    def forward(self) -> Float[Tensor, "copies 1"]:
        return torch.where(self.learned > 0, self.log_alpha.detach().exp(), self.fixed)

    def loss(self, log_prob: Float[Tensor, "copies batch"], actions: int) -> Float[Tensor, " copies"]:
        """-log alpha (log pi + target entropy): log alpha as in [peer code]; the paper of SAC v2 writes alpha."""
        return -(self.learned * self.log_alpha * (log_prob.detach() - actions)).mean(-1)


class SoftActorCritic(nn.Module):
    """SHER's learner: SAC version 1, with a V network and its slow copy V-bar. [official code] Formulas: `losses`.

    log pi in y_V is each row's own [ours]. The released code subtracts a vector (B,) from a column (B, 1): V learns Q
    minus alpha times the *batch mean* of log pi, one entropy for all states; `batch_entropy` does that.

    Args:
        alphas: temperature of every copy; None: learned.
        generators: one per copy, its initial weights are drawn from it.
    """

    def __init__(
        self, sizes: Sizes, settings: Settings, alphas: Sequence[float | None], generators: Sequence[Generator]
    ) -> None:
        super().__init__()
        copies, hidden, gain = len(alphas), settings.hidden, settings.final_gain
        self.settings = settings
        self.noise_size = sizes.action
        self.inputs = GoalInput(copies, sizes.observation, sizes.goal, settings.normalize)
        state, both = self.inputs.size, self.inputs.size + sizes.action
        self.policy = GaussianPolicy(
            copies, state, sizes.action, hidden, settings.head, settings.log_std, gain, generators
        )
        self.q1, self.q2 = (Value(copies, both, hidden, gain, generators) for _ in range(2))
        self.v = Value(copies, state, hidden, gain, generators)
        self.v_target = copy.deepcopy(self.v).requires_grad_(False)
        self.temperature = Temperature(alphas)

    def act(
        self, x: Float[Tensor, "copies batch input"], noise: Float[Tensor, "copies batch action"] | None
    ) -> Float[Tensor, "copies batch action"]:
        """A sample of pi; without noise, tanh of the mean."""
        mean, log_std = self.policy(x)
        return torch.tanh(mean) if noise is None else tanh_gaussian(mean, log_std, noise)[0]

    def losses(self, batch: Transitions, noise: Float[Tensor, "copies batch action"]) -> dict[str, Tensor]:
        """J_pi, J_Q + J_V and, where it is learned, J_alpha, each per copy.

        y_Q = clip(r + gamma V-bar(s',g))            J_Q = 1/2 E (Q1 - y_Q)^2 + 1/2 E (Q2 - y_Q)^2
        y_V = min(Q1,Q2)(s,a~,g) - alpha log pi      J_V = 1/2 E (V - y_V)^2          a~ ~ pi, fresh
        J_pi = E[ alpha log pi(a~|s,g) - Q1(s,a~,g) ]     (Q1, not the minimum)
        """
        x = self.inputs(batch.observation, batch.goal)
        x_next = self.inputs(batch.next_observation, batch.goal)
        alpha = self.temperature()
        mean, log_std = self.policy(x)
        action, log_prob = tanh_gaussian(mean, log_std, noise)
        q1_new = self.q1(x, action)
        with torch.set_grad_enabled(self.settings.minimum_in_actor):
            q_least = torch.minimum(q1_new, self.q2(x, action))
        with torch.no_grad():
            y_q = backup(batch.reward, self.v_target(x_next), batch.ended, self.settings)
            y_v = q_least - alpha * (log_prob.mean(-1, keepdim=True) if self.settings.batch_entropy else log_prob)
        j_q = (self.q1(x, batch.action) - y_q) ** 2 + (self.q2(x, batch.action) - y_q) ** 2
        j_v = (self.v(x) - y_v) ** 2
        losses = {
            "critic": 0.5 * (j_q + j_v).mean(-1),
            "policy": (alpha * log_prob - (q_least if self.settings.minimum_in_actor else q1_new)).mean(-1),
        }
        if self.temperature.any_learned:
            losses["temperature"] = self.temperature.loss(log_prob, batch.action.shape[-1])
        return losses

    def parts(self) -> Mapping[str, list[nn.Parameter]]:
        critics = (self.q1, self.q2, self.v)
        parts = {
            "critic": [p for network in critics for p in network.parameters()],
            "policy": list(self.policy.parameters()),
        }
        return parts | ({"temperature": [self.temperature.log_alpha]} if self.temperature.any_learned else {})

    def update_targets(self, keep: float) -> None:
        polyak_(self.v_target, self.v, keep)
