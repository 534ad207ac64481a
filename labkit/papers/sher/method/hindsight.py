"""Episodes kept whole, and the hindsight that turns a missed goal into a reached one.

A stored transition (s_t, a_t, s_{t+1}) is valid for every goal: the dynamics do not depend on g. It may be trained with
any goal, provided that the reward is computed anew. `take` draws transitions and replaces, with probability
k / (k + 1), the desired goal by an achieved one, m(s_t'). The strategy says how t' is chosen:

    future    t' = t + 1 + floor(U (T - t)), a later moment of the same episode           [official code; the default]
    final     t' = T
    episode   t' uniform in 1..T, earlier moments too
    random    t' uniform in 1..T of an episode drawn from the whole buffer
    next      t' = t + 1: every relabelled transition has just reached its goal           [ours, shows why it fails]
    none      the desired goal stays

All tensors have a leading dimension of copies: N replay buffers in one, each with random numbers of its own.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.errors import InputError

Strategy = Literal["future", "final", "episode", "random", "next", "none"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
Reward = Callable[[Tensor, Tensor], Tensor]  # the environment's own: (achieved, desired) -> reward

DRAWS = 5  # uniform numbers that a transition needs: episode, time, later time, coin, other episode


class Episodes(NamedTuple):
    """Whole episodes of T steps. Observation and achieved goal have one more moment than there are actions."""

    observation: Float[Tensor, "copies episodes moments observation"]
    achieved: Float[Tensor, "copies episodes moments goal"]
    desired: Float[Tensor, "copies episodes goal"]
    action: Float[Tensor, "copies episodes steps action"]


class Transitions(NamedTuple):
    """A batch, one row a transition. No end-of-episode flag: running out of time ends nothing. [official code]"""

    observation: Float[Tensor, "copies batch observation"]
    action: Float[Tensor, "copies batch action"]
    next_observation: Float[Tensor, "copies batch observation"]
    achieved: Float[Tensor, "copies batch goal"]
    next_achieved: Float[Tensor, "copies batch goal"]
    goal: Float[Tensor, "copies batch goal"]
    reward: Float[Tensor, "copies batch"]
    relabelled: Bool[Tensor, "copies batch"]


def hindsight_time(
    strategy: str, t: Int[Tensor, "*batch"], horizon: int, u: Float[Tensor, "*batch"]
) -> Int[Tensor, "*batch"]:
    """t' in 1..horizon for a transition at t in 0..horizon-1, from a uniform number u in [0, 1).

    `future` excludes the present: t' = t + 1 + floor(u (T - t)) lies in t+1..T, and t' = t + 1 has probability
    1 / (T - t); over uniform t that is the mean of 1/j, j = 1..T (.0900 for T = 50).
    """
    if strategy == "future":
        left = horizon - t
        return t + 1 + torch.minimum((u * left).long(), left - 1)  # minimum: u * left may round up to left
    if strategy in ("episode", "random"):
        return 1 + (u * horizon).long().clamp(max=horizon - 1)
    if strategy == "final":
        return torch.full_like(t, horizon)
    if strategy == "next":
        return t + 1
    raise InputError(f"strategy must be one of {', '.join(STRATEGIES)}; got '{strategy}'.")


def future_law(horizon: int) -> Float[Tensor, " horizon"]:
    """P(t' - t = j) for j = 1..T under `future` with uniform t: (1/T) sum over m >= j of 1/m."""
    shares = 1 / torch.arange(1, horizon + 1, dtype=torch.float64)
    return shares.flip(0).cumsum(0).flip(0) / horizon


class EpisodeBuffer:
    """The last `capacity` episodes of every copy. A full buffer overwrites its oldest ones.

    Args:
        capacity: episodes per copy.
        horizon: steps of every episode, T.
    """

    def __init__(
        self,
        copies: int,
        capacity: int,
        horizon: int,
        observation_size: int,
        goal_size: int,
        action_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value in (("copies", copies), ("capacity", capacity), ("horizon", horizon)):
            if value < 1:
                raise InputError(f"{name} must be at least 1; got {value}.")
        self.copies, self.capacity, self.horizon = copies, capacity, horizon
        self.device = torch.device(device)
        moments = horizon + 1
        self.observation = torch.zeros(copies, capacity, moments, observation_size, device=self.device)
        self.achieved = torch.zeros(copies, capacity, moments, goal_size, device=self.device)
        self.desired = torch.zeros(copies, capacity, goal_size, device=self.device)
        self.action = torch.zeros(copies, capacity, horizon, action_size, device=self.device)
        self.added = 0
        # the number of episodes again, where a captured CUDA graph can read it anew at every replay
        self._filled = torch.zeros((), dtype=torch.long, device=self.device)
        self._copy = torch.arange(copies, device=self.device)[:, None]

    def __len__(self) -> int:
        """Episodes held per copy."""
        return min(self.added, self.capacity)

    def add(self, episodes: Episodes) -> None:
        """Store new episodes over the oldest ones.

        Raises:
            InputError: a shape differs from the buffer's, or more episodes at once than it can hold.
        """
        held = (self.observation, self.achieved, self.desired, self.action)
        number = episodes.desired.shape[1]
        for name, new, old in zip(Episodes._fields, episodes, held, strict=True):
            wanted = (self.copies, number, *old.shape[2:])
            if tuple(new.shape) != wanted:
                raise InputError(f"{name} must be {wanted}; got {tuple(new.shape)}. Episodes are kept whole.")
        if number > self.capacity:
            raise InputError(f"{number} episodes at once do not fit a capacity of {self.capacity}.")
        slots = (self.added + torch.arange(number, device=self.device)) % self.capacity
        for new, old in zip(episodes, held, strict=True):
            old[:, slots] = new.to(self.device)
        self.added += number
        self._filled.fill_(len(self))

    def take(
        self, u: Float[Tensor, "copies 5 batch"], compute_reward: Reward, strategy: str = "future", k: float = 4.0
    ) -> Transitions:
        """A batch of transitions, uniform over all stored ones, relabelled with probability k / (k + 1).

        u: uniform numbers in [0, 1) that select episode, time, hindsight time, coin, other episode.

        Raises:
            InputError: the buffer is empty, an unknown strategy, k below 0.
        """
        if not self.added:
            raise InputError("the buffer is empty: add episodes before sampling.")
        if k < 0:
            raise InputError(f"k, the relabelled transitions per original one, must be at least 0; got {k}.")
        episode = torch.minimum((u[:, 0] * self._filled).long(), self._filled - 1)
        t = (u[:, 1] * self.horizon).long().clamp(max=self.horizon - 1)
        observation = self._at(self.observation, episode, t)
        next_achieved = self._at(self.achieved, episode, t + 1)
        goal = self.desired[self._copy, episode]
        relabelled = torch.zeros_like(episode, dtype=torch.bool)
        if strategy != "none":
            later = hindsight_time(strategy, t, self.horizon, u[:, 2])
            source = episode
            if strategy == "random":
                source = torch.minimum((u[:, 4] * self._filled).long(), self._filled - 1)
            relabelled = u[:, 3] < k / (k + 1)
            goal = torch.where(relabelled[..., None], self._at(self.achieved, source, later), goal)
        return Transitions(
            observation=observation,
            action=self._at(self.action, episode, t),
            next_observation=self._at(self.observation, episode, t + 1),
            achieved=self._at(self.achieved, episode, t),
            next_achieved=next_achieved,
            goal=goal,
            reward=compute_reward(next_achieved, goal),
            relabelled=relabelled,
        )

    def _at(
        self, values: Tensor, episode: Int[Tensor, "copies batch"], t: Int[Tensor, "copies batch"]
    ) -> Float[Tensor, "copies batch size"]:
        """Row (copy, episode, t) of `values`, through one flat index: several times faster than three."""
        rows = (self._copy * self.capacity + episode) * values.shape[2] + t
        return values.view(-1, values.shape[-1]).index_select(0, rows.flatten()).view(*rows.shape, -1)

    def state_dict(self) -> dict[str, Any]:
        """The episodes held, without empty slots."""
        n = len(self)
        held = {name: getattr(self, name)[:, :n].clone() for name in Episodes._fields}
        return {"added": self.added, **held}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.added = int(state_dict["added"])
        for name in Episodes._fields:
            saved, held = state_dict[name], getattr(self, name)
            if saved.shape[1] != len(self) or saved.shape[2:] != held.shape[2:] or len(saved) != self.copies:
                raise ValueError(f"{name} of shape {tuple(saved.shape)} does not fit {tuple(held.shape)}")
            held[:, : len(self)] = saved.to(self.device)
        self._filled.fill_(len(self))


def only_episodes(episodes: Episodes, device: torch.device | str = "cpu") -> EpisodeBuffer:
    """A buffer of just these: the normalizer's statistics are updated with new episodes only."""
    copies, number, moments, size = episodes.observation.shape
    goal, action = episodes.desired.shape[-1], episodes.action.shape[-1]
    buffer = EpisodeBuffer(copies, number, moments - 1, size, goal, action, device)
    buffer.add(episodes)
    return buffer
