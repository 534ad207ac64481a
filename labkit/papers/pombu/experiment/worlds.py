"""The real worlds: five MuJoCo tasks that never end early and pay the known rewards, their noisy variants, a pendulum.

Worlds are played in lanes: `lanes x episodes` environments in lock-step, each lane with random numbers of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.experiment import tasks
from labkit.rl.vector import InProcessVector


@dataclass(frozen=True)
class Task:
    """A task of the paper: where the simulator comes from and what is paid.

    Args:
        gym: Gymnasium's name, empty for the pendulum, which is ours. options: what switches endings and extras off.
        observation, action: sizes.
    """

    name: str
    reward: tasks.Reward
    observation: int
    action: int
    gym: str = ""
    options: dict[str, Any] = field(default_factory=dict)


_HEALTHY = {"terminate_when_unhealthy": False}
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("half-cheetah", tasks.half_cheetah, 17, 6, "HalfCheetah-v5"),
        Task("swimmer", tasks.swimmer, 8, 2, "Swimmer-v5"),
        Task("walker2d", tasks.walker2d, 17, 6, "Walker2d-v5", _HEALTHY),
        Task("hopper", tasks.hopper, 11, 3, "Hopper-v5", _HEALTHY),
        Task("ant", tasks.ant, 27, 8, "Ant-v5", {**_HEALTHY, "include_cfrc_ext_in_observation": False}),
        Task("pendulum", tasks.pendulum, 3, 1),
    )
}


def task_named(name: str) -> Task:
    if name not in TASKS:
        raise InputError(f"there is no task '{name}'; there are {', '.join(TASKS)}.")
    return TASKS[name]


def make_environment(name: str, horizon: int, observation_noise: float = 0.0, action_noise: float = 0.0) -> Any:
    """A task as everyone plays it here, baselines included: a Gymnasium environment.

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
    from labkit.papers.pombu.experiment import simulators  # Gymnasium is only needed where something is played

    return simulators.build(task, horizon, observation_noise, action_noise)


# -- many at once -----------------------------------------------------------------------------------------------------


@runtime_checkable
class World(Protocol):
    """lanes x episodes environments in lock-step, on the CPU, in float64."""

    task: Task
    horizon: int

    def reset(self, seeds: Sequence[int], episodes: int) -> Float[Tensor, "lanes episodes observation"]: ...

    def step(
        self, action: Float[Tensor, "lanes episodes action"]
    ) -> tuple[Float[Tensor, "lanes episodes observation"], Float[Tensor, "lanes episodes"]]: ...


class MujocoWorld:
    """Environments of `make_environment`, stepped in turn in this process and built once."""

    def __init__(self, name: str, horizon: int, observation_noise: float = 0.0, action_noise: float = 0.0) -> None:
        self.task, self.horizon = task_named(name), horizon
        self._make = lambda: make_environment(name, horizon, observation_noise, action_noise)
        self._pool: list[Any] = []
        self._vectors: list[InProcessVector] = []

    def reset(self, seeds: Sequence[int], episodes: int) -> Float[Tensor, "lanes episodes observation"]:
        """New episodes; those of a lane depend on its seed alone."""
        while len(self._pool) < len(seeds) * episodes:
            self._pool.append(self._make())
        pools = [self._pool[lane * episodes : (lane + 1) * episodes] for lane in range(len(seeds))]
        self._vectors = [
            InProcessVector(pool.__getitem__, episodes, seed) for pool, seed in zip(pools, seeds, strict=True)
        ]
        return torch.stack([torch.from_numpy(vector.reset()) for vector in self._vectors])

    def step(
        self, action: Float[Tensor, "lanes episodes action"]
    ) -> tuple[Float[Tensor, "lanes episodes observation"], Float[Tensor, "lanes episodes"]]:
        numbers = action.double().numpy()
        steps = [vector.step(mine)[:2] for vector, mine in zip(self._vectors, numbers, strict=True)]
        seen, paid = zip(*steps, strict=True)
        return torch.from_numpy(np.stack(seen)), torch.from_numpy(np.stack(paid))


class TorchPendulum:
    """Swing-up and balance, all episodes in one tensor: g = 10, mass and length 1, 0.05 s a step, torque 2 a."""

    def __init__(self, horizon: int, observation_noise: float = 0.0, action_noise: float = 0.0) -> None:
        self.task, self.horizon = TASKS["pendulum"], horizon
        self.observation_noise, self.action_noise = observation_noise, action_noise
        self._state = torch.zeros(0, 0, 3, dtype=torch.float64)
        self._generators: list[torch.Generator] = []

    def reset(self, seeds: Sequence[int], episodes: int) -> Float[Tensor, "lanes episodes observation"]:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn = self._uniform(episodes, 2)
        angle, speed = math.pi * drawn[..., 0], drawn[..., 1]
        self._state = torch.stack([angle.cos(), angle.sin(), speed], -1)
        return self._state

    def step(
        self, action: Float[Tensor, "lanes episodes action"]
    ) -> tuple[Float[Tensor, "lanes episodes observation"], Float[Tensor, "lanes episodes"]]:
        force = action.double()
        if self.action_noise:
            force = force + self.action_noise * self._uniform(*force.shape[1:])
        paid = tasks.pendulum(self._state, force)
        self._state = pendulum_step(self._state, force)
        seen = self._state
        if self.observation_noise:
            seen = seen + self.observation_noise * self._uniform(*seen.shape[1:])
        return seen, paid

    def _uniform(self, *shape: int) -> Tensor:
        """Uniform in (-1, 1), each lane from its own generator."""
        return torch.stack([torch.rand(shape, generator=g, dtype=torch.float64) for g in self._generators]) * 2 - 1


def pendulum_step(state: Float[Tensor, "*lanes 3"], action: Float[Tensor, "*lanes 1"]) -> Float[Tensor, "*lanes 3"]:
    """(cos, sin, speed) 0.05 s later; speed within +-8."""
    angle = torch.atan2(state[..., 1], state[..., 0])
    torque = 2 * action[..., 0].clip(-1, 1)
    speed = (state[..., 2] + 0.05 * (15 * torch.sin(angle) + 3 * torque)).clip(-8, 8)
    angle = angle + 0.05 * speed
    return torch.stack([angle.cos(), angle.sin(), speed], -1)


def make_world(name: str, horizon: int, observation_noise: float = 0.0, action_noise: float = 0.0) -> World:
    """The task's world, for `play`."""
    if name == "pendulum":
        make_environment(name, horizon, observation_noise, action_noise)  # refuses what is not possible
        return TorchPendulum(horizon, observation_noise, action_noise)
    task_named(name)
    return MujocoWorld(name, horizon, observation_noise, action_noise)


class Played(NamedTuple):
    """Whole episodes, float32: states before and after each step, actions as the policy gave them, rewards."""

    state: Tensor  # (lanes, episodes, horizon, observation)
    action: Tensor
    next_state: Tensor
    reward: Tensor  # (lanes, episodes, horizon)


@torch.no_grad()
def play(
    world: World,
    act: Callable[[Float[Tensor, "lanes episodes observation"]], Float[Tensor, "lanes episodes action"]],
    seeds: Sequence[int],
    episodes: int,
) -> Played:
    """`episodes` real episodes of every lane, from reset to the horizon.

    Raises:
        InputError: the policy gave a number that is not finite (it diverged).
    """
    state = world.reset(seeds, episodes).float()
    kept: list[tuple[Tensor, ...]] = []
    for _ in range(world.horizon):
        action = act(state).float().cpu()
        if not bool(torch.isfinite(action).all()):
            raise InputError("the policy's actions are not finite: training diverged. Try a smaller learning rate.")
        after, paid = world.step(action)
        kept.append((state, action, after.float(), paid.float()))
        state = after.float()
    return Played(*(torch.stack(parts, 2) for parts in zip(*kept, strict=True)))
