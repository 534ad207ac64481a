"""The tasks of the paper and their rewards. Known functions, nothing is learned: simulator and models share them.

All depend on the state *before* the step and on the action, clipped to +-1 for its cost  [official code]. The official
code's models take the height of walker and hopper from the next state, its simulator from the current one; here both
take the current one.  [ours]
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from labkit.errors import InputError
from labkit.papers.pombu.method.episodes import Array, OfTransition, Task


@dataclass(frozen=True)
class GymnasiumTask(Task):
    """A task that Gymnasium simulates: `gymnasium.make(gym, **options)`."""

    gym: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def half_cheetah(state: Array, action: Array) -> Array:
    """Forward speed less 0.1 |a|^2; state = (qpos[1:], qvel), 17 numbers."""
    return state[..., 8] - 0.1 * _squared(action)


def swimmer(state: Array, action: Array) -> Array:
    """Forward speed less 1e-4 |a|^2; state = (qpos[2:], qvel), 8 numbers."""
    return state[..., 3] - 1e-4 * _squared(action)


def walker2d(state: Array, action: Array) -> Array:
    """Forward speed, a bonus of 1 for being there, 3 (z - 1.3)^2 for not standing upright; 17 numbers."""
    return state[..., 8] - 0.1 * _squared(action) - 3 * (state[..., 0] - 1.3) ** 2 + 1


def hopper(state: Array, action: Array) -> Array:
    """As `walker2d`, with one leg; state = (qpos[1:], qvel), 11 numbers."""
    return state[..., 5] - 0.1 * _squared(action) - 3 * (state[..., 0] - 1.3) ** 2 + 1


def ant(state: Array, action: Array) -> Array:
    """Forward speed, a bonus of 1, 3 (z - 0.57)^2; state = (qpos[2:], qvel) without contact forces, 27 numbers."""
    return state[..., 13] - 0.1 * _squared(action) - 3 * (state[..., 0] - 0.57) ** 2 + 1


def pendulum(state: Array, action: Array) -> Array:
    """-(angle^2 + 0.1 speed^2 + 0.001 torque^2), torque = 2 a; state = (cos, sin, speed), upright is angle 0."""
    atan2 = torch.atan2 if isinstance(state, torch.Tensor) else np.arctan2
    angle = atan2(state[..., 1], state[..., 0])
    return -(angle**2 + 0.1 * state[..., 2] ** 2 + 0.004 * _squared(action))


def _squared(action: Array) -> Array:
    return (action.clip(-1, 1) ** 2).sum(-1)


def before_the_step(reward: Callable[[Array, Array], Array]) -> OfTransition:
    """r(s, a) as a reward of the transition."""
    return lambda state, action, next_state: reward(state, action)


_HEALTHY = {"terminate_when_unhealthy": False}
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        GymnasiumTask("half-cheetah", before_the_step(half_cheetah), 17, 6, gym="HalfCheetah-v5"),
        GymnasiumTask("swimmer", before_the_step(swimmer), 8, 2, gym="Swimmer-v5"),
        GymnasiumTask("walker2d", before_the_step(walker2d), 17, 6, gym="Walker2d-v5", options=_HEALTHY),
        GymnasiumTask("hopper", before_the_step(hopper), 11, 3, gym="Hopper-v5", options=_HEALTHY),
        GymnasiumTask(
            "ant",
            before_the_step(ant),
            27,
            8,
            gym="Ant-v5",
            options={**_HEALTHY, "include_cfrc_ext_in_observation": False},
        ),
        Task("pendulum", before_the_step(pendulum), 3, 1),
    )
}


def task_named(name: str) -> Task:
    if name not in TASKS:
        raise InputError(f"there is no task '{name}'; there are {', '.join(TASKS)}.")
    return TASKS[name]
