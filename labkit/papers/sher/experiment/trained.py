"""Learners of a finished run, one by one, with the worlds they learned in."""

from dataclasses import dataclass
from typing import Any

import torch

from labkit.errors import InputError
from labkit.papers.sher.experiment.config import Config, Experiment
from labkit.papers.sher.experiment.stacks import Copy, Stack, build_agent, part_of, stacks_of
from labkit.papers.sher.experiment.worlds.build import build_world, sizes_of
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment
from labkit.workbench import training
from labkit.workbench.runs import Run


@dataclass(frozen=True)
class Trained:
    """One trained learner and the world it learned in (with its own layout)."""

    copy: Copy
    agent: Any
    world: GoalEnvironment


def trained(config: Config, run: Run, name: str, arm: str, layout: str = "", replica: int = 0) -> Trained:
    """A learner of the experiment `name` of a finished run; its weights come from the run directory.

    Raises:
        InputError: the run has no such arm, layout or replica.
    """
    experiment, cpu = config.experiment(name), torch.device("cpu")
    for stack in stacks_of(name, config):
        rows = [r for r, c in enumerate(stack) if (c.name, c.layout, c.replica) == (arm, layout, replica)]
        if not rows:
            continue
        with training.workers("cpu") as workers:
            layouts = [copy.layout for copy in stack]
            together = build_agent(stack, experiment, sizes_of(build_world(experiment, layouts, workers)), cpu)
            part_of(stack, run.part(name)).read_weights(together)
            world = build_world(experiment, [layout], workers)
        return Trained(stack[rows[0]], one_copy(together, stack, rows[0], experiment, world), world)
    raise InputError(f"the run has no arm '{arm}' with layout '{layout}' and replica {replica} in '{name}'.")


def one_copy(agent: Any, stack: Stack, row: int, experiment: Experiment, world: GoalEnvironment) -> Any:
    """The learner in row `row` of a stack as a stack of one."""
    alone = build_agent([stack[row]], experiment, sizes_of(world), torch.device("cpu"))
    state = {
        name: value[row : row + 1] if value.dim() and len(value) == len(stack) else value
        for name, value in agent.state_dict().items()
    }
    alone.load_state_dict(state)
    return alone
