"""The training loop: one for a stack of networks and for a single one, in one process and in many."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit.papers.itid.experiment.config import Config, Experiment
from labkit.papers.itid.experiment.evaluate import measure_delta, predict
from labkit.papers.itid.experiment.jobs import Job, Purpose, build_objective
from labkit.papers.itid.experiment.model import Single, Stack
from labkit.papers.itid.experiment.objectives import GroupDRO, Objective, Penalized, Targets
from labkit.papers.itid.method.batch import Batch
from labkit.papers.itid.method.modifiers import Adaptive
from labkit.progress import progress
from labkit.workbench import training
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers


def fit(
    networks: Stack | Single, jobs: Sequence[Job], experiment: Experiment, config: Config, workers: Workers, run: Run
) -> None:
    """Train `networks` in place, network k by jobs[k].

    Every process makes the same batches and runs its share of each. The *logits* are gathered, and every loss is a
    function of the logits: many processes compute what one computes, penalties and group weights included.
    """
    if workers.size > 1:
        training.share_batch_statistics(networks)
    arms = [(arm, list(group)) for arm, group in itertools.groupby(range(len(jobs)), lambda k: jobs[k].arm)]
    rows = {arm: slice(members[0], members[-1] + 1) for arm, members in arms}
    objectives = {arm: build_objective(experiment.arms[arm], experiment.anneal) for arm in rows}
    l2 = torch.tensor([experiment.l2 if (own := experiment.arms[j.arm].l2) is None else own for j in jobs])
    l2 = l2.to(workers.device) / workers.size  # every process adds it, and gradients are summed
    optimizer, schedule = build_optimizer(networks, experiment, jobs)
    state: dict[str, Any] = {"networks": networks, "optimizer": optimizer, "schedule": schedule}
    state |= {f"dro {arm}": o for arm, o in objectives.items() if isinstance(o, GroupDRO)}
    state |= {f"adaptive {job.arm} {job.replica}": job.modifier for job in jobs if isinstance(job.modifier, Adaptive)}
    first = run.resume(state)
    networks.train()
    for step in progress(range(first, experiment.steps), run.directory.name, experiment.steps, first):
        if any(needs_fresh_optimizer(objective, step) for objective in objectives.values()):
            optimizer.state.clear()
        batches = batches_at(step, jobs, experiment)
        with torch.autocast(workers.device.type, dtype=torch.bfloat16, enabled=config.bf16):
            logits = forward(networks, [b.images for b in batches], slice(None), workers)
        losses = []
        for arm, row in rows.items():
            targets = collect_targets(batches[row], jobs[row.start].scene.environments, networks, row, workers)
            losses.append(objectives[arm](logits[row], targets, step))
        divisors = torch.tensor([objectives[job.arm].divisor(step) for job in jobs], device=workers.device)
        optimizer.zero_grad(set_to_none=True)
        ((torch.cat(losses) + l2 * networks.squared_norms()) / divisors).sum().backward()
        sum_gradients(networks, workers)
        optimizer.step()
        schedule.step()
        for k, job in enumerate(jobs):
            if isinstance(job.modifier, Adaptive):
                adapt(job.modifier, job, networks, slice(k, k + 1), step)
        if step % config.log_every == 0 or step == experiment.steps - 1:
            risks = {f"loss/{arm}": float(loss.detach().mean()) for arm, loss in zip(rows, losses, strict=True)}
            run.log(step, **risks, **measure_delta(networks, jobs, config.probes))
        run.save_if_due(step + 1, state)


def needs_fresh_optimizer(objective: Objective, step: int) -> bool:
    """DomainBed's way at the anneal step, where the loss is not divided by lam."""
    return isinstance(objective, Penalized) and not objective.rescale and 0 < objective.anneal == step


def build_optimizer(
    networks: nn.Module, experiment: Experiment, jobs: Sequence[Job]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam at a constant step size, or SGD with momentum under a cosine."""
    rate = experiment.arms[jobs[0].arm].learning_rate or experiment.learning_rate
    if experiment.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(networks.parameters(), lr=rate, momentum=0.9, nesterov=True)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, experiment.steps)
    optimizer = torch.optim.Adam(networks.parameters(), lr=rate)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


def batches_at(step: int, jobs: Sequence[Job], experiment: Experiment) -> list[Batch]:
    """The batch of each job. All arms of a replica see the same data, each through its modifier."""
    unmodified: dict[int, Batch] = {}
    batches = []
    for job in jobs:
        if job.replica not in unmodified:
            unmodified[job.replica] = job.scene.train.take(indices_at(step, job, experiment))
        batches.append(job.modifier(unmodified[job.replica], job.stream(Purpose.MODIFIER, step)))
    return batches


def indices_at(step: int, job: Job, experiment: Experiment) -> Int[Tensor, " batch"]:
    """Which data: all, or `batch` of them drawn with replacement."""
    count = len(job.scene.train)
    index = torch.arange(count)
    if experiment.batch:
        index = torch.randint(count, (experiment.batch,), generator=job.stream(Purpose.INDICES, step))
    return index.to(job.scene.train.labels.device)


def forward(
    networks: Stack | Single, images: Sequence[Tensor], rows: slice, workers: Workers
) -> Float[Tensor, "networks batch classes"]:
    """Logits of the whole batches; this process computes its share of them."""
    if workers.size == 1:
        return networks(torch.stack(list(images)), rows).float()
    share = workers.share(torch.arange(len(images[0]))).to(images[0].device)
    logits = networks(torch.stack([batch[share] for batch in images]), rows).float()
    return _GatherLogits.apply(logits)


class _GatherLogits(torch.autograd.Function):
    """Logits of all processes, in the order of the global batch; each process gets the gradient of its own ones."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts, 2).flatten(1, 2)  # process k has the data k, k + size, ...

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[:, dist.get_rank() :: dist.get_world_size()].contiguous()


def sum_gradients(networks: nn.Module, workers: Workers) -> None:
    """Each process holds the part of the gradient that came through its logits; the whole is their sum."""
    if workers.size > 1:
        for parameter in networks.parameters():
            dist.all_reduce(parameter.grad)


def collect_targets(
    batches: Sequence[Batch], environments: int, networks: Stack | Single, row: slice, workers: Workers
) -> Targets:
    """The batches of one arm's replicas, stacked."""

    def stacked(tensors: Iterator[Tensor | None]) -> Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return torch.stack(present) if present else None

    partners = [b.partner for b in batches if b.partner is not None]
    return Targets(
        labels=torch.stack([b.labels for b in batches]),
        weights=torch.stack([b.weights for b in batches]),
        environment=torch.stack([b.environment for b in batches]),
        nuisance=torch.stack([b.nuisance for b in batches]),
        environments=environments,
        nuisances=batches[0].renderer.nuisances,
        second_labels=stacked(b.second_labels for b in batches),
        mix=stacked(b.mix for b in batches),
        partner=forward(networks, partners, row, workers) if partners else None,
    )


@torch.no_grad()
def adapt(modifier: Adaptive, job: Job, networks: Stack | Single, row: slice, step: int) -> None:
    """Update IE-adaptive with the network that it trains, network `row`."""
    if (step + 1) % modifier.every == 0:
        stream = job.stream(Purpose.ADAPTATION, step)
        modifier.update(lambda images: predict(networks, images[None], row)[0], job.scene.held_out, stream)
