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

Time that runs out ends nothing: what follows s_{t+1} still counts (`Transitions.ended` is false). Where the
environment itself ended the episode nothing follows. If it ends at its goal, another goal would not have ended it, and
the own achieved one would: `take` asks the environment for every goal anew. [ours]

All tensors have a leading dimension of copies: N replay buffers in one, each with random numbers of its own.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.errors import InputError

Strategy = Literal["future", "final", "episode", "random", "next", "none"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
Reward = Callable[[Tensor, Tensor], Tensor]  # the environment's own: (achieved, desired) -> reward
EndsAt = Callable[[Tensor, Tensor], Tensor]  # the environment's own: (achieved, desired) -> does the goal end it?

DRAWS = 5  # uniform numbers that a transition needs: episode, time, later time, coin, other episode


class Episodes(NamedTuple):
    """Whole episodes of at most T steps. Observation and achieved goal have one more moment than there are actions.

    length: steps of each, what comes after is padding; None: T. ended: by the environment, not by time; None: never.
    """

    observation: Float[Tensor, "copies episodes moments observation"]
    achieved: Float[Tensor, "copies episodes moments goal"]
    desired: Float[Tensor, "copies episodes goal"]
    action: Float[Tensor, "copies episodes steps action"]
    length: Int[Tensor, "copies episodes"] | None = None
    ended: Bool[Tensor, "copies episodes"] | None = None

    def all_parts(self) -> tuple[Tensor, ...]:
        """The six, with T steps and no end where `length` and `ended` were left out."""
        shape = self.action.shape[:2]
        length = torch.full(shape, self.action.shape[2]) if self.length is None else self.length
        ended = torch.zeros(shape, dtype=torch.bool) if self.ended is None else self.ended
        return (*self[:4], length, ended)

    @property
    def last_achieved(self) -> Float[Tensor, "copies episodes goal"]:
        """What was achieved at the last moment of each."""
        if self.length is None:
            return self.achieved[:, :, -1]
        return torch.take_along_dim(self.achieved, self.length[..., None, None], 2)[:, :, 0]

    @property
    def steps(self) -> int:
        """Steps played by a copy, the mean over copies rounded up."""
        copies, episodes = self.action.shape[:2]
        return episodes * self.action.shape[2] if self.length is None else -(-int(self.length.sum()) // copies)


class Transitions(NamedTuple):
    """A batch, one row a transition; `ended`: nothing follows s'. Running out of time ends nothing. [official code]"""

    observation: Float[Tensor, "copies batch observation"]
    action: Float[Tensor, "copies batch action"]
    next_observation: Float[Tensor, "copies batch observation"]
    achieved: Float[Tensor, "copies batch goal"]
    next_achieved: Float[Tensor, "copies batch goal"]
    goal: Float[Tensor, "copies batch goal"]
    reward: Float[Tensor, "copies batch"]
    relabelled: Bool[Tensor, "copies batch"]
    ended: Bool[Tensor, "copies batch"]


def hindsight_time(
    strategy: str, t: Int[Tensor, "*batch"], horizon: int | Int[Tensor, "*batch"], u: Float[Tensor, "*batch"]
) -> Int[Tensor, "*batch"]:
    """t' in 1..horizon for a transition at t in 0..horizon-1, from a uniform number u in [0, 1).

    horizon: T of all episodes, or of each.

    `future` excludes the present: t' = t + 1 + floor(u (T - t)) lies in t+1..T, and t' = t + 1 has probability
    1 / (T - t); over uniform t that is the mean of 1/j, j = 1..T (.0900 for T = 50).
    """
    if strategy == "future":
        return t + 1 + _uniform_below(horizon - t, u)
    if strategy in ("episode", "random"):
        return 1 + _uniform_below(horizon + torch.zeros_like(t), u)
    if strategy == "final":
        return horizon + torch.zeros_like(t)
    if strategy == "next":
        return t + 1
    raise InputError(f"strategy must be one of {', '.join(STRATEGIES)}; got '{strategy}'.")


def _uniform_below(n: Int[Tensor, "*batch"], u: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """0..n-1 with equal probability."""
    return torch.minimum((u * n).long(), n - 1)  # minimum: u * n may round up to n


def future_law(horizon: int) -> Float[Tensor, " horizon"]:
    """P(t' - t = j) for j = 1..T under `future` with uniform t: (1/T) sum over m >= j of 1/m."""
    shares = 1 / torch.arange(1, horizon + 1, dtype=torch.float64)
    return shares.flip(0).cumsum(0).flip(0) / horizon


def relabel(
    desired: Float[Tensor, "*batch goal"],
    later: Float[Tensor, "*batch goal"],
    coin: Float[Tensor, "*batch"],
    k: float,
) -> tuple[Float[Tensor, "*batch goal"], Bool[Tensor, "*batch"]]:
    """The goals to learn with, and which of them are new: with probability k / (k + 1) what was achieved later.

    g' = m(s_t')  if coin < k / (k + 1),  else g            coin: uniform in [0, 1)
    """
    relabelled = coin < k / (k + 1)
    return torch.where(relabelled[..., None], later, desired), relabelled


class EpisodeBuffer:
    """The last `capacity` episodes of every copy. A full buffer overwrites its oldest ones [ours; official code: any].

    Args:
        capacity: episodes per copy.
        horizon: most steps of an episode, T.
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
        self.length = torch.zeros(copies, capacity, dtype=torch.long, device=self.device)
        self.ended = torch.zeros(copies, capacity, dtype=torch.bool, device=self.device)
        self.added = 0
        # steps up to the end of every episode held, and of an episode on average: for a uniform choice of transitions
        self._until = torch.full((copies, capacity), torch.inf, dtype=torch.float64, device=self.device)
        self._mean_length = torch.zeros(copies, 1, dtype=torch.float64, device=self.device)
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
        number = episodes.desired.shape[1]
        parts, held = episodes.all_parts(), [getattr(self, name) for name in Episodes._fields]
        for name, new, old in zip(Episodes._fields, parts, held, strict=True):
            wanted = (self.copies, number, *old.shape[2:])
            if tuple(new.shape) != wanted:
                raise InputError(f"{name} must be {wanted}; got {tuple(new.shape)}. Episodes are kept whole.")
        if number > self.capacity:
            raise InputError(f"{number} episodes at once do not fit a capacity of {self.capacity}.")
        slots = (self.added + torch.arange(number, device=self.device)) % self.capacity
        for new, old in zip(parts, held, strict=True):
            old[:, slots] = new.to(self.device)
        self.added += number
        self._count()

    def _count(self) -> None:
        n = len(self)
        self._filled.fill_(n)
        self._until[:, :n] = self.length[:, :n].cumsum(1).double()
        self._mean_length.copy_(self._until[:, n - 1 : n] / n)

    def take(
        self,
        u: Float[Tensor, "copies 5 batch"],
        compute_reward: Reward,
        strategy: str = "future",
        k: float = 4.0,
        ends_at: EndsAt | None = None,
    ) -> Transitions:
        """A batch of transitions, uniform over all stored ones, relabelled with probability k / (k + 1).

        u: uniform numbers in [0, 1) that select episode, time, hindsight time, coin, other episode.
        ends_at: does the environment end an episode at its goal? None: at no goal.

        Raises:
            InputError: the buffer is empty, an unknown strategy, k below 0 or not finite.
        """
        if not self.added:
            raise InputError("the buffer is empty: add episodes before sampling.")
        if not 0 <= k < math.inf:
            raise InputError(f"k, the relabelled transitions per original one, must be 0 or more, finite; got {k}.")
        episode = self._episode(u[:, 0])
        length = self.length[self._copy, episode]
        t = _uniform_below(length, u[:, 1])
        observation = self._at(self.observation, episode, t)
        next_achieved = self._at(self.achieved, episode, t + 1)
        desired = goal = self.desired[self._copy, episode]
        relabelled = torch.zeros_like(episode, dtype=torch.bool)
        if strategy != "none":
            source = self._episode(u[:, 4]) if strategy == "random" else episode
            later = hindsight_time(strategy, t, self.length[self._copy, source], u[:, 2])
            goal, relabelled = relabel(desired, self._at(self.achieved, source, later), u[:, 3], k)
        ended = self.ended[self._copy, episode] & (t == length - 1)
        if ends_at is not None:
            ended = (ended & ~ends_at(next_achieved, desired)) | ends_at(next_achieved, goal)
        return Transitions(
            observation=observation,
            action=self._at(self.action, episode, t),
            next_observation=self._at(self.observation, episode, t + 1),
            achieved=self._at(self.achieved, episode, t),
            next_achieved=next_achieved,
            goal=goal,
            reward=compute_reward(next_achieved, goal),
            relabelled=relabelled,
            ended=ended,
        )

    def _episode(self, u: Float[Tensor, "copies batch"]) -> Int[Tensor, "copies batch"]:
        """An episode of the own copy, with a probability in proportion to its length; evenly where all are equal."""
        steps = (u * self._filled).double() * self._mean_length  # exact multiples of T where every episode has T
        return torch.minimum(torch.searchsorted(self._until, steps, right=True), self._filled - 1)

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
        self._count()


def only_episodes(episodes: Episodes, device: torch.device | str = "cpu") -> EpisodeBuffer:
    """A buffer of just these: the normalizer's statistics are updated with new episodes only."""
    copies, number, moments, size = episodes.observation.shape
    goal, action = episodes.desired.shape[-1], episodes.action.shape[-1]
    buffer = EpisodeBuffer(copies, number, moments - 1, size, goal, action, device)
    buffer.add(episodes)
    return buffer
