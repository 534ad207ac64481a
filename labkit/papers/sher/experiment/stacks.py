"""Which learners train together: copies of one structure, as one stack of networks."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator

from labkit.papers.sher.experiment.baselines import DeterministicActorCritic, QLearning, SoftActorCritic2
from labkit.papers.sher.experiment.config import Arm, Config, Recipe, is_robot
from labkit.papers.sher.method.agent import Settings, Sizes
from labkit.papers.sher.method.soft_actor_critic import SoftActorCritic
from labkit.rl.streams import Streams
from labkit.seeds import derive
from labkit.workbench.runs import Run

WEIGHTS, PLAYING, LEARNING = range(3)  # purposes of a learner's random numbers


@dataclass(frozen=True)
class Copy:
    """One learner of a stack: its arm, the layout of its world, which replica it is of the run with this seed."""

    name: str
    arm: Arm
    layout: str
    replica: int
    seed: int

    def seed_of(self, purpose: int) -> int:
        """The seed of one of its random streams. All arms and layouts of a replica have the same ones."""
        return derive(self.seed, self.replica, purpose)


Stack = Sequence[Copy]


def stacks_of(name: str, config: Config) -> list[list[Copy]]:
    """All copies of an experiment, in groups that train as one stack: arms of the same structure.

    Robots train one by one: at full size each has a replay buffer of 2 to 13 GB.
    """
    experiment = config.experiment(name)
    robots = is_robot(experiment)
    replicas = range(config.robot_replicas if robots else config.replicas)
    groups: dict[tuple[object, ...], list[Copy]] = {}
    for (key, arm), layout, r in itertools.product(experiment.arms.items(), experiment.layouts, replicas):
        group = (key, r) if robots else arm.structure
        groups.setdefault(group, []).append(Copy(key, arm, layout, r, config.seed))
    return list(groups.values())


def part_of(stack: Stack, run: Run) -> Run:
    """The part of a run in which a stack trains: named by its arms, and by the replica of a single learner."""
    names = "+".join(dict.fromkeys(copy.name for copy in stack))
    return run.part(names if len(stack) > 1 else f"{names}-{stack[0].replica}")


def build_agent(
    stack: Stack,
    recipe: Recipe,
    sizes: Sizes,
    device: torch.device,
    rewards: tuple[float, float] = (-1.0, 0.0),
) -> Any:
    """The stack's networks with their first weights, on `device`."""
    arm = stack[0].arm
    settings = Settings(
        gamma=recipe.gamma,
        rewards=rewards,
        clip=arm.clip,
        minimum_in_actor=arm.minimum_in_actor,
        batch_entropy=arm.batch_entropy,
        hidden=recipe.hidden,
        final_gain=recipe.final_gain,
        head=arm.head,
        log_std=recipe.log_std,
        normalize=recipe.normalize,
    )
    generators = [Generator().manual_seed(copy.seed_of(WEIGHTS)) for copy in stack]
    if arm.agent == "q-learning":
        return QLearning(sizes, settings, generators).to(device)
    if arm.agent == "her":
        penalties = [copy.arm.action_l2 for copy in stack]
        return DeterministicActorCritic(sizes, settings, penalties, generators).to(device)
    soft = SoftActorCritic if arm.agent == "sher" else SoftActorCritic2
    return soft(sizes, settings, [copy.arm.alpha for copy in stack], generators).to(device)


def streams_of(stack: Stack, device: torch.device) -> tuple[Streams, Streams]:
    """Random numbers for playing (always drawn on the CPU) and for learning (drawn on `device`)."""
    seeds = {purpose: [copy.seed_of(purpose) for copy in stack] for purpose in (PLAYING, LEARNING)}
    return Streams(seeds[PLAYING]), Streams(seeds[LEARNING], device)
