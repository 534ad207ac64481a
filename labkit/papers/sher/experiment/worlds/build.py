"""The world of an experiment, and robots that several processes share."""

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Generator, Tensor

from labkit.errors import InputError
from labkit.papers.sher.experiment.config import Experiment, is_robot
from labkit.papers.sher.experiment.worlds.robots import RobotWorld
from labkit.papers.sher.experiment.worlds.small import (
    BitFlip,
    FixedHorizon,
    GoalEnvironment,
    Observation,
    Push,
    Reach,
    Walls,
)
from labkit.papers.sher.method.agent import Sizes
from labkit.workbench.training import Workers


def build_world(experiment: Experiment, layouts: Sequence[str], workers: Workers) -> GoalEnvironment:
    """The experiment's world; `layouts` names that of every copy, where it has layouts.

    Raises:
        InputError: an unknown robot environment or one without goals; a MuJoCo that cannot run it.
    """
    if is_robot(experiment):
        threads = max(1, len(os.sched_getaffinity(0)) // workers.size)
        robots = RobotWorld(experiment.world, threads=threads, device=workers.device)
        return robots if workers.size == 1 else SharedWorld(robots, workers)
    if experiment.world == "walls":
        return Walls(layouts, device=workers.device)
    if experiment.world == "bits":
        return BitFlip(experiment.size, device=workers.device)
    if experiment.world == "push":
        return Push(device=workers.device)
    return Reach(experiment.size, step=0.2, tolerance=0.15, horizon=25, device=workers.device)


def sizes_of(world: GoalEnvironment) -> Sizes:
    return Sizes(world.observation_size, world.goal_size, world.action_size)


def stored_action_size(world: GoalEnvironment) -> int:
    """Numbers that the replay buffer keeps of an action: of a bit flip, its index."""
    return 1 if isinstance(world, BitFlip) else world.action_size


def name_of(experiment: Experiment) -> str:
    """What a result names as its data."""
    if is_robot(experiment):
        return experiment.world
    names = {"walls": "+".join(experiment.layouts), "bits": f"{experiment.size} bits"}
    return names.get(experiment.world, experiment.world)


class SharedWorld(FixedHorizon):
    """Robots dealt out to several processes: each simulates its share of the episodes, all get the states of all.

    Every process has starts and goals of its own, as the released code's workers have: the episodes depend on the
    number of processes. (The small worlds are played by every process alike, and do not depend on it.)
    """

    def __init__(self, own: RobotWorld, workers: Workers) -> None:
        self.own, self.rank, self.processes = own, workers.rank, workers.size
        self.horizon, self.observation_size = own.horizon, own.observation_size
        self.goal_size, self.action_size = own.goal_size, own.action_size
        self.is_success, self.compute_reward = own.is_success, own.compute_reward

    def reset(self, copies: int, episodes: int, generators: Sequence[Generator], training: bool = True) -> Observation:
        """New episodes.

        Raises:
            InputError: they cannot be dealt out evenly.
        """
        if episodes % self.processes:
            raise InputError(
                f"{episodes} episodes cannot be dealt out evenly to {self.processes} processes. "
                "Choose `episodes` and `test_episodes` as multiples of it."
            )
        seeds = [int(torch.randint(2**31, (self.processes,), generator=g)[self.rank]) for g in generators]
        mine = [Generator().manual_seed(seed) for seed in seeds]
        return self._gathered(self.own.reset(copies, episodes // self.processes, mine, training))

    def step(self, action: Float[Tensor, "copies episodes action"]) -> Observation:
        """One step of all; this process simulates its own share."""
        return self._gathered(self.own.step(action.chunk(self.processes, dim=1)[self.rank]))

    def _gathered(self, share: Observation) -> Observation:
        whole = {}
        for name, own in share.items():
            parts = [torch.empty_like(own) for _ in range(self.processes)]
            dist.all_gather(parts, own.contiguous())
            whole[name] = torch.cat(parts, 1)
        return whole
