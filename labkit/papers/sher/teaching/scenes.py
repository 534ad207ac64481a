"""What the figures show besides the comparison: trained learners one by one, an episode that failed, films."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import devices
from labkit.papers.sher.experiment.config import EXPERIMENTS, Arm, Config
from labkit.papers.sher.experiment.evaluate import deterministic, play_test, same_generators
from labkit.papers.sher.experiment.stacks import Copy, build_agent
from labkit.papers.sher.experiment.train import fit_unkept
from labkit.papers.sher.experiment.trained import Trained, trained
from labkit.papers.sher.experiment.worlds.build import sizes_of
from labkit.papers.sher.experiment.worlds.robots import RobotWorld
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment, Reach, Segment, Walls
from labkit.papers.sher.teaching import rendering
from labkit.progress import side_by_side
from labkit.workbench import records
from labkit.workbench.claims import Result
from labkit.workbench.runs import Run


@dataclass(frozen=True)
class Failure:
    """An episode that missed its goal: path (moments, 2), goal (2,), the goal's tolerance, the walls."""

    path: np.ndarray
    goal: np.ndarray
    tolerance: float
    walls: tuple[Segment, ...]


def failure(seed: int = 35) -> Failure:
    """An episode of a beginner behind the wall `gap`: a random walk with inertia that misses its goal."""
    world = Walls("gap")
    generator = torch.Generator().manual_seed(seed)
    now = world.reset(1, 1, [generator], training=False)
    path, goal, drift = [now["achieved_goal"][0, 0]], now["desired_goal"][0, 0], torch.zeros(1, 1, 2)
    for _ in range(world.horizon):
        drift = 0.7 * drift + 0.6 * torch.randn(1, 1, 2, generator=generator)
        path.append(world.step(drift)["achieved_goal"][0, 0])
    return Failure(torch.stack(path).numpy(), goal.numpy(), world.tolerance, world.walls)


# -- learners of a run ------------------------------------------------------------------------------------------------


def fixed_paths(learner: Trained, episodes: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """The fixed test episodes of a learner in a plane world: paths (episodes, moments, 2) and goals (episodes, 2)."""
    played = play_test(deterministic(learner.agent), learner.world, 1, episodes)
    return played.achieved[0].numpy(), played.desired[0].numpy()


def wall_learners(config: Config, run: Run, result: Result) -> dict[str, Trained]:
    """All arms in front of the wall `gap`, of the seed with which HER without noise did worst; empty without walls."""
    if "walls" not in result:
        return {}
    arms = config.experiment("walls").arms
    ends = result["walls"]["arms"]["HER-none" if "HER-none" in arms else next(iter(arms))]["success"]["gap"]
    worst = ends.index(min(ends))
    return {arm: trained(config, run, "walls", arm, "gap", worst) for arm in arms}


def fetch_films(
    config: Config, run: Run, episodes: int = 2, every: int = 4
) -> tuple[dict[str, list[rendering.Frame]], str]:
    """Frames of FetchReach before and after training, on the same goals; or none, and the reason."""
    if "fetch-reach" not in config.experiments:
        return {}, "Not part of this run."
    if reason := rendering.gl_available():
        return {}, reason
    learner = trained(config, run, "fetch-reach", "SHER")
    world = learner.world
    assert isinstance(world, RobotWorld)
    beginner = build_agent([learner.copy], config.experiment("fetch-reach"), sizes_of(world), torch.device("cpu"))
    films = {}
    for name, agent in (("before", beginner), ("after", learner.agent)):
        recorded, _ = rendering.record_episodes(world, deterministic(agent), same_generators(1)[0], episodes, every)
        films[name] = recorded[0]
    world.close()
    return films, ""


def recorded(label: str) -> list[Result]:
    """The results of the committed lesson record with this label, one per seed; empty where there is none."""
    for record in records.load_all("sher"):
        if record.scale == "lesson" and record.label == label:
            return list(record.results)
    return []


# -- values on a line -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LineValues:
    """Values of positions on a line by their distance from the goal: the optimum and what learners estimate."""

    distance: np.ndarray
    optimal: np.ndarray
    learned: Mapping[str, np.ndarray]


# Reach on a line, with the walls' schedule cut to 40 cycles; gamma is the sheet's, so the bound is -50. [ours]
LINE = replace(
    EXPERIMENTS["reach"],
    size=1,
    gamma=0.98,
    keep=0.5,
    cycles=40,
    evaluate_every=40,
    arms={"HER": Arm("her", epsilon=0.3, noise=0.2), "SHER": Arm()},
)


def line_values(seed: int = 1) -> LineValues:
    """Train both learners on the line, some seconds; their values of 58 positions for one goal."""

    def learn(name: str) -> tuple[Any, GoalEnvironment]:
        return fit_unkept(LINE, [Copy(name, LINE.arms[name], "reach", 0, seed)])[:2]

    with devices.one_thread():
        learners = side_by_side([functools.partial(learn, name) for name in LINE.arms], 2, "learners on a line")
    position = torch.linspace(-0.95, 0.5, 58)[None, :, None]
    goal = torch.full_like(position, 0.5)
    world = learners[0][1]
    assert isinstance(world, Reach)
    values = [state_value(agent, position, goal)[0].numpy() for agent, _ in learners]
    return LineValues(
        distance=(goal - position)[0, :, 0].numpy(),
        optimal=world.optimal_value(position, goal, LINE.gamma)[0].numpy(),
        learned=dict(zip(LINE.arms, values, strict=True)),
    )


@torch.no_grad()
def state_value(agent: Any, position: Tensor, goal: Tensor) -> Tensor:
    """V of positions (copies, positions, 1): SHER's network; for HER the maximum of Q over 41 actions."""
    x = agent.inputs(position, goal)
    if hasattr(agent, "v"):
        return agent.v(x)
    return torch.stack([agent.q(x, torch.full_like(position, a)) for a in torch.linspace(-1, 1, 41)]).amax(0)
