"""The networks, every one a stack: parameters carry a leading dimension of copies."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from labkit.errors import InputError
from labkit.papers.sher.method.hindsight import Transitions
from labkit.rl.networks import StackedMLP
from labkit.rl.normalizer import RunningNormalizer


class GoalInput(nn.Module):
    """(o, g) as one vector, normalized by their running statistics unless `normalize` is off.

    std floor .01, result clipped to +-5, raw values to +-200 [official code].
    """

    def __init__(self, copies: int, observation_size: int, goal_size: int, normalize: bool) -> None:
        super().__init__()
        self.size = observation_size + goal_size
        self.normalize = normalize
        self.observation = RunningNormalizer(observation_size, copies=copies, raw_clip=200.0)
        self.goal = RunningNormalizer(goal_size, copies=copies, raw_clip=200.0)

    def forward(
        self, observation: Float[Tensor, "copies batch observation"], goal: Float[Tensor, "copies batch goal"]
    ) -> Float[Tensor, "copies batch input"]:
        if self.normalize:
            observation, goal = self.observation.normalize(observation), self.goal.normalize(goal)
        return torch.cat([observation, goal], -1)

    def update(self, batch: Transitions) -> None:
        """Add relabelled transitions of new episodes to the statistics: the network is trained with these goals."""
        if self.normalize:
            self.observation.update(batch.observation)
            self.goal.update(batch.goal)


class GaussianPolicy(nn.Module):
    """pi(u | o, g) = N(mu, sigma^2) before the tanh; log sigma = low + (high - low) (tanh(raw) + 1) / 2.

    head: standard: mu and raw are two halves of one linear layer on the last hidden layer. official: the trunk ends in
    a *linear layer of width dim(a)*, from which both heads read: a bottleneck of 4 numbers for the Fetch arm.

    First weights are Xavier's, of each official head by itself [official code]; the standard one is drawn as one layer
    of width 2 dim(a) [ours]. The released density adds 1e-6 to sigma and to 1 - tanh(u)^2: nothing at log sigma = -5
    (1.5e-4 of sigma), everything at -20. Here the density is exact [ours].
    """

    def __init__(
        self,
        copies: int,
        inputs: int,
        actions: int,
        hidden: Sequence[int],
        head: str,
        log_std: tuple[float, float],
        final_gain: float,
        generators: Sequence[Generator],
    ) -> None:
        super().__init__()
        if head not in ("standard", "official"):
            raise InputError(f"head must be 'standard' or 'official'; got '{head}'.")
        self.low, self.high = log_std
        width = 2 * actions if head == "standard" else actions
        gain = final_gain if head == "standard" else 1.0
        self.trunk = StackedMLP(copies, (inputs, *hidden, width), final_gain=gain, generators=generators)
        self.heads = None
        if head == "official":
            apart = final_gain * 1.5**0.5  # Xavier's bound of (a, 2a) -> that of two layers (a, a)
            self.heads = StackedMLP(copies, (actions, 2 * actions), final_gain=apart, generators=generators)

    def forward(
        self, x: Float[Tensor, "copies batch input"]
    ) -> tuple[Float[Tensor, "copies batch action"], Float[Tensor, "copies batch action"]]:
        """Mean and log-deviation."""
        out = self.trunk(x)
        mean, raw = (out if self.heads is None else self.heads(out)).chunk(2, dim=-1)
        return mean, self.low + 0.5 * (self.high - self.low) * (torch.tanh(raw) + 1)


class Value(nn.Module):
    """A number per row: Q(o, g, a), or V(o, g)."""

    def __init__(
        self, copies: int, inputs: int, hidden: Sequence[int], final_gain: float, generators: Sequence[Generator]
    ) -> None:
        super().__init__()
        self.network = StackedMLP(copies, (inputs, *hidden, 1), final_gain=final_gain, generators=generators)

    def forward(self, *parts: Float[Tensor, "copies batch _"]) -> Float[Tensor, "copies batch"]:
        return self.network(torch.cat(parts, -1) if len(parts) > 1 else parts[0]).squeeze(-1)
