"""The real worlds: five MuJoCo tasks that never end early and give the known rewards, noisy variants, a pendulum.

One environment is Gymnasium's, for every algorithm alike; many are stepped together, copies x episodes of them, each
copy with random numbers of its own.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.experiment import tasks
from labkit.papers.pombu.experiment.tasks import GymnasiumTask, task_named
from labkit.papers.pombu.method.episodes import Act, Episodes, Task, World, finite_actions
from labkit.seeds import derive

# -- one environment --------------------------------------------------------------------------------------------------


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
        assert self.task.reward is not None
        before, (self._state, _, _, _, info) = self._state, self.env.step(np.clip(action, -1, 1))
        reward = float(self.task.reward(before, np.asarray(action, dtype=np.float64), self._state))
        self._time += 1
        return self._state, reward, False, self._time >= self.horizon, info


class NoisyObservation(gymnasium.Wrapper[NDArray[np.float64], NDArray[np.float32], Any, Any]):
    """U(-w, w) on the observation after a step, not after a reset; rewards see the true state.  [official code]"""

    def __init__(self, env: gymnasium.Env[Any, Any], half_width: float) -> None:
        super().__init__(env)
        self.half_width, self._random = half_width, np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._random = np.random.default_rng(derive(seed, 1))
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        state, *rest = self.env.step(action)
        noise = self._random.uniform(-self.half_width, self.half_width, state.shape)
        return (state + noise, *rest)  # type: ignore[return-value]


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
        reward = float(tasks.pendulum(self._state, force))
        self._state = pendulum_step(self._state, force)
        return self._state.numpy(), reward, False, False, {}


def make_environment(
    name: str, horizon: int, observation_noise: float = 0.0, action_noise: float = 0.0
) -> gymnasium.Env[Any, Any]:
    """A task as every algorithm plays it, baselines included.

    Args:
        horizon: steps of an episode; it is truncated there, and ends nowhere else.
        observation_noise, action_noise: half widths of the uniform noise, 0 for none.

    Raises:
        InputError: an unknown task, a horizon below 1, negative noise.
    """
    task = task_named(name)
    if horizon < 1 or observation_noise < 0 or action_noise < 0:
        raise InputError(
            f"horizon must be at least 1 and noise 0 or more; got {horizon}, {observation_noise}, {action_noise}."
        )
    # unwrapped: Gymnasium's own time limit, reward and checks are not wanted
    inner: gymnasium.Env[Any, Any] = PendulumEnvironment()
    if isinstance(task, GymnasiumTask):
        inner = gymnasium.make(task.gym, **task.options).unwrapped
    environment: gymnasium.Env[Any, Any] = KnownReward(inner, task, horizon)
    if action_noise:
        environment = NoisyAction(environment, action_noise)
    return NoisyObservation(environment, observation_noise) if observation_noise else environment


# -- many at once -----------------------------------------------------------------------------------------------------


class LockStep(ABC):
    """Many environments that take their steps together, and all end at the horizon."""

    task: Task
    horizon: int

    @abstractmethod
    def reset(self, seeds: Sequence[int], episodes: int) -> Float[Tensor, "copies episodes observation"]:
        """New episodes; those of a copy depend on its seed alone."""

    @abstractmethod
    def step(
        self, action: Float[Tensor, "copies episodes action"]
    ) -> tuple[Float[Tensor, "copies episodes observation"], Float[Tensor, "copies episodes"]]:
        """Next states and rewards, in float64."""

    @torch.no_grad()
    def play(self, act: Act, seeds: Sequence[int], episodes: int) -> Episodes:
        """`episodes` real episodes of every copy, from reset to the horizon.

        Raises:
            InputError: the policy gave a number that is not finite (it diverged).
        """
        state = self.reset(seeds, episodes).float()
        steps: list[tuple[Tensor, ...]] = []
        for _ in range(self.horizon):
            action = finite_actions(act(state))
            next_state, reward = self.step(action)
            steps.append((state, action, next_state.float(), reward.float()))
            state = next_state.float()
        states, actions, next_states, rewards = (torch.stack(parts, 2) for parts in zip(*steps, strict=True))
        length = torch.full((len(seeds), episodes), self.horizon)
        return Episodes(states, actions, next_states, rewards, length, torch.zeros_like(length, dtype=torch.bool))


class MujocoWorld(LockStep):
    """Environments of `make_environment`, built once and stepped in turn in this process.

    Worker processes would pay more for sending observations than a step costs.
    """

    def __init__(self, name: str, horizon: int, observation_noise: float = 0.0, action_noise: float = 0.0) -> None:
        self.task, self.horizon = task_named(name), horizon
        self._make = lambda: make_environment(name, horizon, observation_noise, action_noise)
        self._pool: list[gymnasium.Env[Any, Any]] = []
        self._vector: SyncVectorEnv | None = None
        self._for_starts: gymnasium.Env[Any, Any] | None = None
        self._shape = (0, 0)

    def reset(self, seeds: Sequence[int], episodes: int) -> Float[Tensor, "copies episodes observation"]:
        self._shape, count = (len(seeds), episodes), len(seeds) * episodes
        self._pool += [self._make() for _ in range(count - len(self._pool))]
        builders = [lambda environment=environment: environment for environment in self._pool[:count]]
        self._vector = SyncVectorEnv(builders, autoreset_mode=AutoresetMode.DISABLED)
        observation, _ = self._vector.reset(seed=[derive(seed, index) for seed in seeds for index in range(episodes)])
        return torch.from_numpy(observation).view(*self._shape, -1)

    def starts(self, seeds: Sequence[int], count: int) -> Float[Tensor, "copies count observation"]:
        """One environment is reset again and again: hundreds of them would fill the memory for nothing."""
        if self._for_starts is None:
            self._for_starts = self._make()
        first = [self._for_starts.reset(seed=derive(seed, index))[0] for seed in seeds for index in range(count)]
        return torch.from_numpy(np.stack(first)).view(len(seeds), count, -1)

    def step(
        self, action: Float[Tensor, "copies episodes action"]
    ) -> tuple[Float[Tensor, "copies episodes observation"], Float[Tensor, "copies episodes"]]:
        assert self._vector is not None, "reset comes first"
        observation, reward, *_ = self._vector.step(action.double().flatten(0, 1).numpy())
        return torch.from_numpy(observation).view(*self._shape, -1), torch.from_numpy(reward).view(*self._shape)


class TorchPendulum(LockStep):
    """Swing-up and balance, all episodes in one tensor: g = 10, mass and length 1, 0.05 s a step, torque 2 a."""

    def __init__(self, horizon: int, observation_noise: float = 0.0, action_noise: float = 0.0) -> None:
        self.task, self.horizon = task_named("pendulum"), horizon
        self.observation_noise, self.action_noise = observation_noise, action_noise
        self._state = torch.zeros(0, 0, 3, dtype=torch.float64)
        self._generators: list[torch.Generator] = []

    def reset(self, seeds: Sequence[int], episodes: int) -> Float[Tensor, "copies episodes observation"]:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._state = self._first_states(self._generators, episodes)
        return self._state

    def starts(self, seeds: Sequence[int], count: int) -> Float[Tensor, "copies count observation"]:
        return self._first_states([torch.Generator().manual_seed(seed) for seed in seeds], count)

    def _first_states(self, generators: Sequence[torch.Generator], count: int) -> Tensor:
        drawn = _uniform(generators, count, 2)
        angle, speed = math.pi * drawn[..., 0], drawn[..., 1]
        return torch.stack([angle.cos(), angle.sin(), speed], -1)

    def step(
        self, action: Float[Tensor, "copies episodes action"]
    ) -> tuple[Float[Tensor, "copies episodes observation"], Float[Tensor, "copies episodes"]]:
        force = action.double()
        if self.action_noise:
            force = force + self.action_noise * _uniform(self._generators, *force.shape[1:])
        reward = tasks.pendulum(self._state, force)
        self._state = pendulum_step(self._state, force)
        observation = self._state
        if self.observation_noise:
            observation = observation + self.observation_noise * _uniform(self._generators, *observation.shape[1:])
        return observation, reward


def _uniform(generators: Sequence[torch.Generator], *shape: int) -> Tensor:
    """Uniform in (-1, 1), each copy from its own generator."""
    return torch.stack([torch.rand(shape, generator=g, dtype=torch.float64) for g in generators]) * 2 - 1


def pendulum_step(state: Float[Tensor, "*copies 3"], action: Float[Tensor, "*copies 1"]) -> Float[Tensor, "*copies 3"]:
    """(cos, sin, speed) 0.05 s later; speed within +-8."""
    angle = torch.atan2(state[..., 1], state[..., 0])
    torque = 2 * action[..., 0].clip(-1, 1)
    speed = (state[..., 2] + 0.05 * (15 * torch.sin(angle) + 3 * torque)).clip(-8, 8)
    angle = angle + 0.05 * speed
    return torch.stack([angle.cos(), angle.sin(), speed], -1)


def make_world(name: str, horizon: int, observation_noise: float = 0.0, action_noise: float = 0.0) -> World:
    """The task's world, for the loop and its rivals."""
    if name == "pendulum":
        make_environment(name, horizon, observation_noise, action_noise)  # refuses what is not possible
        return TorchPendulum(horizon, observation_noise, action_noise)
    task_named(name)
    return MujocoWorld(name, horizon, observation_noise, action_noise)
