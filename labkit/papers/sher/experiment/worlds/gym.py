"""Any gymnasium goal environment as a `GoalEnvironment`, for one learner: the reader's own, mazes, robots.

A goal environment observes {"observation", "achieved_goal", "desired_goal"} and has `compute_reward(achieved, desired,
info)`, as gymnasium-robotics and stable-baselines3 have it. What cannot be learned with hindsight and a Gaussian policy
is refused by name before anything is played; a reward that is not that of its goals, at the first step that shows it.
"""

import contextlib
import copy
import difflib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from labkit.errors import InputError
from labkit.papers.sher.experiment.worlds.robots import TASKS, RobotWorld, check_mujoco, register
from labkit.papers.sher.experiment.worlds.small import Ends, GoalEnvironment, Observation
from labkit.papers.sher.method.hindsight import EndsAt
from labkit.rl.environments import action_box, name_of, time_limit

Array = NDArray[Any]
KEYS = ("observation", "achieved_goal", "desired_goal")
PROBES = 64  # goals for which the reward is asked before anything is played


def world_of(
    env: Any,
    episodes: int = 1,
    horizon: int | None = None,
    rewards: tuple[float, float] | None = None,
    device: torch.device | str = "cpu",
) -> GoalEnvironment:
    """The world of `env`: an id, an environment, or a function that makes one; it plays `episodes` at a time.

    Fetch and Hand tasks by id are stepped without their Python overhead, see `robots.py`; all else step by step.

    Args:
        horizon: most steps of an episode; None: the environment's own time limit.
        rewards: the least and the greatest; None: the environment is asked.

    Raises:
        InputError: what is wrong with the environment, and what to do.
    """
    if isinstance(env, str) and env in TASKS and horizon is None and rewards is None:
        return RobotWorld(env, threads=min(episodes, 4), device=device)
    return GymWorld(environments_of(env, episodes), horizon, rewards, device)


def environments_of(env: Any, count: int) -> list[Any]:
    """`count` environments, separate copies of what was given.

    Raises:
        InputError: no such id, not an environment, or one that cannot be copied.
    """
    import gymnasium

    if isinstance(env, str):
        return [_made(env) for _ in range(count)]
    if isinstance(env, gymnasium.Env):
        return [env, *(_copied(env) for _ in range(count - 1))]
    if not callable(env):
        raise InputError(
            f"env must be a gymnasium environment, its id, or a function that makes it; got {env!r}. "
            "For several copies give the id or the function, and episodes=4."
        )
    environments = [env() for _ in range(count)]
    if not all(isinstance(one, gymnasium.Env) for one in environments):
        raise InputError(f"the function given as env must return a gymnasium environment; got {environments[0]!r}.")
    if len({id(one) for one in environments}) < count:
        raise InputError("the function given as env must make a new environment with every call.")
    return environments


def _made(env_id: str) -> Any:
    import gymnasium

    with contextlib.suppress(ImportError):
        register()  # the ids of gymnasium-robotics
    if env_id not in gymnasium.registry and ":" not in env_id:
        near = difflib.get_close_matches(env_id, gymnasium.registry, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; register it, or give the environment itself."
        raise InputError(f"there is no environment '{env_id}'{hint}")
    if "gymnasium_robotics" in str(getattr(gymnasium.registry.get(env_id), "entry_point", "")):
        check_mujoco()
    try:
        return gymnasium.make(env_id, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        raise InputError(f"the environment '{env_id}' cannot be made: {error}") from error


def _copied(env: Any) -> Any:
    """Another environment like this one, from what gymnasium noted when it was made."""
    import gymnasium

    spec = env.spec
    if spec is not None:
        try:
            other = gymnasium.make(copy.deepcopy(spec))
        except (gymnasium.error.Error, ValueError, TypeError):
            other = None
        if str(other) == str(env):  # the same wrappers around the same environment
            return other
    raise InputError(
        f"{name_of(env)} cannot be copied, so that only one episode can be played at a time: leave episodes=1, or give "
        "its id or a function that makes it."
    )


def check_spaces(env: Any) -> None:
    """Raise InputError unless observations, goals and actions are vectors of real numbers, the actions bounded."""
    from gymnasium import spaces

    name, space = name_of(env), env.observation_space
    if not isinstance(space, spaces.Dict) or not set(KEYS) <= set(space.spaces):
        raise InputError(f"{name} has no goals: its observation must be a Dict with {', '.join(KEYS)}; it is {space}.")
    for key in KEYS:
        part = space[key]
        if not isinstance(part, spaces.Box) or len(part.shape) != 1 or part.shape[0] < 1:
            raise InputError(f"'{key}' of {name} must be a Box of one dimension, real numbers; it is {part}.")
    if space["achieved_goal"].shape != space["desired_goal"].shape:
        raise InputError(f"achieved_goal and desired_goal of {name} differ in size: {space}.")
    if len(action_box(env).shape) != 1:
        raise InputError(f"{name} must have a Box of one dimension as actions; it has {env.action_space}.")


class OfGoals:
    """`compute_reward` or `compute_terminated` of an environment, for any number of goals.

    In one call, where the environment's function takes many and gives what it gives one by one (asked with `achieved`
    and `desired`, (goals, size) each); else in a loop. The info it sees is empty: hindsight has no other.

    Raises:
        Exception: whatever the function raises for a single goal.
    """

    def __init__(self, function: Callable[..., Any], achieved: Array, desired: Array) -> None:
        self.function, self.together = function, False
        wanted = self(achieved, desired)
        try:
            many = np.asarray(function(achieved, desired, {}), dtype=np.float64)
        except Exception:  # whatever it is: this function wants one goal
            return
        self.together = many.shape == wanted.shape and bool(np.array_equal(many, wanted))

    def __call__(self, achieved: Array, desired: Array) -> NDArray[np.float64]:
        """(goals, size) twice -> (goals,)"""
        if self.together:
            return np.asarray(self.function(achieved, desired, {}), dtype=np.float64)
        pairs = zip(achieved, desired, strict=True)
        return np.array([float(self.function(a, d, {})) for a, d in pairs], dtype=np.float64)


class GymWorld:
    """Environments that each play one episode at a time, for one learner.

    Termination and truncation are told apart, see `method/hindsight.py`. If the environment has `compute_terminated`,
    as gymnasium-robotics has, it says for every goal whether reaching it ends the episode; else this is learned from
    what is played: an episode ended with the greatest reward, and none went on with it. [ours]

    Raises:
        InputError: spaces that do not fit, no `compute_reward`, no time limit, rewards that are not sparse.
    """

    def __init__(
        self,
        environments: Sequence[Any],
        horizon: int | None = None,
        rewards: tuple[float, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.environments, self.device = list(environments), torch.device(device)
        env = self.environments[0]
        self.name = name_of(env)
        check_spaces(env)
        self.horizon = self._time_limit(env, horizon)
        self.observation_size, self.goal_size = (env.observation_space[key].shape[0] for key in KEYS[:2])
        self.actions = action_box(env)
        self.action_size = len(self.actions.low)
        compute_reward = self._function(env, "compute_reward")
        if compute_reward is None:
            raise InputError(
                f"{self.name} has no compute_reward(achieved, desired, info): relabelled goals need their reward."
            )
        achieved, desired = self._probes(env)
        try:
            self._reward = OfGoals(compute_reward, achieved, desired)
        except Exception as error:
            raise InputError(
                f"compute_reward of {self.name} cannot be asked for a goal and an empty info "
                f"({type(error).__name__}: {error}): hindsight has no other info."
            ) from error
        self.rewards = self._range(self._reward(achieved, desired), rewards)
        self._ends = self._ending_rule(env, achieved, desired)
        self._seen_to_end = self._seen_to_go_on = False  # episodes with the greatest reward
        self._goals: list[Array] = []
        self._length, self._ended = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
        self._over = np.zeros(0, dtype=bool)
        self._now: dict[str, Array] = {}

    # -- what is refused ----------------------------------------------------------------------------------------------

    def _time_limit(self, env: Any, horizon: int | None) -> int:
        own = time_limit(env)
        if horizon is None and own is None:
            raise InputError(f"{self.name} has no time limit: say how many steps an episode may have, horizon=200.")
        if horizon is not None and (not isinstance(horizon, int) or not 1 <= horizon <= 1_000_000):
            raise InputError(f"horizon must be a whole number of steps from 1 to 1,000,000; got {horizon!r}.")
        return min(limit for limit in (own, horizon) if limit is not None)

    def _ending_rule(self, env: Any, achieved: Array, desired: Array) -> OfGoals | Literal["unknown"] | None:
        """The environment's `compute_terminated`; None where a goal just reached (the first) ends nothing."""
        function = self._function(env, "compute_terminated")
        if function is None:
            return "unknown"
        try:
            rule = OfGoals(function, achieved, desired)
        except Exception:  # gymnasium-robotics' base class raises NotImplementedError
            return "unknown"
        return rule if rule(achieved[:1], desired[:1])[0] else None

    @staticmethod
    def _function(env: Any, name: str) -> Callable[..., Any] | None:
        """A method of the environment or of a wrapper around it."""
        try:
            function = env.get_wrapper_attr(name)
        except AttributeError:
            return None
        return function if callable(function) else None

    def _probes(self, env: Any) -> tuple[Array, Array]:
        """Achieved and desired goals, (PROBES, size): the desired one itself, the first achieved, others around it."""
        now = env.reset(seed=0)[0]
        goal, size = np.asarray(now["desired_goal"]), self.goal_size
        draw = np.random.default_rng(0)
        away = 10 ** draw.uniform(-2, 2, (PROBES, 1)) * draw.normal(size=(PROBES, size))
        away[0] = 0
        achieved = (goal + away).astype(goal.dtype)
        achieved[1] = now["achieved_goal"]
        return achieved, np.repeat(goal[None], PROBES, 0)

    def _range(self, probed: Array, given: tuple[float, float] | None) -> tuple[float, float]:
        """The least and the greatest reward; the first of `probed` is that of a goal just reached."""
        if not np.isfinite(probed).all():
            raise InputError(f"compute_reward of {self.name} gives numbers that are not finite.")
        low, high = float(probed.min()), float(probed.max())
        if given is not None:
            if not given[0] <= low <= high <= given[1]:
                raise InputError(f"rewards={given} do not hold those of {self.name}, which has {low:g} to {high:g}.")
            return float(given[0]), float(given[1])
        if len(np.unique(probed)) != 2 or probed[0] != high:
            raise InputError(
                f"the reward of {self.name} is not sparse (one value at the goal, a lesser one elsewhere, as 0 and -1 "
                f"or 1 and 0): it gives {len(np.unique(probed))} values from {low:g} to {high:g}, {probed[0]:g} at the "
                "goal. Use its sparse version; or, to learn from this reward all the same, give its least and greatest "
                "value: rewards=(lowest, highest)."
            )
        return low, high

    # -- playing ------------------------------------------------------------------------------------------------------

    def reset(self, copies: int, episodes: int, generators: Sequence[Generator], training: bool = True) -> Observation:
        """New episodes, each with a seed from the generator; training and test goals have the same distribution."""
        if copies != 1 or not 1 <= episodes <= len(self.environments):
            raise InputError(
                f"{self.name} plays for one learner, at most {len(self.environments)} episodes at a time; "
                f"got {copies} learners, {episodes} episodes."
            )
        seeds = torch.randint(2**31, (episodes,), generator=generators[0], device=generators[0].device).tolist()
        first = [env.reset(seed=seed)[0] for env, seed in zip(self.environments, seeds, strict=False)]
        self._now = {key: np.stack([np.asarray(one[key], dtype=np.float64) for one in first]) for key in KEYS}
        self._goals = [np.array(one["desired_goal"]) for one in first]
        self._length, self._ended = np.zeros(episodes, dtype=np.int64), np.zeros(episodes, dtype=bool)
        self._over = np.zeros(episodes, dtype=bool)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """One step of all that are not over; actions in [-1, 1] are brought to the environment's bounds."""
        actions = self.actions.outside(action[0].detach().cpu().numpy())
        for row in np.flatnonzero(~self._over).tolist():
            env = self.environments[row]
            now, reward, terminated, truncated, _ = env.step(actions[row])
            self._length[row] += 1
            self._ended[row] = terminated
            self._over[row] = terminated or truncated or self._length[row] >= self.horizon
            self._check(row, now, float(reward))
            if reward >= self.rewards[1]:
                self._seen_to_end |= bool(terminated)
                self._seen_to_go_on |= not (terminated or truncated)
            for key in KEYS:
                self._now[key][row] = now[key]
        return self._observe()

    def _check(self, row: int, now: dict[str, Array], reward: float) -> None:
        """Raise InputError where a step shows what hindsight cannot know."""
        if not np.array_equal(now["desired_goal"], self._goals[row]):
            raise InputError(f"the goal of {self.name} changes within an episode: hindsight needs one for all of it.")
        again = self._reward(np.asarray(now["achieved_goal"])[None], self._goals[row][None])[0]
        if not abs(again - reward) <= 1e-5 * max(1.0, abs(reward)):
            raise InputError(
                f"a step of {self.name} brought {reward:g}, but compute_reward of the same goals says {again:g}: the "
                "reward depends on more than the goals, so that it cannot be computed for others."
            )
        if not all(np.isfinite(now[key]).all() for key in KEYS):
            raise InputError(f"{self.name} observed numbers that are not finite.")

    def _observe(self) -> Observation:
        return {key: torch.from_numpy(now).float()[None].to(self.device) for key, now in self._now.items()}

    @property
    def over(self) -> bool:
        return bool(self._over.all())

    @property
    def ends(self) -> Ends:
        return torch.from_numpy(self._length.copy())[None], torch.from_numpy(self._ended.copy())[None]

    # -- goals --------------------------------------------------------------------------------------------------------

    def compute_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """The environment's own, (..., goal) twice -> (...)."""
        return self._of(self._reward, achieved, desired).float()

    def is_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Does the goal bring the greatest reward?"""
        return self._of(self._reward, achieved, desired) >= self.rewards[1]

    @property
    def ends_at(self) -> EndsAt | None:
        """Does reaching the goal end the episode, (..., goal) twice -> (...)? None: never."""
        rule = self._ends
        if isinstance(rule, OfGoals):
            return lambda achieved, desired: self._of(rule, achieved, desired) > 0
        ends = rule == "unknown" and self._seen_to_end and not self._seen_to_go_on
        return self.is_success if ends else None

    def _of(self, function: OfGoals, achieved: Tensor, desired: Tensor) -> Tensor:
        rows = [goals.detach().cpu().double().numpy().reshape(-1, self.goal_size) for goals in (achieved, desired)]
        return torch.from_numpy(function(*rows)).view(achieved.shape[:-1]).to(achieved.device)
