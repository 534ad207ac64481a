"""Anybody's gymnasium environment as a world of the algorithm: one episode after the other.

Policy and models know actions within [-1, 1]; the environment gets them in its own bounds.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.method.episodes import Act, Episodes, OfTransition, Task, finite_actions
from labkit.rl.environments import ActionBox, action_box, name_of, time_limit
from labkit.seeds import derive

LONGEST = 200  # steps of an episode, where nobody says another number  [official code]


def of_own_actions(function: OfTransition, actions: ActionBox) -> OfTransition:
    """A function of the environment's own actions as one of ours."""
    low, width = (torch.from_numpy(x).float() for x in (actions.low, actions.high - actions.low))

    def inside(state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        scaled = (action.clamp(-1, 1) + 1) / 2 * width.to(action) + low.to(action)
        return function(state, scaled, next_state)

    return inside


def open_environment(env: Any) -> gymnasium.Env[Any, Any]:
    """`env` itself, or the environment of that id.

    Raises:
        InputError: neither.
    """
    if isinstance(env, str):
        try:
            return gymnasium.make(env)
        except gymnasium.error.Error as error:
            raise InputError(f"gymnasium makes no environment '{env}': {error}") from None
    if isinstance(env, gymnasium.vector.VectorEnv):
        raise InputError("env is a vector of environments; give one of them, or its id.")
    if not isinstance(env, gymnasium.Env):
        raise InputError(f"env must be a gymnasium environment or the id of one; got {type(env).__name__}.")
    return env


def observation_bounds(env: gymnasium.Env[Any, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Bounds of each number of an observation, as long as the observation is; infinite where there are none.

    Raises:
        InputError: not a vector of real numbers, nor a dictionary or tuple of such.
    """
    space = env.observation_space
    if not _real(space):
        raise InputError(
            f"observations must be vectors of real numbers; {name_of(env)} has {space}. "
            "Models of pictures, classes or text are not learned here: write an ObservationWrapper that gives a vector."
        )
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    return tuple(flat.low.astype(float).tolist()), tuple(flat.high.astype(float).tolist())


def _real(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        return bool(space.spaces) and all(_real(part) for part in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return bool(space.spaces) and all(_real(part) for part in space.spaces)
    return isinstance(space, spaces.Box) and len(space.shape) <= 1 and np.issubdtype(space.dtype, np.floating)


def horizon_of(env: gymnasium.Env[Any, Any]) -> int:
    """The environment's time limit, at most `LONGEST`."""
    return max(2, min(time_limit(env) or LONGEST, LONGEST))


class GymnasiumWorld:
    """One environment, one copy. `steps` counts what was played in it.

    Args:
        reward, terminates: see `POMBU`.
        horizon: steps after which an episode is broken off, if it was not over before.

    Raises:
        InputError: spaces that the algorithm cannot use; a function that does not give one value for each transition.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        reward: OfTransition | None,
        terminates: OfTransition | bool | None,
        horizon: int,
    ) -> None:
        self.env, self.horizon, self.steps, self.actions = env, horizon, 0, action_box(env)
        low, high = observation_bounds(env)
        if terminates is True or not (terminates in (None, False) or callable(terminates)):
            raise InputError("terminates must be a function, False (episodes never end), or None (it is learned).")
        own = self.actions
        self.task = Task(
            name_of(env), None if reward is None else of_own_actions(reward, own), len(low), len(own.low),
            terminates=of_own_actions(terminates, own) if callable(terminates) else terminates, low=low, high=high,
        )  # fmt: skip
        self._compared = False
        self._try("reward", self.task.reward, truth=False)
        self._try("terminates", self.task.terminates, truth=True)

    def _try(self, name: str, function: Any, *, truth: bool) -> None:
        """Does the reader's function take a batch and give one value for each transition?"""
        if not callable(function):
            return
        state, action = torch.zeros(2, 3, self.task.observation), torch.zeros(2, 3, self.task.action)
        value = function(state, action, state)
        is_tensor = isinstance(value, Tensor)
        if not is_tensor or value.shape != (2, 3) or (value.dtype == torch.bool) != truth:
            got = f"{value.dtype} of shape {tuple(value.shape)}" if is_tensor else type(value).__name__
            what = "True or False" if truth else "a number"
            raise InputError(
                f"{name}(state, action, next_state) gets tensors with axes (..., size) and must return {what} for each "
                f"transition, a tensor of shape (...); for (2, 3) transitions it returned {got}."
            )

    def starts(self, seeds: Sequence[int], count: int) -> Float[Tensor, "copies count observation"]:
        return torch.stack([torch.stack([self._reset(derive(seed, i)) for i in range(count)]) for seed in seeds])

    @torch.no_grad()
    def play(self, act: Act, seeds: Sequence[int], episodes: int) -> Episodes:
        """`episodes` episodes, each until it ends or is broken off.

        Raises:
            InputError: more than one copy; rewards, observations or actions that are not finite.
        """
        if len(seeds) != 1:
            raise InputError(f"one environment plays one copy; got {len(seeds)} seeds.")
        played = [self._episode(act, derive(seeds[0], number)) for number in range(episodes)]
        return Episodes(*(torch.stack(parts)[None] for parts in zip(*played, strict=True)))

    def _episode(self, act: Act, seed: int) -> Episodes:
        """One episode, without the axes of copies and episodes."""
        sizes = (self.task.observation,), (self.task.action,), (self.task.observation,), ()
        state, action, next_state, reward = (torch.zeros(self.horizon, *size) for size in sizes)
        now, length, terminated, truncated = self._reset(seed), 0, False, False
        while length < self.horizon and not (terminated or truncated):
            state[length] = now
            action[length] = finite_actions(act(now[None, None]))[0, 0]
            observation, gained, terminated, truncated, _ = self.env.step(self.actions.outside(action[length].numpy()))
            self.steps += 1
            next_state[length] = now = self.vector(observation)
            reward[length] = float(gained)
            length += 1
        if not bool(torch.isfinite(reward).all()):
            raise InputError(f"{self.task.name} gave a reward that is not a finite number, in {length} steps.")
        if not self._compared:
            self._compared = True
            self._compare(state[:length], action[:length], next_state[:length], reward[:length], bool(terminated))
        return Episodes(state, action, next_state, reward, torch.tensor(length), torch.tensor(bool(terminated)))

    def _reset(self, seed: int) -> Float[Tensor, " observation"]:
        return self.vector(self.env.reset(seed=seed % 2**31)[0])

    def vector(self, observation: Any) -> Float[Tensor, " observation"]:
        """An observation of the environment as one vector."""
        flat = torch.from_numpy(np.asarray(spaces.flatten(self.env.observation_space, observation), dtype=np.float32))
        if not bool(torch.isfinite(flat).all()):
            raise InputError(f"{self.task.name} gave an observation that is not finite: {flat.tolist()}.")
        return flat

    def _compare(self, state: Tensor, action: Tensor, next_state: Tensor, reward: Tensor, terminated: bool) -> None:
        """Warn where the reader's functions say something else than the environment, in its first episode."""
        if self.task.reward is not None:
            off = float((self.task.reward(state, action, next_state) - reward).abs().max())
            if off > 0.01 * (1 + float(reward.abs().max())):
                warnings.warn(
                    f"reward differs from what {self.task.name} pays, by up to {off:.3g} in its first episode: the "
                    "policy is trained for the function.", stacklevel=2,
                )  # fmt: skip
        if callable(self.task.terminates):
            ends = self.task.terminates(state, action, next_state)
            if bool(ends[:-1].any()) or bool(ends[-1]) != terminated:
                warnings.warn(
                    f"terminates says that {int(ends.sum())} of the first {len(ends)} steps of {self.task.name} ended "
                    f"the task; in the environment {int(terminated)} did.", stacklevel=2,
                )  # fmt: skip
