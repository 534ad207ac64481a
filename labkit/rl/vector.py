"""Several gymnasium environments stepped in turn, in this process.

Worker processes pay for pickling every observation; for environments that step in a millisecond or less that costs more
than it saves. Nothing here resets by itself: an episode that ends says so, and the caller decides.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.errors import InputError

Stacked = NDArray[np.generic] | dict[str, NDArray[np.generic]]


def member_seed(seed: int, index: int) -> int:
    """The seed of environment `index`. Neighbouring `seed`s share no environment, as `seed + index` would have it."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


class InProcessVector:
    """`count` environments side by side; every array has the environment as its first axis.

        vector = InProcessVector(lambda index: gymnasium.make("HalfCheetah-v5"), count=4, seed=0)
        observation = vector.reset()
        observation, reward, terminated, truncated, infos = vector.step(actions)
        observation = vector.reset(np.flatnonzero(terminated | truncated))

    The first reset seeds each environment from `seed` and its index; later ones go on in the same random stream.
    Observations are one array, or one array a key where the environment's are a dictionary.
    """

    def __init__(self, make: Callable[[int], Any], count: int, seed: int) -> None:
        if count < 1:
            raise InputError(f"count must be at least 1 environment; got {count}")
        self.environments = [make(index) for index in range(count)]
        self.count, self.seed = count, seed
        self.action_space = self.environments[0].action_space
        self.observation_space = self.environments[0].observation_space
        for index, environment in enumerate(self.environments):
            if environment.observation_space != self.observation_space or environment.action_space != self.action_space:
                raise InputError(f"environment {index} has other observations or actions than environment 0")
        if len({id(environment) for environment in self.environments}) < count:
            raise InputError("make(index) gave the same environment twice; it must build a new one each time")
        self._seeded = [False] * count
        self._over = np.ones(count, dtype=bool)  # nothing runs before its first reset
        self._last: list[object] = [None] * count

    def reset(self, indices: Sequence[int] | NDArray[np.integer] | None = None) -> Stacked:
        """Start new episodes (all, or those at `indices`); returns the observations of all environments."""
        chosen = range(self.count) if indices is None else [int(index) for index in indices]
        for index in chosen:
            if not 0 <= index < self.count:
                raise InputError(f"there are environments 0 to {self.count - 1}; got {index}")
            fresh = None if self._seeded[index] else member_seed(self.seed, index)
            self._last[index], _ = self.environments[index].reset(seed=fresh)
            self._seeded[index], self._over[index] = True, False
        if not all(self._seeded):
            raise InputError("the first reset must be of all environments: call reset()")
        return _stack(self._last)

    def step(
        self, actions: NDArray[np.generic]
    ) -> tuple[Stacked, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], list[dict[str, object]]]:
        """One step of each: observations, rewards, terminated, truncated (each of length `count`) and the infos."""
        if len(actions) != self.count:
            raise InputError(f"one action an environment is needed, {self.count} in all; got {len(actions)}")
        if self._over.any():
            which = np.flatnonzero(self._over).tolist()
            raise InputError(f"the episodes of environments {which} have ended: reset({which}) before the next step")
        rewards = np.empty(self.count)
        terminated, truncated = np.empty(self.count, dtype=bool), np.empty(self.count, dtype=bool)
        infos: list[dict[str, object]] = []
        for index, (environment, action) in enumerate(zip(self.environments, actions, strict=True)):
            last, rewards[index], terminated[index], truncated[index], info = environment.step(action)
            self._last[index] = last
            infos.append(info)
        self._over = terminated | truncated
        return _stack(self._last), rewards, terminated, truncated, infos

    def close(self) -> None:
        """Close every environment."""
        for environment in self.environments:
            environment.close()


def _stack(observations: Sequence[object]) -> Stacked:
    first = observations[0]
    if isinstance(first, dict):
        return {key: np.stack([one[key] for one in observations]) for key in first}  # type: ignore[index]
    return np.stack([np.asarray(one) for one in observations])
