"""Playing whole episodes."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from labkit.errors import InputError
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment, Observation
from labkit.papers.sher.method.hindsight import Episodes

Act = Callable[[int, Observation], Tensor]  # (time, observation) -> action


@torch.no_grad()
def rollout(
    act: Act,
    world: GoalEnvironment,
    copies: int,
    episodes: int,
    generators: Sequence[Generator],
    training: bool = True,
) -> Episodes:
    """`episodes` episodes of every copy, side by side, from reset to their ends; a short one is padded with its last
    moment, and the actions that stand there mean nothing.

    Raises:
        InputError: the policy returned a number that is not finite (it diverged).
    """
    now = world.reset(copies, episodes, generators, training)
    observation, achieved, actions = [now["observation"]], [now["achieved_goal"]], []
    desired = now["desired_goal"]
    for t in range(world.horizon):
        action = act(t, now)
        now = world.step(action)
        stored = action.to(desired.dtype)
        actions.append(stored if stored.dim() == 3 else stored[..., None])
        observation.append(now["observation"])
        achieved.append(now["achieved_goal"])
        if world.over:
            break
    left = world.horizon - len(actions)
    observation += left * observation[-1:]
    achieved += left * achieved[-1:]
    actions += left * [torch.zeros_like(actions[-1])]
    whole = (torch.stack(observation, 2), torch.stack(achieved, 2), desired, torch.stack(actions, 2))
    played = Episodes(*whole, *world.ends)
    if not bool(torch.isfinite(played.action).all()):
        raise InputError("the policy's actions are not finite: the training diverged. Try a smaller learning rate.")
    return played
