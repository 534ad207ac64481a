"""Play, relabel, learn: the loop of the released code, for many seeds and arms at once."""

import functools
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from labkit import devices
from labkit.errors import InputError
from labkit.papers.sher.experiment.config import Arm, Config, Experiment
from labkit.papers.sher.experiment.curriculum import curriculum, pools_of
from labkit.papers.sher.experiment.evaluate import Curve, deterministic, exact_lab, success_rate, summarize
from labkit.papers.sher.experiment.rollout import Act, rollout
from labkit.papers.sher.experiment.stacks import Stack, build_agent, part_of, stacks_of, streams_of
from labkit.papers.sher.experiment.worlds.build import build_world, name_of, sizes_of, stored_action_size
from labkit.papers.sher.experiment.worlds.small import BitFlip, GoalEnvironment, Observation
from labkit.papers.sher.method.agent import Agent, Optimizers, explore, per_copy
from labkit.papers.sher.method.hindsight import DRAWS, EpisodeBuffer, Transitions, only_episodes
from labkit.progress import progress, side_by_side
from labkit.rl.recorded import Recorded
from labkit.rl.streams import Streams
from labkit.workbench import training
from labkit.workbench.runs import Run
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
        side_by_side(tasks, config.at_once if alone else 1)
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
    agent = build_agent(stack, experiment, world, workers.device)
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
    copies, arm, sizes = len(stack), stack[0].arm, sizes_of(world)
    playing, learning = streams_of(stack, workers.device)
    capacity = max(
        experiment.episodes, min(experiment.capacity // world.horizon, experiment.cycles * experiment.episodes)
    )
    shape = (world.horizon, sizes.observation, sizes.goal, stored_action_size(world))
    buffer = EpisodeBuffer(copies, capacity, *shape, device=workers.device)
    optimizers, curve = build_optimizers(agent, experiment, workers.device), Curve()
    state = {"agent": agent, "optimizers": optimizers, "buffer": buffer, "curve": curve,
             "playing": playing, "learning": learning}  # fmt: skip
    first = run.resume(state)
    update = updater(agent, arm, optimizers, buffer, world, learning, experiment, workers, captured)
    for cycle in progress(range(first, experiment.cycles), run.directory.name, experiment.cycles, first):
        act = exploring(agent, stack, world, playing, experiment.episodes)
        played = rollout(act, world, copies, experiment.episodes, playing.generators)
        buffer.add(played)
        update_normalizer(agent, arm, only_episodes(played, workers.device), world, playing)
        for step in range(cycle * experiment.updates, (cycle + 1) * experiment.updates):
            losses = update(step)
        agent.update_targets(experiment.keep)
        if (cycle + 1) % experiment.evaluate_every == 0 or cycle == experiment.cycles - 1:
            rates = success_rate(deterministic(agent), world, copies, experiment.test_episodes, ever=experiment.ever)
            curve.add((cycle + 1) * experiment.episodes * world.horizon, rates)
            log(run, cycle, stack, rates, losses)
        run.save_if_due(cycle + 1, state)
    return curve


def fit_unkept(experiment: Experiment, stack: Stack) -> tuple[Any, GoalEnvironment, Curve]:
    """Train a few learners in a small world, on the CPU, and keep nothing: for a picture or an exercise, in seconds.

    To be called inside of `devices.one_thread`.
    """
    with TemporaryDirectory() as folder, training.workers("cpu") as workers:
        world = build_world(experiment, [copy.layout for copy in stack], workers)
        agent = build_agent(stack, experiment, world, workers.device)
        run = Run.open(folder, Config(experiments=("reach",), exact=False))
        curve = fit(agent, stack, world, experiment, workers, run)
        run.close()
    return agent, world, curve


def build_optimizers(agent: Agent, experiment: Experiment, device: torch.device) -> Optimizers:
    rates = {
        "critic": experiment.critic_rate, "policy": experiment.actor_rate, "temperature": experiment.alpha_rate,
    }  # fmt: skip
    return Optimizers(agent, rates, device)


def update_normalizer(agent: Agent, arm: Arm, new: EpisodeBuffer, world: GoalEnvironment, playing: Streams) -> None:
    """Add relabelled transitions of the new episodes to the running statistics, one for every step played."""
    if agent.inputs.normalize:
        u = playing.uniform(DRAWS, new.capacity * new.horizon).to(new.device)
        agent.inputs.update(new.take(u, world.compute_reward, arm.strategy, arm.k))


def updater(
    agent: Any,
    arm: Arm,
    optimizers: Optimizers,
    buffer: EpisodeBuffer,
    world: GoalEnvironment,
    learning: Streams,
    experiment: Experiment,
    workers: Workers,
    captured: bool = True,
) -> Callable[[int], dict[str, Tensor]]:
    """A function of the step's number that makes one gradient step and returns the losses per copy.

    On a GPU the step is a CUDA graph. Its random numbers are drawn outside, into tensors that the graph reads.
    """
    if experiment.batch % workers.size:
        raise InputError(f"batch_size {experiment.batch} must be a multiple of the {workers.size} processes.")
    draws = Draws(learning, experiment.batch, agent.noise_size, arm.curriculum)

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
    candidates = buffer.take(draws.rows, world.compute_reward, arm.strategy, arm.k)
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


def log(run: Run, cycle: int, stack: Stack, rates: Tensor, losses: dict[str, Tensor]) -> None:
    """Success and losses of each arm, means over its copies."""
    values: dict[str, float] = {}
    for arm in dict.fromkeys(copy.name for copy in stack):
        rows = [row for row, copy in enumerate(stack) if copy.name == arm]
        values[f"success/{arm}"] = float(rates[rows].mean())
        values |= {f"{name}/{arm}": float(loss[rows].mean()) for name, loss in losses.items()}
    run.log(cycle, **values)
