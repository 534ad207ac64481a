"""Goal environments that the package has never seen: a trolley on a rail, and what can be wrong with such a thing."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

ONE, TWO = (spaces.Box(-np.inf, np.inf, (size,), np.float64) for size in (1, 2))


class Trolley(gymnasium.Env):
    """A trolley on a rail of 10 m stands within .5 m of a mark, or does not; the winch pulls from -2 to +1 m a step.

    Args:
        rewards: elsewhere, and at the mark.
        ends: "at goal": the mark ends an episode; "at edge": falling off the rail does, and the rail has no stop.
        own_rule: has gymnasium-robotics' compute_terminated.
        many: compute_reward takes many goals at once, else one only.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, rewards=(-1.0, 0.0), ends="", own_rule=False, many=True, limit=None):
        self.rewards, self.ends, self.many, self.limit = rewards, ends, many, limit
        self.observation_space = spaces.Dict({"observation": TWO, "achieved_goal": ONE, "desired_goal": ONE})
        self.action_space = spaces.Box(np.array([-2.0]), np.array([1.0]), dtype=np.float64)
        self.pulls: list[float] = []
        self.starts: list[int | None] = []
        if own_rule:
            self.compute_terminated = self._at_goal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.starts.append(seed)
        self.position, self.mark, self.time = self.np_random.uniform(3, 7), self.np_random.uniform(1, 9), 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.pulls.append(float(action[0]))
        self.position += float(action[0])
        fallen = not 0 <= self.position <= 10
        if self.ends != "at edge":
            self.position = min(10.0, max(0.0, self.position))
        self.time += 1
        now = self._observe()
        reward = self.compute_reward(now["achieved_goal"], now["desired_goal"], {})
        terminated = fallen if self.ends == "at edge" else self._at_goal(now["achieved_goal"], now["desired_goal"], {})
        return now, float(reward), bool(terminated), self.limit is not None and self.time >= self.limit, {}

    def compute_reward(self, achieved, desired, info):
        near = np.abs(np.asarray(achieved) - np.asarray(desired))[..., 0] <= 0.5
        if not self.many:
            return self.rewards[1] if bool(near) else self.rewards[0]
        return np.where(near, self.rewards[1], self.rewards[0])

    def _at_goal(self, achieved, desired, info):
        return self.ends == "at goal" and bool(np.abs(achieved - desired)[0] <= 0.5)

    def _observe(self):
        position, mark = np.array([self.position]), np.array([self.mark])
        return {
            "observation": np.array([self.position, 0.1 * self.time]),
            "achieved_goal": position,
            "desired_goal": mark,
        }


def limited(steps: int, *args: Any, **options: Any) -> gymnasium.Env:
    """A trolley with a time limit."""
    return gymnasium.wrappers.TimeLimit(Trolley(*args, **options), steps)


class Changed(Trolley):
    """A trolley with one thing that cannot be learned."""

    def __init__(self, fault: str) -> None:
        super().__init__(limit=8)
        self.fault = fault
        goals = self.observation_space
        if fault == "discrete goals":
            self.observation_space = spaces.Dict({**goals.spaces, "desired_goal": spaces.Discrete(4)})
        if fault == "discrete actions":
            self.action_space = spaces.Discrete(3)
        if fault == "whole actions":
            self.action_space = spaces.Box(-2, 1, (1,), np.int64)
        if fault == "actions in rows":
            self.action_space = spaces.Box(-2, 1, (2, 1))
        if fault == "unbounded actions":
            self.action_space = spaces.Box(-np.inf, np.inf, (1,))
        if fault == "pictures":
            self.observation_space = spaces.Dict({**goals.spaces, "observation": spaces.Box(0, 255, (8, 8), np.uint8)})
        if fault == "no goals":
            self.observation_space = goals["observation"]
        if fault == "sizes":
            self.observation_space = spaces.Dict({**goals.spaces, "desired_goal": spaces.Box(-1, 1, (2,))})
        if fault == "no reward":
            self.compute_reward = None

    def compute_reward(self, achieved, desired, info):
        if self.fault == "info":
            return super().compute_reward(achieved, desired, info) * info["factor"]
        if self.fault == "dense":
            return -np.abs(achieved - desired)[..., 0]
        if self.fault == "upside down":
            return -1 - super().compute_reward(achieved, desired, info)
        if self.fault == "never":
            return np.full(np.shape(achieved)[:-1], -1.0)
        return super().compute_reward(achieved, desired, info)

    def step(self, action):
        now, reward, terminated, truncated, info = super().step(action)
        if self.fault == "effort":
            reward -= 0.1
        if self.fault == "moving goal":
            self.mark += 0.1
        if self.fault == "not finite":
            now["observation"][0] = np.nan
        return now, reward, terminated, truncated, info
