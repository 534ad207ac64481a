"""The experiments: every stack plays, learns and is tested, cycle by cycle; finished parts are skipped."""

import functools
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from labkit import devices
from labkit.papers.sher.experiment.config import Config, Experiment
from labkit.papers.sher.experiment.evaluate import Curve, deterministic, exact_lab, success_rate, summarize
from labkit.papers.sher.experiment.learner import Learner
from labkit.papers.sher.experiment.stacks import Stack, build_agent, part_of, stacks_of
from labkit.papers.sher.experiment.worlds.build import build_world, name_of, sizes_of
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment
from labkit.progress import progress, side_by_side
from labkit.workbench import training
from labkit.workbench.runs import Run, State
from labkit.workbench.training import Workers


def train(config: Config, run: Run) -> dict[str, Any]:
    """All experiments of `config`, and the exact lab; finished parts are skipped.

    Returns:
        {"data": names, experiment: {"data": name, "arms": {arm: see `evaluate.summarize`}, "steps": [...]},
        "exact": see `evaluate.exact_lab`}
    """
    with training.workers(config.device) as workers, devices.one_thread():
        run.checkpoint_seconds = config.checkpoint_seconds
        tasks = [task for name in config.experiments for task in unfinished(name, config, workers, run.part(name))]
        alone = workers.size == 1 and workers.device.type == "cpu"
        side_by_side(tasks, config.at_once if alone else 1, "stacks of learners")
        result: dict[str, Any] = {name: gathered(name, config, run.part(name)) for name in config.experiments}
        if config.exact:
            result["exact"] = exact_lab()
        used = [result[name]["data"] for name in config.experiments]
        return {"data": ", ".join(used) or "exact"} | result


# -- an experiment and its stacks -------------------------------------------------------------------------------------


def unfinished(name: str, config: Config, workers: Workers, run: Run) -> list[Callable[[], None]]:
    """The stacks of an experiment that are still to be trained and evaluated, as calls without arguments."""
    stacks = [] if run.result is not None else stacks_of(name, config)
    return [
        functools.partial(train_stack, name, stack, config, workers, part)
        for stack in stacks
        if (part := part_of(stack, run)).result is None
    ]


def train_stack(name: str, stack: Stack, config: Config, workers: Workers, part: Run) -> None:
    """Train and evaluate one stack in its own part of the run directory."""
    experiment = config.experiment(name)
    world = build_world(experiment, [copy.layout for copy in stack], workers)
    agent = build_agent(stack, experiment, sizes_of(world), workers.device)
    curve = fit(agent, stack, world, experiment, workers, part, captured=config.captured)
    part.write_weights(agent)
    part.finish({"arms": summarize(agent, stack, world, experiment, curve), "steps": curve.steps})


def gathered(name: str, config: Config, run: Run) -> dict[str, Any]:
    """The result of an experiment from those of its stacks."""
    if run.result is not None:
        return run.result
    experiment = config.experiment(name)
    arms: dict[str, Any] = {}
    steps: list[int] = []
    for stack in stacks_of(name, config):
        result = part_of(stack, run).result
        assert result is not None, "every stack was trained"
        add_replicas(arms, result["arms"])
        steps = result["steps"]
    ordered = {arm: arms[arm] for arm in experiment.arms}
    return run.finish({"data": name_of(experiment), "arms": ordered, "steps": steps})


def add_replicas(arms: dict[str, Any], of_stack: dict[str, Any]) -> None:
    """Append the results of one stack: an arm's replicas may have trained in several."""
    for arm, values in of_stack.items():
        for value, layouts in values.items():
            for layout, seeds in layouts.items():
                arms.setdefault(arm, {}).setdefault(value, {}).setdefault(layout, []).extend(seeds)


# -- the loop ---------------------------------------------------------------------------------------------------------


def fit(
    agent: Any,
    stack: Stack,
    world: GoalEnvironment,
    experiment: Experiment,
    workers: Workers,
    run: Run,
    captured: bool = True,
) -> Curve:
    """Train `agent` in place. With several processes all play their share of the episodes, all hold all of them, and
    each computes the gradients of its share of every batch: what comes out is what one process computes."""
    learner, curve = Learner(agent, stack, world, experiment, workers, experiment.cycles, captured), Curve()
    state: State = {"learner": learner, "curve": curve}
    first = run.resume(state)
    for cycle in progress(range(first, experiment.cycles), run.directory.name, experiment.cycles, first):
        learner.cycle()
        if (cycle + 1) % experiment.evaluate_every == 0 or cycle == experiment.cycles - 1:
            tests = experiment.test_episodes
            rates = success_rate(deterministic(agent), world, len(stack), tests, ever=experiment.ever)
            curve.add((cycle + 1) * experiment.episodes * world.horizon, rates)
            log(run, cycle, stack, rates, learner.losses)
        run.save_if_due(cycle + 1, state)
    return curve


def fit_unkept(experiment: Experiment, stack: Stack) -> tuple[Any, GoalEnvironment, Curve]:
    """Train a few learners in a small world, on the CPU, and keep nothing: for a picture or an exercise, in seconds.

    To be called inside of `devices.one_thread`.
    """
    with TemporaryDirectory() as folder, training.workers("cpu") as workers:
        world = build_world(experiment, [copy.layout for copy in stack], workers)
        agent = build_agent(stack, experiment, sizes_of(world), workers.device)
        run = Run.open(folder, Config(experiments=("reach",), exact=False))
        curve = fit(agent, stack, world, experiment, workers, run)
        run.close()
    return agent, world, curve


def log(run: Run, cycle: int, stack: Stack, rates: Tensor, losses: dict[str, Tensor]) -> None:
    """Success and losses of each arm, means over its copies."""
    values: dict[str, float] = {}
    for arm in dict.fromkeys(copy.name for copy in stack):
        rows = [row for row, copy in enumerate(stack) if copy.name == arm]
        values[f"success/{arm}"] = float(rates[rows].mean())
        values |= {f"{name}/{arm}": float(loss[rows].mean()) for name, loss in losses.items()}
    run.log(cycle, **values)
