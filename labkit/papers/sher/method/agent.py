"""What all agents share: settings, first weights, the critics' target, optimizers, exploration noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.sher.method.hindsight import Transitions
from labkit.papers.sher.method.model import GoalInput


@dataclass(frozen=True)
class Sizes:
    """Of the environment: numbers in an observation, a goal, an action."""

    observation: int
    goal: int
    action: int


@dataclass(frozen=True)
class Settings:
    """Hyperparameters that all copies of a stack share. Defaults are those of [official code], with plain heads.

    Args:
        gamma: discount factor, below 1.
        rewards: the least and the greatest that a step can bring: -1 and 0 in [official code].
        clip: of the critics' target, see `clip_target`.
        minimum_in_actor: the policy maximizes min(Q1, Q2) in place of Q1.
        batch_entropy: V's target holds the mean of log pi over the batch in place of each row's own [official code].
        hidden: widths of the hidden layers of every network.
        final_gain: factor on the initial weights of every last layer.
        head, log_std: of the policy, see `GaussianPolicy`.
        normalize: observations and goals, by their running statistics.
    """

    gamma: float = 0.99
    rewards: tuple[float, float] = (-1.0, 0.0)
    clip: str = "both"
    minimum_in_actor: bool = False
    batch_entropy: bool = False
    hidden: tuple[int, ...] = (256, 256, 256)
    final_gain: float = 1.0
    head: str = "standard"
    log_std: tuple[float, float] = (-20.0, 2.0)
    normalize: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < 1:
            raise InputError(f"gamma must be at least 0 and below 1, or values have no bound; got {self.gamma}.")
        if not -math.inf < self.rewards[0] < self.rewards[1] < math.inf:
            raise InputError(f"rewards are the least and the greatest one, finite numbers; got {self.rewards}.")


@runtime_checkable
class Agent(Protocol):
    """A stack of learners: row i of every argument and result belongs to copy i."""

    inputs: GoalInput
    noise_size: int  # standard normal numbers that one transition of an update needs

    def act(self, x: Tensor, noise: Tensor | None) -> Tensor: ...
    def losses(self, batch: Transitions, noise: Tensor) -> dict[str, Tensor]: ...
    def parts(self) -> Mapping[str, list[nn.Parameter]]: ...
    def update_targets(self, keep: float) -> None: ...


def per_copy(values: Sequence[float], device: torch.device | str = "cpu") -> Float[Tensor, "copies 1"]:
    return torch.tensor(values, device=device)[:, None]


def backup(
    reward: Float[Tensor, "copies batch"],
    value: Float[Tensor, "copies batch"],
    ended: Bool[Tensor, "copies batch"],
    settings: Settings,
) -> Float[Tensor, "copies batch"]:
    """The critics' target clip(r + gamma V(s',g)), and clip(r) where the environment ended the episode at s'."""
    target = reward + settings.gamma * torch.where(ended, 0.0, value)
    return clip_target(target, settings.gamma, settings.clip, settings.rewards)


def clip_target(
    target: Float[Tensor, "copies batch"], gamma: float, clip: str, rewards: tuple[float, float] = (-1.0, 0.0)
) -> Float[Tensor, "copies batch"]:
    """A reward for ever, r / (1 - gamma), or once and then the end, r, bounds what values without entropy can be:
    -1 / (1 - gamma) and 0 for rewards -1 and 0. Soft values may be larger: the upper bound then cuts off the entropy
    bonus at the goal. A narrow policy's entropy is negative and may push them lower.

    clip: both: at both bounds [official code]; lower: at the lower one only; none.
    """
    low, high = rewards
    least, greatest = min(low / (1 - gamma), low), max(high / (1 - gamma), high)
    if clip == "both":
        return target.clamp(least, greatest)
    if clip == "lower":
        return target.clamp(min=least)
    if clip == "none":
        return target
    raise InputError(f"clip must be 'both', 'lower' or 'none'; got '{clip}'.")


class Optimizers:
    """One Adam per part of the agent. Adam treats every number alone, so a stack's Adam is its networks' Adams.

    Args:
        rates: step size of each part: critic, policy, temperature.
    """

    def __init__(self, agent: Agent, rates: Mapping[str, float], device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self.parts = {
            name: torch.optim.Adam(parameters, rates[name], fused=True, capturable=on_gpu)
            for name, parameters in agent.parts().items()
        }

    def descend(self, losses: Mapping[str, Float[Tensor, " copies"]], processes: int = 1) -> None:
        """All gradients first, then all steps: every loss is taken at the same weights, as in [official code]."""
        gradients = {}
        for name, optimizer in self.parts.items():
            parameters = optimizer.param_groups[0]["params"]
            gradients[name] = torch.autograd.grad(losses[name].sum(), parameters)
        if processes > 1:
            average_over_processes([g for part in gradients.values() for g in part], processes)
        for name, optimizer in self.parts.items():
            for parameter, gradient in zip(optimizer.param_groups[0]["params"], gradients[name], strict=True):
                parameter.grad = gradient
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.keys() != self.parts.keys():
            raise ValueError(f"{sorted(state_dict)} were saved, {sorted(self.parts)} are wanted")
        for name, optimizer in self.parts.items():
            optimizer.load_state_dict(state_dict[name])


def average_over_processes(gradients: Sequence[Tensor], processes: int) -> None:
    """The mean over the processes' equal shares of a batch is the whole batch's; in place, in one message."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def explore(
    action: Float[Tensor, "copies batch action"],
    noise: Float[Tensor, "copies batch action"],
    coin: Float[Tensor, "copies batch"],
    random: Float[Tensor, "copies batch action"],
    sigma: Float[Tensor, "copies 1"],
    epsilon: Float[Tensor, "copies 1"],
) -> Float[Tensor, "copies batch action"]:
    """a + sigma N(0, 1), clipped to [-1, 1]; with probability epsilon a uniform action instead [official code of HER].

    noise: standard normal; coin: uniform in [0, 1); random: uniform in [-1, 1).
    """
    noisy = (action + sigma[..., None] * noise).clamp(-1, 1)
    return torch.where((coin < epsilon)[..., None], random, noisy)
