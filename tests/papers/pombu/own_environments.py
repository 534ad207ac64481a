"""Environments that the repository does not otherwise hold: what a reader might bring."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor


class Ferry(gymnasium.Env[Any, Any]):
    """A ferry on a river: thrust in newton, from 0 to 40 ahead and from -5 to 15 sideways. It is over when it touches a
    bank, |y| > 1; pay is 1 a step, less for being away from the middle. Nothing of it is known to labkit.

    The observation is a dictionary, the action (2,) or, as `tall`, (2, 1); `limit` truncates.
    """

    def __init__(self, limit: int = 30, tall: bool = False) -> None:
        shape = (2, 1) if tall else (2,)
        low, high = (np.array(x, dtype=np.float32).reshape(shape) for x in ([0, -5], [40, 15]))
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        self.observation_space = spaces.Dict(
            {"position": spaces.Box(-2, 2, (2,), np.float64), "speed": spaces.Box(-np.inf, np.inf, (2,), np.float64)}
        )
        self.limit, self.forces, self.resets = limit, [], 0
        self._state, self._time = np.zeros(4), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.resets += 1
        self._state = np.concatenate([self.np_random.uniform(-0.3, 0.3, 2), np.zeros(2)])
        self._time = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        force = np.asarray(action, dtype=np.float64).reshape(2)
        self.forces.append(force)
        ahead, aside = force
        self._state[2:] = 0.8 * self._state[2:] + np.array([0.01 * (ahead - 20), 0.02 * (aside - 5)])
        self._state[:2] = np.clip(self._state[:2] + self._state[2:], -2, 2)
        self._time += 1
        return self._observation(), self.pay(), abs(self._state[1]) > 1, self._time >= self.limit, {}

    def pay(self) -> float:
        return 1 - float(np.square(self._state[:2]).sum())

    def _observation(self) -> dict[str, Any]:
        return {"position": self._state[:2].copy(), "speed": self._state[2:].copy()}


def ferry_pay(state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
    return 1 - next_state[..., :2].square().sum(-1)


def ferry_aground(state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
    return next_state[..., 1].abs() > 1


class Spaces(gymnasium.Env[Any, Any]):
    """Nothing but an observation and an action space."""

    def __init__(self, observation: Any = None, action: Any = None) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32) if observation is None else observation
        self.action_space = spaces.Box(-1, 1, (1,), np.float32) if action is None else action


QUICK: dict[str, Any] = {
    "episodes": 3, "updates": 2, "rollouts": 8, "epochs": 2, "batch_size": 64, "members": 2, "model_hidden": (16, 16),
    "policy_hidden": (8, 8), "model_batch": 32, "model_epochs": 20, "model_learning_rate": 2e-3, "learning_rate": 1e-3,
}  # fmt: skip


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
