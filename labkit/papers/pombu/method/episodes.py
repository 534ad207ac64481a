"""Real episodes: what the algorithm asks of a world, and what it gets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.errors import InputError

Array = Any  # a NumPy array for a simulator, a torch tensor for the models: the same lines serve both
OfTransition = Callable[[Array, Array, Array], Array]  # s, a, s' with any leading axes -> those axes
Act = Callable[[Float[Tensor, "copies episodes observation"]], Float[Tensor, "copies episodes action"]]

STATE_BOUND = 1e5  # of imagined states, where the task knows none  [official code]


class Episodes(NamedTuple):
    """Episodes from their start on, float32: states before and after each step, actions as the policy gave them.

    A shorter episode is filled up with zeros. length: steps that were played; terminated: the last of them ended the
    task itself, there is nothing to be had after it; else time was up.
    """

    state: Tensor  # (copies, episodes, horizon, observation)
    action: Tensor
    next_state: Tensor
    reward: Tensor  # (copies, episodes, horizon)
    length: Tensor  # (copies, episodes)
    terminated: Tensor

    def played(self) -> Bool[Tensor, "copies episodes horizon"]:
        """Which steps are no filling."""
        return torch.arange(self.reward.shape[2]) < self.length[..., None]

    def ends(self) -> Bool[Tensor, "copies episodes horizon"]:
        """Which steps ended the task."""
        last = torch.arange(self.reward.shape[2]) == self.length[..., None] - 1
        return last & self.terminated[..., None]


@dataclass(frozen=True)
class Task:
    """What is known beforehand. The dynamics are learned, and so is what is not known.

    Args:
        reward: r(s, a, s') with any leading axes; None: the members learn it.
        observation, action: sizes of s and a; actions count within [-1, 1].
        terminates: whether the task is over in s', True or False; None: the members learn it; False: never.
        low, high: bounds of each component of s, where there are any.
    """

    name: str
    reward: OfTransition | None
    observation: int
    action: int
    terminates: OfTransition | Literal[False] | None = False
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @property
    def extra_outputs(self) -> int:
        """Numbers that a member predicts beside the next state."""
        return (self.reward is None) + (self.terminates is None)

    def outcomes(self, episodes: Episodes) -> Float[Tensor, "copies episodes horizon outputs"]:
        """What members learn to predict: the next state, then the reward, then 1 for an end and 0 for none."""
        columns = [episodes.next_state]
        if self.reward is None:
            columns.append(episodes.reward[..., None])
        if self.terminates is None:
            columns.append(episodes.ends()[..., None].to(episodes.reward))
        return torch.cat(columns, -1)

    def imagined_reward(self, state: Tensor, action: Tensor, outcome: Tensor) -> Tensor:
        """r of an imagined step, by the task or by the member that imagined it."""
        if self.reward is None:
            return outcome[..., self.observation]
        return self.reward(state, action, outcome[..., : self.observation])

    def imagined_end(self, state: Tensor, action: Tensor, outcome: Tensor) -> Tensor:
        """Whether an imagined step ends the task: a member's squared-error guess of 0 or 1 is a probability.  [ours]"""
        if self.terminates is None:
            return outcome[..., -1] > 0.5
        assert self.terminates is not False, "nobody asks where episodes never end"
        return self.terminates(state, action, outcome[..., : self.observation])

    def state_bounds(self, device: torch.device) -> tuple[Float[Tensor, " observation"], Float[Tensor, " observation"]]:
        """Imagined states stay between them."""
        low, high = (-STATE_BOUND,) * self.observation, (STATE_BOUND,) * self.observation
        return torch.tensor(self.low or low, device=device), torch.tensor(self.high or high, device=device)


@runtime_checkable
class World(Protocol):
    """Where real episodes come from; on the CPU. What a copy gets depends on its seed alone.

    starts: first states alone, without the episodes that would follow. play: `episodes` episodes of every copy, each
    until the task ends or `horizon` steps are done.
    """

    @property
    def task(self) -> Task: ...
    @property
    def horizon(self) -> int: ...

    def starts(self, seeds: Sequence[int], count: int) -> Float[Tensor, "copies count observation"]: ...
    def play(self, act: Act, seeds: Sequence[int], episodes: int) -> Episodes: ...


def finite_actions(action: Float[Tensor, "copies episodes action"]) -> Float[Tensor, "copies episodes action"]:
    """The policy's actions, for the simulator.

    Raises:
        InputError: one is not finite (the policy diverged).
    """
    if not bool(torch.isfinite(action).all()):
        raise InputError("the policy's actions are not finite: training diverged. Try a smaller learning rate.")
    return action.float().cpu()
