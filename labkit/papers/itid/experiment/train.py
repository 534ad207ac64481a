"""Train every arm of an experiment with several replicas, at once as a stack or one by one: one plain loop for both."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit import devices
from labkit.papers.itid.experiment import data, domainbed
from labkit.papers.itid.experiment.config import Arm, Config, Experiment
from labkit.papers.itid.experiment.data import Scene
from labkit.papers.itid.experiment.evaluate import answers, summarise, summarise_arm
from labkit.papers.itid.experiment.model import Single, Stack, build_network
from labkit.papers.itid.experiment.objectives import ERM, Consistency, GroupDRO, Objective, Penalised, Seen
from labkit.papers.itid.method import modifiers
from labkit.papers.itid.method.coverage import measure_coverage
from labkit.papers.itid.method.edits import EDITS
from labkit.papers.itid.method.modifiers import Batch, DistributionModifier
from labkit.progress import progress
from labkit.seeds import derive
from labkit.workbench import training
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

COVERAGE_SIZES = (50, 200, 800)


def train(config: Config, run: Run) -> dict[str, Any]:
    """All experiments of `config`, the sweep, the coverage of the bounds; finished parts are skipped.

    Returns:
        {"data": names, experiment: {"data": name, "arms": {arm: see `evaluate.summarise_arm`}, ...}, "coverage": {...},
        "sweep": {...}}
    """
    with training.workers(config.device) as workers, devices.one_thread():
        result: dict[str, Any] = {name: train_experiment(name, config, workers, run) for name in config.experiments}
        if config.coverage_samples:
            sizes = COVERAGE_SIZES
            found = {str(n): measure_coverage(n, config.coverage_samples, config.seed) for n in sizes}
            result["coverage"] = {n: coverage.as_json() for n, coverage in found.items()}
        if config.sweep:
            result["sweep"] = {name: domainbed.sweep(name, config, workers, run) for name in config.sweep}
        used = sorted({part["data"] for name, part in result.items() if name in config.experiments})
        return {"data": "+".join([*used, *config.sweep])} | result


# -- one experiment ---------------------------------------------------------------------------------------------------


class Purpose(IntEnum):
    """What random numbers are drawn for. Seeds are `derive(seed of the run, replica, purpose, ...)`."""

    DATA = 0
    WEIGHTS = 1
    INDICES = 2
    MODIFIER = 3
    ADAPTATION = 4
    SPLIT = 5
    HYPERPARAMETERS = 6


@dataclass(frozen=True, eq=False)
class Job:
    """One network to train: an arm and a replica. seed: of the run."""

    arm: str
    seed: int
    replica: int
    scene: Scene
    modifier: DistributionModifier


def train_experiment(name: str, config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """Train and evaluate the arms of one experiment, in its own part of the run directory.

    Arms that share width and step size train together; `config.stacked=False` trains every network by itself.
    """
    part = run.part(name)
    if part.result is not None:
        return part.result
    experiment = config.experiment(name)
    scenes = [data.build(experiment, data_seed(config.seed, r), workers.device) for r in range(config.replicas)]
    table: dict[str, list[dict[str, Any]]] = {arm: [] for arm in experiment.arms}
    for jobs, place in bundles(experiment, scenes, config, part):
        networks = networks_for(jobs, experiment, config).to(workers.device)
        if (place.directory / "weights.safetensors").exists():  # a kill came between this and the result
            place.read_weights(networks)
        else:
            fit(networks, jobs, experiment, config, workers, place)
            place.write_weights(networks)
        for job, found in zip(jobs, summarise(networks, jobs, workers), strict=True):
            table[job.arm].append(found)
    arms = {arm: summarise_arm(rows) for arm, rows in table.items()}
    return part.finish({"data": scenes[0].name, "arms": arms})


def data_seed(seed: int, replica: int) -> int:
    """Seed of a replica's data: split, nuisances, label noise."""
    return derive(seed, replica, Purpose.DATA)


def groups_of(experiment: Experiment) -> list[list[str]]:
    """Arms that can train as one stack: same width, same step size, same way to use the penalty."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, arm in experiment.arms.items():
        groups.setdefault((arm.hidden, arm.learning_rate, arm.rescale), []).append(name)
    return list(groups.values())


def bundles(experiment: Experiment, scenes: list[Scene], config: Config, part: Run) -> Iterator[tuple[list[Job], Run]]:
    """Jobs that train together, and where: whole groups of arms, or each network by itself."""
    groups = groups_of(experiment)
    for group in groups:
        jobs = make_jobs(group, experiment, scenes, config)
        if stackable(experiment, config):
            yield jobs, part if len(groups) == 1 else part.part("-".join(group))
            continue
        for job in jobs:
            yield [job], part.part(f"{job.arm}-{job.replica}")


def stackable(experiment: Experiment, config: Config) -> bool:
    """Batch norm's running statistics have no place in a stack."""
    return config.stacked and experiment.network != "resnet18"


def make_jobs(arms: Sequence[str], experiment: Experiment, scenes: list[Scene], config: Config) -> list[Job]:
    """One job per arm and replica; all replicas of an arm stand next to each other."""
    return [
        Job(arm, config.seed, r, scene, modifier_of(experiment.arms[arm], scene))
        for arm in arms
        for r, scene in enumerate(scenes)
    ]


def networks_for(jobs: Sequence[Job], experiment: Experiment, config: Config) -> Stack | Single:
    """Fresh networks; all arms of one replica start from the same weights."""
    made = []
    for job in jobs:
        training.seed_everything(derive(job.seed, job.replica, Purpose.WEIGHTS))
        hidden = experiment.arms[job.arm].hidden or experiment.hidden
        scene = job.scene
        made.append(
            build_network(experiment.network, scene.shape, hidden, scene.outputs, scene.middle, experiment.xavier)
        )
    return Stack(made) if stackable(experiment, config) else Single(made[0])


def modifier_of(arm: Arm, scene: Scene) -> DistributionModifier:
    """What `arm.modifier` names, made for the scene's training set."""
    name, _, family = arm.modifier.partition("-")
    if name == "edit":
        return modifiers.Edit(EDITS[family])
    simple: dict[str, Callable[[], DistributionModifier]] = {
        "none": modifiers.Unchanged,
        "swap": modifiers.Swap,
        "uniform": modifiers.Uniform,
        "oracle": modifiers.Neutral,
        "weight": lambda: modifiers.Weight(scene.train.labels, scene.train.nuisance),
        "resample": lambda: modifiers.Resample(scene.train),
        "mixup": lambda: modifiers.Mixup(arm.alpha),
        "adaptive": lambda: modifiers.Adaptive(modifiers.DEFAULT_FAMILIES),
        "paired": lambda: modifiers.Paired(modifiers.Swap()),
    }
    return simple[name]()


def objective_of(arm: Arm, experiment: Experiment) -> Objective:
    """What `arm.objective` names."""
    anneal = experiment.anneal if arm.anneal is None else arm.anneal
    if arm.objective.startswith("dro-"):
        return GroupDRO({"environment": "environment", "group": "label-nuisance"}[arm.objective[4:]], arm.eta)
    if arm.objective == "consistency":
        return Consistency(arm.lam)
    return ERM() if arm.objective == "erm" else Penalised(arm.objective, arm.lam, anneal, arm.rescale)


# -- the loop ---------------------------------------------------------------------------------------------------------


def fit(
    networks: Stack | Single, jobs: Sequence[Job], experiment: Experiment, config: Config, workers: Workers, run: Run
) -> None:
    """Train `networks` in place, network k by jobs[k].

    Every process makes the same batches and runs its share of each; the *logits* are gathered, and every loss is a
    function of the logits. So many processes compute exactly what one computes, penalties and group weights included.
    """
    if workers.size > 1:
        training.share_batch_statistics(networks)
    arms = [(arm, list(group)) for arm, group in itertools.groupby(range(len(jobs)), lambda k: jobs[k].arm)]
    rows = {arm: slice(places[0], places[-1] + 1) for arm, places in arms}
    objectives = {arm: objective_of(experiment.arms[arm], experiment) for arm in rows}
    l2 = torch.tensor([experiment.l2 if (own := experiment.arms[j.arm].l2) is None else own for j in jobs])
    l2 = l2.to(workers.device) / workers.size  # every process adds it, and gradients are summed
    optimizer, schedule = optimizer_for(networks, experiment, jobs)
    state: dict[str, Any] = {"networks": networks, "optimizer": optimizer, "schedule": schedule}
    state |= {f"dro {arm}": o for arm, o in objectives.items() if isinstance(o, GroupDRO)}
    adaptive = {f"adaptive {j.arm} {j.replica}": j for j in jobs if isinstance(j.modifier, modifiers.Adaptive)}
    state |= {name: job.modifier for name, job in adaptive.items()}
    first = run.resume(state)
    networks.train()
    for step in progress(range(first, experiment.steps), run.directory.name, experiment.steps, first):
        if any(needs_fresh_optimizer(objectives[arm], step) for arm in rows):
            optimizer.state.clear()
        batches = batches_at(step, jobs, experiment)
        with torch.autocast(workers.device.type, dtype=torch.bfloat16, enabled=config.bf16):
            logits = forward(networks, [b.images for b in batches], slice(None), workers)
        losses = []
        for arm, row in rows.items():
            seen = seen_by(batches[row], jobs[row.start].scene, networks, row, workers)
            losses.append(objectives[arm](logits[row], seen, step))
        divisors = torch.tensor([objectives[job.arm].divisor(step) for job in jobs], device=workers.device)
        optimizer.zero_grad(set_to_none=True)
        ((torch.cat(losses) + l2 * networks.squared_norms()) / divisors).sum().backward()
        sum_gradients(networks, workers)
        optimizer.step()
        schedule.step()
        for job in adaptive.values():
            adapt(job, networks, list(jobs).index(job), step)
        if step % config.log_every == 0 or step == experiment.steps - 1:
            risks = {f"loss/{arm}": float(loss.detach().mean()) for arm, loss in zip(rows, losses, strict=True)}
            run.log(step, **risks, **followed(networks, jobs, config))
        run.save_if_due(step + 1, state)


def needs_fresh_optimizer(objective: Objective, step: int) -> bool:
    """DomainBed's way at the anneal step, where the loss is not divided by lam."""
    return isinstance(objective, Penalised) and not objective.rescale and 0 < objective.anneal == step


def optimizer_for(
    networks: nn.Module, experiment: Experiment, jobs: Sequence[Job]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam at a constant step size, or SGD with momentum under a cosine."""
    rate = experiment.arms[jobs[0].arm].learning_rate or experiment.learning_rate
    if experiment.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(networks.parameters(), lr=rate, momentum=0.9, nesterov=True)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, experiment.steps)
    optimizer = torch.optim.Adam(networks.parameters(), lr=rate)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


def stream(seed: int, replica: int, purpose: Purpose, step: int) -> torch.Generator:
    """Random numbers that depend on these four alone: nothing to save, the same for every arm and in every process."""
    return torch.Generator().manual_seed(derive(seed, replica, purpose, step))


def batches_at(step: int, jobs: Sequence[Job], experiment: Experiment) -> list[Batch]:
    """The batch of each job. All arms of a replica see the same data, each through its modifier."""
    raw: dict[int, Batch] = {}
    found = []
    for job in jobs:
        if job.replica not in raw:
            raw[job.replica] = job.scene.train.take(indices_at(step, job, experiment))
        found.append(job.modifier(raw[job.replica], stream(job.seed, job.replica, Purpose.MODIFIER, step)))
    return found


def indices_at(step: int, job: Job, experiment: Experiment) -> Int[Tensor, " batch"]:
    """Which data: all, or `batch` of them drawn with replacement."""
    count = len(job.scene.train)
    index = torch.arange(count)
    if experiment.batch:
        index = torch.randint(
            count, (experiment.batch,), generator=stream(job.seed, job.replica, Purpose.INDICES, step)
        )
    return index.to(job.scene.train.labels.device)


def forward(
    networks: Stack | Single, images: Sequence[Tensor], rows: slice, workers: Workers
) -> Float[Tensor, "networks batch classes"]:
    """Logits of the whole batches, of which this process computes its share."""
    mine = workers.share(torch.arange(len(images[0]))).to(images[0].device) if workers.size > 1 else None
    stacked = torch.stack([part if mine is None else part[mine] for part in images])
    logits = networks(stacked, rows).float()
    return logits if mine is None else _GatherLogits.apply(logits)


class _GatherLogits(torch.autograd.Function):
    """Every process's logits, in the order of the global batch; the gradient of the own ones goes back."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine.contiguous())
        return torch.stack(parts, 2).flatten(1, 2)  # process k has the data k, k + size, ...

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[:, dist.get_rank() :: dist.get_world_size()].contiguous()


def sum_gradients(networks: nn.Module, workers: Workers) -> None:
    """Each process holds the part of the gradient that came through its logits; the whole is their sum."""
    if workers.size > 1:
        for parameter in networks.parameters():
            dist.all_reduce(parameter.grad)


def seen_by(batches: Sequence[Batch], scene: Scene, networks: Stack | Single, row: slice, workers: Workers) -> Seen:
    """The batches of one arm's replicas, stacked."""

    def stacked(values: Iterator[Tensor | None]) -> Tensor | None:
        found = [value for value in values if value is not None]
        return torch.stack(found) if found else None

    partner = [b.partner for b in batches if b.partner is not None]
    return Seen(
        labels=torch.stack([b.labels for b in batches]),
        weights=torch.stack([b.weights for b in batches]),
        environment=torch.stack([b.environment for b in batches]),
        nuisance=torch.stack([b.nuisance for b in batches]),
        environments=scene.environments,
        nuisances=scene.renderer.nuisances,
        second_labels=stacked(b.second_labels for b in batches),
        mix=stacked(b.mix for b in batches),
        partner=forward(networks, partner, row, workers) if partner else None,
    )


@torch.no_grad()
def adapt(job: Job, networks: Stack | Single, place: int, step: int) -> None:
    """Let IE-adaptive look at the network it trains."""
    assert isinstance(job.modifier, modifiers.Adaptive)
    if (step + 1) % job.modifier.every == 0:
        ask = lambda images: answers(networks, images[None], slice(place, place + 1))[0]  # noqa: E731
        job.modifier.update(ask, job.scene.held_out, stream(job.seed, job.replica, Purpose.ADAPTATION, step))


@torch.no_grad()
def followed(networks: Stack | Single, jobs: Sequence[Job], config: Config) -> dict[str, float]:
    """delta between the test's two nuisance laws on a few test data, for the first replica of each arm."""
    found: dict[str, float] = {}
    for place, job in enumerate(jobs):
        if job.replica or not config.probes or job.scene.columns == 1 or job.arm.startswith("oracle"):
            continue
        content, scene = job.scene.test_content[: config.probes], job.scene
        every = [
            scene.renderer(content, torch.full_like(scene.test_labels[: len(content)], z)) for z in range(scene.columns)
        ]
        table = answers(networks, torch.cat(every)[None], slice(place, place + 1))[0].view(scene.columns, -1).T
        one_hot = torch.nn.functional.one_hot(table, max(2, scene.outputs)).float()
        first, second = ((one_hot * law[: len(content), :, None]).sum(1) for law in (scene.aligned, scene.target))
        found[f"delta/{job.arm}"] = float((1 - (first * second).sum(1)).mean())
    return found
