"""Rewards, written once: the simulator pays them and the models promise them. Known functions, nothing is learned.

All depend on the state *before* the step and on the action, clipped to +-1 for its cost  [official code]. The official
code's models take the height of walker and hopper from the next state, its simulator from the current one; here both
take the current one.  [ours]
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Array = Any  # a NumPy array for the simulator, a torch tensor for the models: the same lines serve both

Reward = Callable[[Array, Array], Array]


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
