"""Play, relabel, learn: the loop of the released code, for many seeds and arms at once, in any goal environment."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.sher.experiment.config import Arm, Recipe
from labkit.papers.sher.experiment.curriculum import curriculum, pools_of
from labkit.papers.sher.experiment.rollout import Act, rollout
from labkit.papers.sher.experiment.stacks import Stack, streams_of
from labkit.papers.sher.experiment.worlds.build import sizes_of, stored_action_size
from labkit.papers.sher.experiment.worlds.small import BitFlip, GoalEnvironment, Observation
from labkit.papers.sher.method.agent import Agent, Optimizers, explore, per_copy
from labkit.papers.sher.method.hindsight import DRAWS, EpisodeBuffer, Episodes, Transitions, only_episodes
from labkit.rl.recorded import Recorded
from labkit.rl.streams import Streams
from labkit.workbench.training import Workers

ROUND = 50  # gradient steps between two steps of the targets where a recipe counts steps played: FetchReach's [ours]


class Learner:
    """A stack of agents in its world, with replay buffer, optimizers and random numbers: all that a cycle changes.

    Args:
        agent: trained in place.
        cycles: as many as will be asked for, so that the buffer is no larger than needed; None: not known.
        captured: on a GPU, replay gradient steps as a CUDA graph.

    Attributes:
        losses: of the last gradient step, per copy.
    """

    def __init__(
        self,
        agent: Any,
        stack: Stack,
        world: GoalEnvironment,
        recipe: Recipe,
        workers: Workers,
        cycles: int | None = None,
        captured: bool = True,
    ) -> None:
        self.agent, self.stack, self.world, self.recipe = agent, stack, world, recipe
        self.playing, self.learning = streams_of(stack, workers.device)
        capacity = recipe.capacity // world.horizon
        if cycles is not None:
            capacity = min(capacity, cycles * recipe.episodes)
        sizes = sizes_of(world)
        shape = (world.horizon, sizes.observation, sizes.goal, stored_action_size(world))
        self.buffer = EpisodeBuffer(len(stack), max(recipe.episodes, capacity), *shape, device=workers.device)
        self.optimizers = build_optimizers(agent, recipe, workers.device)
        self.update = updater(
            agent, stack[0].arm, self.optimizers, self.buffer, world, self.learning, recipe, workers, captured
        )
        self.gradient_steps = 0
        self.losses: dict[str, Tensor] = {}

    def cycle(self) -> Episodes:
        """Play new episodes, store them, learn from all; returns the new ones."""
        act = exploring(self.agent, self.stack, self.world, self.playing, self.recipe.episodes)
        played = rollout(act, self.world, len(self.stack), self.recipe.episodes, self.playing.generators)
        self.buffer.add(played)
        new = only_episodes(played, self.buffer.device)
        update_normalizer(self.agent, self.stack[0].arm, new, played.steps, self.world, self.playing)
        for updates, keep in self._rounds(played.steps):
            for _ in range(updates):
                self.losses = self.update(self.gradient_steps)
                self.gradient_steps += 1
            self.agent.update_targets(keep)
        return played

    def _rounds(self, steps: int) -> Iterator[tuple[int, float]]:
        """Gradient steps, then what the targets keep, for `steps` steps played."""
        keep = self.recipe.keep
        if self.recipe.updates is not None:
            yield self.recipe.updates, keep
            return
        for first in range(0, steps, ROUND):
            updates = min(ROUND, steps - first)
            yield updates, keep ** (updates / ROUND)

    def state_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        return {"gradient_steps": self.gradient_steps, **parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.gradient_steps = int(state_dict["gradient_steps"])
        for name in _PARTS:
            getattr(self, name).load_state_dict(state_dict[name])


_PARTS = ("agent", "optimizers", "buffer", "playing", "learning")


def build_optimizers(agent: Agent, recipe: Recipe, device: torch.device) -> Optimizers:
    rates = {
        "critic": recipe.critic_rate, "policy": recipe.actor_rate, "temperature": recipe.alpha_rate,
    }  # fmt: skip
    return Optimizers(agent, rates, device)


def update_normalizer(
    agent: Agent, arm: Arm, new: EpisodeBuffer, steps: int, world: GoalEnvironment, playing: Streams
) -> None:
    """Add relabelled transitions of the new episodes to the running statistics, one for every step played.

    Uniform ones [ours]: the released code's come through CHER's sampler, 64 whatever was played.
    """
    if agent.inputs.normalize:
        u = playing.uniform(DRAWS, steps).to(new.device)
        agent.inputs.update(new.take(u, world.compute_reward, arm.strategy, arm.k))


def updater(
    agent: Any,
    arm: Arm,
    optimizers: Optimizers,
    buffer: EpisodeBuffer,
    world: GoalEnvironment,
    learning: Streams,
    recipe: Recipe,
    workers: Workers,
    captured: bool = True,
) -> Callable[[int], dict[str, Tensor]]:
    """A function of the step's number that makes one gradient step and returns the losses per copy.

    On a GPU the step is a CUDA graph. Its random numbers are drawn outside, into tensors that the graph reads.
    """
    if recipe.batch % workers.size:
        raise InputError(f"batch_size {recipe.batch} must be a multiple of the {workers.size} processes.")
    draws = Draws(learning, recipe.batch, agent.noise_size, arm.curriculum)

    def gradient_step() -> dict[str, Tensor]:
        batch, noise = draw_batch(arm, buffer, world, draws), draws.noise
        if workers.size > 1:
            mine = slice(workers.rank, None, workers.size)
            batch, noise = Transitions(*(values[:, mine] for values in batch)), noise[:, mine]
        losses = agent.losses(batch, noise)
        optimizers.descend(losses, workers.size)
        return {name: loss.detach() for name, loss in losses.items()}

    recorded = Recorded(gradient_step, workers.device, enabled=captured and workers.size == 1)

    def numbered(number: int) -> dict[str, Tensor]:
        draws.renew(number)
        return recorded()

    return numbered


class Draws:
    """The random numbers of one gradient step, in tensors that stay where they are."""

    def __init__(self, streams: Streams, batch: int, noise_size: int, curriculum: bool) -> None:
        self.streams, self.batch = streams, batch
        copies, device, candidates = len(streams), streams.device, 2 * batch if curriculum else batch
        self.rows = torch.zeros(copies, DRAWS, candidates, device=device)
        self.noise = torch.zeros(copies, batch, noise_size, device=device)
        pools = pools_of(batch)  # per copy; CHER's picks of each, a row of uniform numbers for every pick
        shape = (copies, pools, batch // pools, candidates // pools)
        self.picks = torch.zeros(shape, device=device) if curriculum else None
        self.number = torch.zeros((), dtype=torch.float64, device=device)  # of the step, for CHER's lambda

    def renew(self, number: int) -> None:
        self.rows.copy_(self.streams.uniform(*self.rows.shape[1:]))
        self.noise.copy_(self.streams.normal(*self.noise.shape[1:]))
        if self.picks is not None:
            self.picks.copy_(self.streams.uniform(*self.picks.shape[1:]))
        self.number.fill_(float(number))


def draw_batch(arm: Arm, buffer: EpisodeBuffer, world: GoalEnvironment, draws: Draws) -> Transitions:
    """Relabelled transitions, uniform, or CHER's choice among twice as many."""
    candidates = buffer.take(draws.rows, world.compute_reward, arm.strategy, arm.k, world.ends_at)
    if draws.picks is None:
        return candidates
    return curriculum(candidates, draws.batch, draws.number, draws.picks.flatten(0, 1))


def exploring(agent: Agent, stack: Stack, world: GoalEnvironment, playing: Streams, episodes: int) -> Act:
    """The policy as it gathers data, for one rollout: its own sample, Gaussian noise on it, random actions between."""
    device = agent.inputs.observation.mean.device
    sigma, epsilon = (per_copy([getattr(copy.arm, name) for copy in stack], device) for name in ("noise", "epsilon"))
    shape = (world.horizon, episodes, stored_action_size(world))
    own, added = playing.normal(*shape).to(device), playing.normal(*shape).to(device)
    coin, random = playing.uniform(*shape[:2]).to(device), playing.uniform(*shape).to(device)

    def act(t: int, now: Observation) -> Tensor:
        action = agent.act(agent.inputs(now["observation"], now["desired_goal"]), own[:, t])
        if isinstance(world, BitFlip):
            random_index = (random[:, t, :, 0] * world.action_size).long()
            return torch.where(coin[:, t] < epsilon, random_index, action)
        return explore(action, added[:, t], coin[:, t], 2 * random[:, t] - 1, sigma, epsilon)

    return act
