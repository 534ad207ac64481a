"""One environment of a task, as Gymnasium and stable-baselines3 know it. Apart: nothing else needs Gymnasium."""

import math
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from labkit.papers.pombu.experiment import tasks
from labkit.papers.pombu.experiment.worlds import Task, pendulum_step
from labkit.seeds import derive


class KnownReward(gymnasium.Wrapper[NDArray[np.float64], NDArray[np.float32], Any, Any]):
    """The task's own reward, no end before the horizon."""

    def __init__(self, env: gymnasium.Env[Any, Any], task: Task, horizon: int) -> None:
        super().__init__(env)
        self.task, self.horizon = task, horizon
        self._state, self._time = np.zeros(task.observation), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._state, info = self.env.reset(seed=seed, options=options)
        self._time = 0
        return self._state, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        paid = float(self.task.reward(self._state, np.asarray(action, dtype=np.float64)))
        self._state, _, _, _, info = self.env.step(np.clip(action, -1, 1))
        self._time += 1
        return self._state, paid, False, self._time >= self.horizon, info


class NoisyObservation(gymnasium.Wrapper[NDArray[np.float64], NDArray[np.float32], Any, Any]):
    """U(-w, w) on what is seen after a step, not after a reset; rewards see the true state.  [official code]"""

    def __init__(self, env: gymnasium.Env[Any, Any], half_width: float) -> None:
        super().__init__(env)
        self.half_width, self._random = half_width, np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._random = np.random.default_rng(derive(seed, 1))
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        seen, *rest = self.env.step(action)
        return (seen + self._random.uniform(-self.half_width, self.half_width, seen.shape), *rest)  # type: ignore[return-value]


class NoisyAction(gymnasium.Wrapper[NDArray[np.float64], NDArray[np.float32], Any, Any]):
    """U(-w, w) on every action before it is simulated; the reward's cost is that of the noisy one.  [official code]"""

    def __init__(self, env: gymnasium.Env[Any, Any], half_width: float) -> None:
        super().__init__(env)
        self.half_width, self._random = half_width, np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._random = np.random.default_rng(derive(seed, 2))
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        noise = self._random.uniform(-self.half_width, self.half_width, np.shape(action))
        return self.env.step(np.asarray(action, dtype=np.float64) + noise)


class PendulumEnvironment(gymnasium.Env[NDArray[np.float64], NDArray[np.float32]]):
    """One pendulum of `TorchPendulum` as a Gymnasium environment: what stable-baselines3 plays."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self._state = torch.zeros(3, dtype=torch.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        angle, speed = torch.from_numpy(self.np_random.uniform(-1, 1, 2))
        self._state = torch.stack([torch.cos(math.pi * angle), torch.sin(math.pi * angle), speed])
        return self._state.numpy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        force = torch.as_tensor(np.asarray(action, dtype=np.float64))
        paid = float(tasks.pendulum(self._state, force))
        self._state = pendulum_step(self._state, force)
        return self._state.numpy(), paid, False, False, {}


def build(task: Task, horizon: int, observation_noise: float, action_noise: float) -> gymnasium.Env[Any, Any]:
    """See `worlds.make_environment`, which checks what it is given."""
    # unwrapped: Gymnasium's own time limit, reward and checks are not wanted
    inner = gymnasium.make(task.gym, **task.options).unwrapped if task.gym else PendulumEnvironment()
    made: gymnasium.Env[Any, Any] = KnownReward(inner, task, horizon)
    if action_noise:
        made = NoisyAction(made, action_noise)
    return NoisyObservation(made, observation_noise) if observation_noise else made
