"""Everything a config asks for: tubelet proposals first, then one network an arm on them, then what each can do.

Two steps, not one: proposals are learned once, frozen, and shared by all arms.  [inferred; measured to be better here
than training both at once]
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from labkit import devices
from labkit.papers.lstr.experiment import actors, data, evaluate, real
from labkit.papers.lstr.experiment.config import Config
from labkit.papers.lstr.experiment.data import Batch, Generated, Source
from labkit.papers.lstr.experiment.tubelets import Tubelets
from labkit.papers.lstr.method.heads import refinement_loss
from labkit.papers.lstr.method.network import Lstr, Proposer
from labkit.papers.lstr.method.proposals import ProposalSettings
from labkit.progress import progress, side_by_side
from labkit.vision.slow_only import SlowOnly, load_weights
from labkit.workbench import training
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

LOG_EVERY = 10


def train(config: Config, run: Run) -> dict[str, Any]:
    """Proposals, arms, tests; what the run directory holds already is read.

    Returns:
        {"data": name, "classes": names, "labels": single or multi, "proposals": see `evaluate.proposals`, "arms": {arm:
        see `evaluate.arm`}}
    """
    with training.workers(config.device) as workers, devices.one_thread():
        source, test = sources(config)
        networks = {name: network(config, name, source).to(workers.device) for name in config.arms}
        proposer = proposal_network(config).to(workers.device)
        proposed = fit_proposals(proposer, source, config, workers, run.part("proposals"), test)
        tubelets = Tubelets(proposer.eval(), config.proposals, config.size)
        tasks: list[Callable[[], dict[str, Any]]] = [
            functools.partial(fit_arm, net, tubelets, source, test, config, workers, run.part(f"arm-{name}"))
            for name, net in networks.items()
        ]
        results = side_by_side(tasks, config.at_once if workers.size == 1 else 1, "arms")
    return {
        "data": data_name(config),
        "classes": list(source.classes),
        "labels": source.labels,
        "proposals": proposed,
        "arms": dict(zip(networks, results, strict=True)),
    }


def data_name(config: Config) -> str:
    """What a result was measured on."""
    kind = config.data.partition(":")[0]
    if kind != "actors":
        return kind
    changes = ["events on the object"] * (config.event == "object") + ["one color"] * config.same_color
    return ", ".join(["generated actors", *changes])


def sources(config: Config) -> tuple[Source, Source]:
    """What is trained and tested on. Bad data are refused here, before any work."""
    if config.data != "actors":
        return real.sources(config)
    settings = config.generator()
    return (
        Generated(config.videos, config.seed, actors.TRAIN, settings),
        Generated(config.test_videos, config.seed, actors.TEST, settings),
    )


def network(config: Config, arm: str, source: Source) -> Lstr:
    """The untrained network of an arm; its start depends on the seed and the arm's own parts alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = Lstr(config.settings(arm), len(source.classes), config.frames, source.labels)
    _pretrained(net.backbone, config)
    return net


def proposal_settings(config: Config) -> ProposalSettings:
    return ProposalSettings(config.anchors, config.ratios, before=max(32, 4 * config.proposals))


def proposal_network(config: Config) -> Proposer:
    settings = proposal_settings(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        proposer = Proposer(config.backbone, config.frames, settings)
    _pretrained(proposer.backbone, config)
    return proposer


def _pretrained(backbone: nn.Module, config: Config) -> None:
    if config.weights and isinstance(backbone, SlowOnly):
        load_weights(backbone, config.weights)


# -- step 1: where something moves ------------------------------------------------------------------------------------


def fit_proposals(
    proposer: Proposer, source: Source, config: Config, workers: Workers, run: Run, test: Source
) -> dict[str, Any]:
    """Train the proposal network in place, unless the run directory holds it; returns what it finds in the test."""
    if run.result is not None:
        run.read_weights(proposer)
        return run.result
    per_window = config.clips
    batches = training.ShuffledIndices(len(source), max(1, config.proposal_batch // per_window), config.seed)
    wrapped = workers.wrap(ProposalLoss(proposer))
    optimizer, schedule = _optimizer(wrapped, config, config.proposal_steps)
    state: dict[str, Any] = {"proposer": proposer, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    first = run.resume(state)
    wrapped.train()
    for step in progress(range(first, config.proposal_steps), "proposals", config.proposal_steps, first):
        batch = data.batch(source, workers.share(next(batches))).to(workers.device)
        with torch.autocast(workers.device.type, dtype=torch.bfloat16, enabled=config.bf16):
            objectness, offsets = wrapped(
                batch.clips.flatten(0, 1), batch.truth.flatten(0, 1), batch.valid.flatten(0, 1)
            )
        _descend(objectness + offsets, optimizer, schedule)
        if step % LOG_EVERY == 0:
            run.log(
                step, objectness=workers.mean(objectness.detach()).item(), offsets=workers.mean(offsets.detach()).item()
            )
        run.save_if_due(step + 1, state)
    run.write_weights(proposer)
    return run.finish(evaluate.proposals(Tubelets(proposer.eval(), config.proposals, config.size), test, workers))


class ProposalLoss(nn.Module):
    """The two losses as a module's forward, which is what several processes wrap."""

    def __init__(self, proposer: Proposer) -> None:
        super().__init__()
        self.proposer = proposer

    def forward(self, clips: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return self.proposer.proposals.loss(self.proposer(clips), truth, valid)


# -- step 2: what it does ---------------------------------------------------------------------------------------------


def fit_arm(
    net: Lstr, tubelets: Tubelets, source: Source, test: Source, config: Config, workers: Workers, run: Run
) -> dict[str, Any]:
    """Train one network on the proposals (or the given boxes), and test it."""
    if run.result is not None:
        return run.result
    if (run.directory / "weights.safetensors").exists():  # a kill came between this and the result
        run.read_weights(net)
    else:
        fit(net, tubelets, source, config, workers, run)
        run.write_weights(net)
    return run.finish(evaluate.arm(net.eval(), tubelets, test, config, workers))


def fit(net: Lstr, tubelets: Tubelets, source: Source, config: Config, workers: Workers, run: Run) -> None:
    """The training loop: L = L_cls + L_reg over the tubelets of whole windows, AdamW, one cycle of step sizes."""
    batches = training.ShuffledIndices(len(source), config.batch_size, config.seed)
    wrapped = workers.wrap(net)
    optimizer, schedule = _optimizer(wrapped, config, config.steps)
    state: dict[str, Any] = {"network": net, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    first = run.resume(state)
    wrapped.train()
    for step in progress(range(first, config.steps), run.directory.name, config.steps, first):
        index = workers.share(next(batches))
        batch = data.batch(source, index).to(workers.device)
        boxes, valid, trust = chosen_tubelets(tubelets, source, index, batch, config)
        targets, wanted, matched = data.match(boxes, valid, batch.truth, batch.valid, batch.targets)
        with torch.autocast(workers.device.type, dtype=torch.bfloat16, enabled=config.bf16):
            output = wrapped(batch.clips, boxes, valid, trust)
        scores = net.head.loss(output.logits.float().flatten(0, 2), targets.flatten(0, 2), valid.flatten())
        offsets = refinement_loss(output.offsets.float()[matched], boxes[matched], wanted[matched])
        _descend(scores + offsets, optimizer, schedule)
        if step % LOG_EVERY == 0:
            run.log(step, loss=workers.mean(scores.detach()).item(), offsets=workers.mean(offsets.detach()).item())
        run.save_if_due(step + 1, state)


def chosen_tubelets(
    tubelets: Tubelets, source: Source, index: Int[Tensor, " batch"], batch: Batch, config: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """What a network is trained on: boxes, which are no padding, and the log of their objectness."""
    if config.boxes == "truth":
        return batch.given, batch.valid, torch.zeros(batch.valid.shape, device=batch.valid.device)
    proposed, shape = tubelets.of(source, index, batch), batch.clips.shape[:2]
    trust = proposed.scores.clamp(min=1e-6).log()
    return proposed.tubelets.unflatten(0, shape), proposed.valid.unflatten(0, shape), trust.unflatten(0, shape)


def _optimizer(
    net: nn.Module, config: Config, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=max(steps, 2))


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    schedule.step()
