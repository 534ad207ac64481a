"""Play, relabel, learn: the loop of the released code, for many seeds and arms at once."""

import functools
import itertools
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from labkit import devices
from labkit.errors import InputError
from labkit.papers.sher.experiment.baselines import DeterministicActorCritic, QLearning
from labkit.papers.sher.experiment.config import Arm, Config, Experiment, is_robot
from labkit.papers.sher.experiment.curriculum import curriculum
from labkit.papers.sher.experiment.evaluate import Curve, deterministic, exact_lab, summarise
from labkit.papers.sher.experiment.evaluation import success_rate
from labkit.papers.sher.experiment.rollout import Act, rollout
from labkit.papers.sher.experiment.worlds.build import build_world, name_of, sizes_of, stored_action_size
from labkit.papers.sher.experiment.worlds.small import BitFlip, GoalEnvironment, Observation
from labkit.papers.sher.method.agent import LEARNING, PLAYING, Agent, Lane, Optimizers, explore, per_copy
from labkit.papers.sher.method.hindsight import DRAWS, EpisodeBuffer, Transitions, only_episodes
from labkit.papers.sher.method.soft_actor_critic import SoftActorCritic, SoftActorCritic2
from labkit.progress import progress, side_by_side
from labkit.rl.recorded import Recorded
from labkit.rl.streams import Streams
from labkit.workbench import training
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

AGENTS: dict[str, type[nn.Module]] = {
    "sher": SoftActorCritic,
    "sac": SoftActorCritic2,
    "her": DeterministicActorCritic,
    "q-learning": QLearning,
}


def train(config: Config, run: Run) -> dict[str, Any]:
    """All experiments of `config`, and the exact lab; finished parts are skipped.

    Returns:
        {"data": names, experiment: {"data": name, "arms": {arm: see `evaluate.summarise`}, "steps": [...]},
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


# -- who trains together ----------------------------------------------------------------------------------------------


def stacks_of(name: str, config: Config) -> list[list[Lane]]:
    """All lanes of an experiment, in groups that can train as one stack: arms of the same structure.

    Robots train one by one: at full size each holds a replay of 2 to 13 GB.
    """
    experiment = config.experiment(name)
    robots = is_robot(experiment)
    replicas = range(config.robot_replicas if robots else config.replicas)
    groups: dict[tuple[object, ...], list[Lane]] = {}
    for (key, arm), layout, r in itertools.product(experiment.arms.items(), experiment.layouts, replicas):
        group = (key, r) if robots else arm.structure
        groups.setdefault(group, []).append(Lane(key, arm, layout, r, config.seed))
    return list(groups.values())


def place_of(lanes: Sequence[Lane], part: Run) -> Run:
    """Where a stack is trained: a part named by its arms, a single learner's by its replica, too."""
    names = "+".join(dict.fromkeys(lane.name for lane in lanes))
    return part.part(names if len(lanes) > 1 else f"{names}-{lanes[0].replica}")


def build_agent(lanes: Sequence[Lane], experiment: Experiment, world: GoalEnvironment, device: torch.device) -> Any:
    """The stack of learners for these lanes, with fresh weights."""
    return AGENTS[lanes[0].arm.agent](lanes, experiment, sizes_of(world), device)


def unfinished(name: str, config: Config, workers: Workers, part: Run) -> list[Callable[[], None]]:
    """The stacks of an experiment that are still to be trained and evaluated, as calls without arguments."""
    stacks = [] if part.result is not None else stacks_of(name, config)
    return [
        functools.partial(train_stack, name, lanes, config, workers, place)
        for lanes in stacks
        if (place := place_of(lanes, part)).result is None
    ]


def train_stack(name: str, lanes: Sequence[Lane], config: Config, workers: Workers, place: Run) -> None:
    """Train and evaluate one stack in its own part of the run directory."""
    experiment = config.experiment(name)
    world = build_world(experiment, lanes, workers)
    agent = build_agent(lanes, experiment, world, workers.device)
    curve = fit(agent, world, experiment, config, workers, place)
    place.write_weights(agent)
    place.finish({"arms": summarise(agent, world, experiment, curve), "steps": curve.steps})


def gathered(name: str, config: Config, part: Run) -> dict[str, Any]:
    """The result of an experiment from those of its stacks."""
    if part.result is not None:
        return part.result
    experiment = config.experiment(name)
    arms: dict[str, Any] = {}
    steps: list[int] = []
    for lanes in stacks_of(name, config):
        found = place_of(lanes, part).result
        assert found is not None, "every stack was trained"
        gather(arms, found["arms"])
        steps = found["steps"]
    ordered = {arm: arms[arm] for arm in experiment.arms}
    return part.finish({"data": name_of(experiment), "arms": ordered, "steps": steps})


def gather(arms: dict[str, Any], found: dict[str, Any]) -> None:
    """Add what one stack found: an arm's replicas may have trained in several."""
    for arm, values in found.items():
        for value, layouts in values.items():
            for layout, seeds in layouts.items():
                arms.setdefault(arm, {}).setdefault(value, {}).setdefault(layout, []).extend(seeds)


# -- the loop ---------------------------------------------------------------------------------------------------------


def fit(
    agent: Any, world: GoalEnvironment, experiment: Experiment, config: Config, workers: Workers, run: Run
) -> Curve:
    """Train `agent` in place. With several processes all play their share of the episodes, all hold all of them, and
    each computes the gradients of its share of every batch: what comes out is what one process computes."""
    copies, sizes = len(agent.lanes), sizes_of(world)
    playing, learning = streams_of(agent.lanes, workers.device)
    capacity = max(
        experiment.episodes, min(experiment.capacity // world.horizon, experiment.cycles * experiment.episodes)
    )
    shape = (world.horizon, sizes.observation, sizes.goal, stored_action_size(world))
    buffer = EpisodeBuffer(copies, capacity, *shape, device=workers.device)
    optimizers, curve = Optimizers(agent, experiment, workers.device), Curve()
    state = {"agent": agent, "optimizers": optimizers, "buffer": buffer, "curve": curve,
             "playing": playing, "learning": learning}  # fmt: skip
    first = run.resume(state)
    update = updater(agent, optimizers, buffer, world, learning, experiment, config, workers)
    for cycle in progress(range(first, experiment.cycles), run.directory.name, experiment.cycles, first):
        act = exploring(agent, world, playing, experiment.episodes)
        played = rollout(act, world, copies, experiment.episodes, playing.generators)
        buffer.add(played)
        see(agent, only_episodes(played, workers.device), world, playing)
        for step in range(cycle * experiment.updates, (cycle + 1) * experiment.updates):
            losses = update(step)
        agent.update_targets(experiment.keep)
        if (cycle + 1) % experiment.evaluate_every == 0 or cycle == experiment.cycles - 1:
            test = (world, copies, experiment.test_episodes)
            rates = success_rate(deterministic(agent), *test, ever=experiment.ever)
            curve.add((cycle + 1) * experiment.episodes * world.horizon, rates)
            log(run, cycle, agent.lanes, rates, losses)
        run.save_if_due(cycle + 1, state)
    return curve


def fit_unkept(experiment: Experiment, lanes: Sequence[Lane]) -> tuple[Any, GoalEnvironment, Curve]:
    """Train a few learners in a small world, on the CPU, and keep nothing: for a picture or an exercise, in seconds.

    To be called inside of `devices.one_thread`.
    """
    config = Config(experiments=("reach",), exact=False)  # `fit` takes the schedule from `experiment`
    with TemporaryDirectory() as folder, training.workers("cpu") as workers:
        world = build_world(experiment, lanes, workers)
        agent = build_agent(lanes, experiment, world, workers.device)
        run = Run.open(folder, config)
        curve = fit(agent, world, experiment, config, workers, run)
        run.close()
    return agent, world, curve


def streams_of(lanes: Sequence[Lane], device: torch.device) -> tuple[Streams, Streams]:
    """Random numbers for playing (always drawn on the CPU) and for learning (drawn where it happens)."""
    seeds = {purpose: [lane.seed_of(purpose) for lane in lanes] for purpose in (PLAYING, LEARNING)}
    return Streams(seeds[PLAYING]), Streams(seeds[LEARNING], device)


def see(agent: Agent, new: EpisodeBuffer, world: GoalEnvironment, playing: Streams) -> None:
    """Take relabelled transitions of the new episodes into the running statistics, one for every step played."""
    if agent.inputs.normalize:
        arm = agent.lanes[0].arm
        u = playing.uniform(DRAWS, new.capacity * new.horizon).to(new.device)
        agent.inputs.update(new.take(u, world.compute_reward, arm.strategy, arm.k))


def updater(
    agent: Any,
    optimizers: Optimizers,
    buffer: EpisodeBuffer,
    world: GoalEnvironment,
    learning: Streams,
    experiment: Experiment,
    config: Config,
    workers: Workers,
) -> Callable[[int], dict[str, Tensor]]:
    """A function of the step's number that makes one gradient step and returns the losses per copy.

    On a GPU the step is a CUDA graph. Its random numbers are drawn outside, into tensors that the graph reads.
    """
    if experiment.batch % workers.size:
        raise InputError(f"batch_size {experiment.batch} must be a multiple of the {workers.size} processes.")
    draws = Draws(learning, experiment.batch, agent.noise_size, agent.lanes[0].arm.curriculum)

    def gradient_step() -> dict[str, Tensor]:
        batch, noise = draw_batch(agent.lanes[0].arm, buffer, world, draws), draws.noise
        if workers.size > 1:
            mine = slice(workers.rank, None, workers.size)
            batch, noise = Transitions(*(values[:, mine] for values in batch)), noise[:, mine]
        losses = agent.losses(batch, noise)
        optimizers.descend(losses, workers.size)
        return {name: loss.detach() for name, loss in losses.items()}

    recorded = Recorded(gradient_step, workers.device, enabled=config.captured and workers.size == 1)

    def numbered(number: int) -> dict[str, Tensor]:
        draws.renew(number)
        return recorded()

    return numbered


class Draws:
    """The random numbers of one gradient step, in tensors that stay where they are."""

    def __init__(self, streams: Streams, batch: int, noise_size: int, curriculum: bool) -> None:
        self.streams, self.batch, self.curriculum = streams, batch, curriculum
        copies, device, candidates = len(streams), streams.device, 2 * batch if curriculum else batch
        self.rows = torch.zeros(copies, DRAWS, candidates, device=device)
        self.noise = torch.zeros(copies, batch, noise_size, device=device)
        self.picks = torch.zeros(copies, batch, candidates, device=device) if curriculum else None
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
    return curriculum(candidates, draws.batch, draws.number, draws.picks)


def exploring(agent: Agent, world: GoalEnvironment, playing: Streams, episodes: int) -> Act:
    """The policy as it gathers data, for one rollout: its own sample, Gaussian noise on it, random actions between."""
    device = agent.inputs.observation.mean.device
    sigma, epsilon = (per_copy([getattr(x.arm, name) for x in agent.lanes], device) for name in ("noise", "epsilon"))
    shape = (world.horizon, episodes, stored_action_size(world))
    own, added = playing.normal(*shape).to(device), playing.normal(*shape).to(device)
    coin, random = playing.uniform(*shape[:2]).to(device), playing.uniform(*shape).to(device)

    def act(t: int, now: Observation) -> Tensor:
        action = agent.act(agent.inputs(now["observation"], now["desired_goal"]), own[:, t])
        if isinstance(world, BitFlip):
            anywhere = (random[:, t, :, 0] * world.action_size).long()
            return torch.where(coin[:, t] < epsilon, anywhere, action)
        return explore(action, added[:, t], coin[:, t], 2 * random[:, t] - 1, sigma, epsilon)

    return act


def log(run: Run, cycle: int, lanes: Sequence[Lane], rates: Tensor, losses: dict[str, Tensor]) -> None:
    """Success and losses of each arm, means over its lanes."""
    values: dict[str, float] = {}
    for arm in dict.fromkeys(lane.name for lane in lanes):
        rows = [row for row, lane in enumerate(lanes) if lane.name == arm]
        values[f"success/{arm}"] = float(rates[rows].mean())
        values |= {f"{name}/{arm}": float(loss[rows].mean()) for name, loss in losses.items()}
    run.log(cycle, **values)
