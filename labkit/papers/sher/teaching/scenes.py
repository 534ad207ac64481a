"""What the notebook looks at besides the comparison: trained learners one by one, an episode that failed, films."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import devices
from labkit.errors import InputError
from labkit.papers.sher.experiment.config import EXPERIMENTS, Arm, Config
from labkit.papers.sher.experiment.evaluate import deterministic
from labkit.papers.sher.experiment.evaluation import play_test, same_generators
from labkit.papers.sher.experiment.train import build_agent, fit_unkept, place_of, stacks_of
from labkit.papers.sher.experiment.worlds.build import build_world
from labkit.papers.sher.experiment.worlds.robots import RoboticsWorld
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment, Reach, Walls
from labkit.papers.sher.method.agent import Lane
from labkit.papers.sher.teaching import rendering
from labkit.papers.sher.teaching.figures import Failure, LineValues
from labkit.progress import side_by_side
from labkit.workbench import records, training
from labkit.workbench.claims import Result
from labkit.workbench.runs import Run


def one_lane(agent: Any, row: int, experiment: Any, world: GoalEnvironment) -> Any:
    """The learner in row `row` of a stack as a stack of one."""
    copies = len(agent.lanes)
    alone = build_agent([agent.lanes[row]], experiment, world, torch.device("cpu"))
    state = {
        name: value[row : row + 1] if value.dim() and len(value) == copies else value
        for name, value in agent.state_dict().items()
    }
    alone.load_state_dict(state)
    return alone


@dataclass(frozen=True)
class Trained:
    """One trained learner and the world it learned in (with its own layout)."""

    lane: Lane
    agent: Any
    world: GoalEnvironment


def trained(config: Config, run: Run, experiment: str, arm: str, layout: str = "", replica: int = 0) -> Trained:
    """A learner of a finished run; its weights come from the run directory.

    Raises:
        InputError: the run has no such arm, layout or replica.
    """
    asked = config.experiment(experiment)
    for lanes in stacks_of(experiment, config):
        rows = [r for r, x in enumerate(lanes) if (x.name, x.layout, x.replica) == (arm, layout, replica)]
        if not rows:
            continue
        with training.workers("cpu") as workers:
            together = build_world(asked, lanes, workers)
            stack = build_agent(lanes, asked, together, torch.device("cpu"))
            place_of(lanes, run.part(experiment)).read_weights(stack)
            alone = build_world(asked, [lanes[rows[0]]], workers)
            return Trained(lanes[rows[0]], one_lane(stack, rows[0], asked, alone), alone)
    raise InputError(f"the run has no arm '{arm}' with layout '{layout}' and replica {replica} in '{experiment}'.")


def fixed_paths(learner: Trained, episodes: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """The fixed test episodes of a learner in a flat world: paths (episodes, moments, 2) and goals (episodes, 2)."""
    played = play_test(deterministic(learner.agent), learner.world, 1, episodes)
    return played.achieved[0].numpy(), played.desired[0].numpy()


def failure(seed: int = 35) -> Failure:
    """An episode of a beginner behind the wall `gap`: a lazy random walk that misses its goal."""
    world = Walls("gap")
    generator = torch.Generator().manual_seed(seed)
    now = world.reset(1, 1, [generator], training=False)
    path, goal, drift = [now["achieved_goal"][0, 0]], now["desired_goal"][0, 0], torch.zeros(1, 1, 2)
    for _ in range(world.horizon):
        drift = 0.7 * drift + 0.6 * torch.randn(1, 1, 2, generator=generator)
        path.append(world.step(drift)["achieved_goal"][0, 0])
    return Failure(torch.stack(path).numpy(), goal.numpy(), world.tolerance, world.walls)


# Reach on a line, with the walls' schedule cut to 40 cycles; gamma is the sheet's, so the bound is -50. [ours]
LINE = replace(
    EXPERIMENTS["reach"],
    title="reach on a line",
    size=1,
    gamma=0.98,
    keep=0.5,
    cycles=40,
    evaluate_every=40,
    arms={"HER": Arm("her", epsilon=0.3, noise=0.2), "SHER": Arm()},
)


def line_values() -> LineValues:
    """Train both learners on the line, some seconds, and ask them what every place is worth for one goal."""

    def learn(name: str) -> tuple[Any, GoalEnvironment]:
        return fit_unkept(LINE, [Lane(name, LINE.arms[name], "reach", 0, 1)])[:2]

    with devices.one_thread():
        found = side_by_side([functools.partial(learn, name) for name in LINE.arms], at_once=2)
    position = torch.linspace(-0.95, 0.5, 58)[None, :, None]
    goal = torch.full_like(position, 0.5)
    world = found[0][1]
    assert isinstance(world, Reach)
    learned = {name: state_value(agent, position, goal) for name, (agent, _) in zip(LINE.arms, found, strict=True)}
    return LineValues(
        distance=(goal - position)[0, :, 0].numpy(),
        optimal=world.optimal_value(position, goal, LINE.gamma)[0].numpy(),
        learned={name: value[0].numpy() for name, value in learned.items()},
    )


@torch.no_grad()
def state_value(agent: Any, position: Tensor, goal: Tensor) -> Tensor:
    """V of places on a line: SHER's network; for HER the best of 41 actions. Shapes (copies, places, 1)."""
    x = agent.inputs(position, goal)
    if hasattr(agent, "v"):
        return agent.v(x)
    return torch.stack([agent.q(x, torch.full_like(position, a)) for a in torch.linspace(-1, 1, 41)]).amax(0)


def recorded(label: str) -> list[Result]:
    """The results of the committed lesson record with this label, one per seed; empty where there is none."""
    for record in records.load_all("sher"):
        if record.scale == "lesson" and record.label == label:
            return list(record.results)
    return []


def fetch_films(config: Config, run: Run, episodes: int = 2, every: int = 3) -> dict[str, list[Any]] | str:
    """Frames of FetchReach before and after training, on the same goals; or why there can be none here."""
    if reason := rendering.gl_available():
        return reason
    learner = trained(config, run, "fetch-reach", "SHER")
    assert isinstance(learner.world, RoboticsWorld)
    asked = config.experiment("fetch-reach")
    beginner = build_agent([learner.lane], asked, learner.world, torch.device("cpu"))
    world = RoboticsWorld(asked.world, render=(160, 120))
    films = {}
    for name, agent in (("before", beginner), ("after", learner.agent)):
        played, _ = rendering.record_episodes(
            world, deterministic(agent), same_generators(1)[0], episodes=episodes, every=every
        )
        films[name] = played[0]
    world.close()
    return films
