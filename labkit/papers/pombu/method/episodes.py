"""Real episodes: what the algorithm asks of a world, and playing in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError

Array = Any  # a NumPy array for a simulator, a torch tensor for the models: the same lines serve both
Reward = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Task:
    """What is known beforehand: the reward and the sizes. The dynamics are learned.

    Args:
        reward: r(s, a) with any leading axes.
        observation, action: sizes of s and a.
    """

    name: str
    reward: Reward
    observation: int
    action: int


@runtime_checkable
class World(Protocol):
    """copies x episodes environments in lock-step, on the CPU, in float64. Episodes last `horizon` steps.

    starts: first observations alone, without the episodes that would follow; those of a copy depend on its seed alone.
    """

    @property
    def task(self) -> Task: ...
    @property
    def horizon(self) -> int: ...

    def reset(self, seeds: Sequence[int], episodes: int) -> Float[Tensor, "copies episodes observation"]: ...

    def starts(self, seeds: Sequence[int], count: int) -> Float[Tensor, "copies count observation"]: ...

    def step(
        self, action: Float[Tensor, "copies episodes action"]
    ) -> tuple[Float[Tensor, "copies episodes observation"], Float[Tensor, "copies episodes"]]: ...


class Episodes(NamedTuple):
    """Whole episodes, float32: states before and after each step, actions as the policy gave them, rewards."""

    state: Tensor  # (copies, episodes, horizon, observation)
    action: Tensor
    next_state: Tensor
    reward: Tensor  # (copies, episodes, horizon)


@torch.no_grad()
def play(
    world: World,
    act: Callable[[Float[Tensor, "copies episodes observation"]], Float[Tensor, "copies episodes action"]],
    seeds: Sequence[int],
    episodes: int,
) -> Episodes:
    """`episodes` real episodes of every copy, from reset to the horizon.

    Raises:
        InputError: the policy gave a number that is not finite (it diverged).
    """
    state = world.reset(seeds, episodes).float()
    steps: list[tuple[Tensor, ...]] = []
    for _ in range(world.horizon):
        action = act(state).float().cpu()
        if not bool(torch.isfinite(action).all()):
            raise InputError("the policy's actions are not finite: training diverged. Try a smaller learning rate.")
        next_state, reward = world.step(action)
        steps.append((state, action, next_state.float(), reward.float()))
        state = next_state.float()
    return Episodes(*(torch.stack(parts, 2) for parts in zip(*steps, strict=True)))
