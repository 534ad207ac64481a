"""The task on which the official code verifies its uncertainty ("point_2d", in truth three-dimensional).

    s' = s + clip(a, -0.1, 0.1),    r = -|s'|,    start U(-1, 1)^3, 30 steps, gamma 0.99            [official code]

Nothing is random but the policy. Here an action of 1 is a full step of 0.1; the controller is [ours].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.rl.streams import Streams


@dataclass(frozen=True)
class Point:
    """The task. States and actions are (..., 3)."""

    state_size: int = 3
    action_size: int = 3
    horizon: int = 30
    gamma: float = 0.99
    box: float = 1.5
    reach: float = 5.0
    pull: float = 0.3  # of a full step

    def step(
        self,
        state: Float[Tensor, "*batch 3"],
        action: Float[Tensor, "*batch 3"],
        noise: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 3"]:
        """There is no noise in this world, whatever is offered."""
        return state + 0.1 * action.clamp(-1, 1)

    def reward(
        self,
        state: Float[Tensor, "*#batch 3"],
        action: Float[Tensor, "*#batch 3"],
        next_state: Float[Tensor, "*batch 3"],
    ) -> Float[Tensor, "*batch"]:
        return -next_state.norm(dim=-1)

    def controller(self, state: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Slowly home: where it stood still at the origin, the kink of the reward would turn noise into bias."""
        return -self.pull * state / (state.norm(dim=-1, keepdim=True) + 0.1)

    def starts(self, streams: Streams, count: int) -> Float[Tensor, "copies count 3"]:
        return 2 * streams.uniform(count, 3) - 1

    def data_starts(self, streams: Streams, episodes: int) -> Float[Tensor, "copies episodes 3"]:
        return self.starts(streams, episodes)


@dataclass(frozen=True, eq=False)
class FakeEnsemble:
    """The true model plus fresh noise N(0, sigma^2) for every member and step: independence by construction.

    [official code]: the second way in which the uncertainty is verified.
    """

    task: Point
    sigma: float
    members: int
    generator: torch.Generator

    def __call__(
        self, state: Float[Tensor, "copies rows 3"], action: Float[Tensor, "copies rows 3"]
    ) -> Float[Tensor, "copies members rows 3"]:
        truth = self.task.step(state, action)[:, None]
        shape = (truth.shape[0], self.members, *truth.shape[2:])
        return truth + self.sigma * torch.randn(shape, generator=self.generator)
