"""DomainBed's protocol: random hyper-parameter draws, trials, one environment left out, three ways to select.

As the [peer code] has it: 80 : 20 splits of every environment, equal batches from each training environment, ranges of
the hyper-parameters, the step at which a penalty comes in, mixup across environments, evaluations every 100 steps
(photographs: 300), which splits select and which are reported. [ours]: all draws of a trial start from the same weights
and see the same batches; photographs are not augmented, for an edit is what is compared here, and train a ResNet-18
from scratch (`model.fitting_network`), with the step sizes of small images.
"""

import functools
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.itid.experiment import data, loop, selection
from labkit.papers.itid.experiment.config import ALGORITHMS, Config
from labkit.papers.itid.experiment.data import DomainSet
from labkit.papers.itid.experiment.evaluate import predict
from labkit.papers.itid.experiment.jobs import Purpose, build_modifier, build_objective, random_stream
from labkit.papers.itid.experiment.model import Single, build_network, fitting_network
from labkit.papers.itid.experiment.objectives import GroupDRO
from labkit.papers.itid.experiment.selection import Candidate
from labkit.papers.itid.method.batch import Batch
from labkit.papers.itid.method.modifiers import DistributionModifier, Unchanged
from labkit.papers.itid.method.pixels import to_float
from labkit.papers.itid.method.renderers import Rotations
from labkit.progress import progress
from labkit.seeds import derive
from labkit.workbench import training
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers, seed_everything

HOLD_OUT = 0.2
CHUNK = 1000  # images evaluated at a time


@dataclass(frozen=True)
class Draw:
    """One network of a sweep: `number` counts the hyper-parameter draws, `left_out` is the test environment."""

    algorithm: str
    left_out: int
    trial: int
    number: int


def prepare(name: str, config: Config) -> DomainSet:
    """Data set `name`, as the first trial has it; whatever cannot be trained on it is refused here.

    Raises:
        DataError: the data are missing, damaged, or not laid out as they must be.
        InputError: an algorithm that `config` asks for cannot serve them.
    """
    domains = data.domainbed_environments(name, derive(config.seed, 0, Purpose.DATA), config)
    for algorithm in config.algorithms:
        if reason := obstacle(algorithm, domains):
            raise InputError(f"{algorithm} cannot be trained on {name}: {reason}. Leave it out of `algorithms`.")
    return domains


def obstacle(algorithm: str, domains: DomainSet) -> str:
    """Why an algorithm has no use on these data; empty where it has."""
    arm = ALGORITHMS[algorithm]
    if domains.photographs and arm.modifier in ("swap", "uniform"):
        return "photographs cannot be rendered with another nuisance (IE-edit and IE-weight need no renderer)"
    single = len(domains.environments) == 2  # one is left out
    if single and (arm.objective in ("vrex", "dro-environment") or arm.modifier == "interdomain"):
        return "with two domains it trains on one, where it is plain ERM; add a third domain"
    if single and domains.photographs and arm.modifier == "weight":
        return "with two domains it trains on one, and there is nothing to balance; add a third domain"
    return ""


def draw_hyperparameters(
    algorithm: str, seed: int, trial: int, number: int, photographs: bool = False
) -> dict[str, float]:
    """Hyper-parameters of one draw; draw 0 is the defaults [peer code].

    learning rate 10^U(-4.5, -2.5), batch 2^U(3, 9) per environment; lam 10^U(-1, 5), anneal 10^U(0, 4), eta
    10^U(-3, -1), mixup's alpha 10^U(-1, 1). Photographs: batch 2^U(3, 5.5), weight decay 10^U(-6, -2).
    """
    if number == 0:
        return {"learning_rate": 1e-3, "batch": 32 if photographs else 64, "weight_decay": 0.0, "anneal": 500,
                "lam": 10.0 if algorithm == "V-REx" else 100.0, "eta": 1e-2, "alpha": 0.2}  # fmt: skip
    generator = torch.Generator().manual_seed(derive(seed, trial, Purpose.HYPERPARAMETERS, number))
    u = torch.rand(7, generator=generator, dtype=torch.float64).tolist()

    def log_uniform(low: float, high: float, k: int) -> float:
        return float(10 ** (low + (high - low) * u[k]))

    return {
        "learning_rate": log_uniform(-4.5, -2.5, 0),
        "batch": int(2 ** (3 + (2.5 if photographs else 6) * u[1])),
        "lam": log_uniform(-1.0, 5.0, 2),
        "anneal": int(log_uniform(0.0, 4.0, 3)),
        "eta": log_uniform(-3.0, -1.0, 4),
        "alpha": log_uniform(-1.0, 1.0, 5),
        "weight_decay": log_uniform(-6.0, -2.0, 6) if photographs else 0.0,
    }


def sweep(name: str, first: DomainSet, config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """All algorithms, draws and trials on data set `name`, each environment left out in turn.

    Args:
        first: the data as the first trial has them, from `prepare`.

    Returns:
        {test environment: {algorithm: {criterion: {"accuracy": mean over trials, "regret": ..., "each": [...]}}}}
    """

    @functools.lru_cache(maxsize=1)
    def other_trial(trial: int) -> DomainSet:
        return data.domainbed_environments(name, derive(config.seed, trial, Purpose.DATA), config)

    def of_trial(trial: int) -> DomainSet:
        return first if first.photographs or trial == 0 else other_trial(trial)

    result: dict[str, Any] = {}
    for left_out, environment in enumerate(first.names):
        result[environment] = {}
        for algorithm in algorithms_of(first, config):
            candidates = [
                train_candidate(name, Draw(algorithm, left_out, trial, number), of_trial, config, workers, run)
                for trial in range(config.trials)
                for number in range(config.draws)
            ]
            result[environment][algorithm] = summarize_selection(candidates)
            forget_the_rest(name, left_out, candidates, run)
    return result


def algorithms_of(domains: DomainSet, config: Config) -> tuple[str, ...]:
    """The methods to compare: those asked for, or all that have a use on these data."""
    return config.algorithms or tuple(name for name in ALGORITHMS if not obstacle(name, domains))


def summarize_selection(candidates: list[Candidate]) -> dict[str, Any]:
    """Test accuracy of what each criterion selects, and its regret; mean over trials."""
    summary = {}
    for criterion in selection.criteria_for(candidates):
        selected = list(selection.by_trial(candidates, criterion).values())
        each = [s.accuracy for s in selected]
        regret = sum(s.regret for s in selected) / len(selected)
        summary[criterion] = {"accuracy": sum(each) / len(each), "regret": regret, "each": each}
    return summary


# -- one draw: its network, and the twins that miss one more environment each -----------------------------------------


def part_of(name: str, draw: Draw, run: Run) -> Run:
    """The run directory of one draw."""
    slug = name
    if name.startswith(data.FOLDER):  # a path has slashes, and two folders may share their last name
        slug = f"folder-{re.sub(r'[^A-Za-z0-9_-]+', '-', Path(name).name)[:40]}-{zlib.crc32(name.encode()):08x}"
    return run.part(f"{slug}-without-{draw.left_out}-{draw.algorithm}-{draw.trial}-{draw.number}")


def train_candidate(
    name: str, draw: Draw, of_trial: Callable[[int], DomainSet], config: Config, workers: Workers, run: Run
) -> Candidate:
    """Train one draw, and for leave-one-domain-out its twins; what is finished is read.

    Only the network itself is kept, as it was at its best checkpoint by the training environments.
    """
    part = part_of(name, draw, run)
    if part.result is None:
        domains = of_trial(draw.trial)
        splits = [
            hold_out(environment, derive(config.seed, draw.trial, Purpose.SPLIT, e))
            for e, environment in enumerate(domains.environments)
        ]
        others = [e for e in range(len(splits)) if e != draw.left_out]
        held_out = {str(e): splits[e][1] for e in others}
        measured = held_out | {"test": splits[draw.left_out][0], "test held out": splits[draw.left_out][1]}
        trainer = functools.partial(train_one, draw, domains, splits, config=config, workers=workers)
        curves = trainer(others, measured, run=part.part("all"), keep_best=tuple(held_out))
        twins = {}
        for e in others if len(others) > 1 else []:
            rest = [o for o in others if o != e]
            twins[str(e)] = trainer(rest, {"left out": splits[e][0]}, run=part.part(f"without-{e}"))["left out"]
        shape = list(domains.environments[0].images.shape[1:])
        part.finish({"curves": curves, "twins": twins, "shape": shape, "classes": list(domains.classes)})
    result = part.result or {}
    curves = result["curves"]
    return Candidate(
        algorithm=draw.algorithm,
        draw=draw.number,
        trial=draw.trial,
        held_out={int(e): curve for e, curve in curves.items() if e.isdigit()},
        test=curves["test"],
        test_held_out=curves["test held out"],
        left_out={int(e): curve for e, curve in result["twins"].items()} or None,
    )


def forget_the_rest(name: str, left_out: int, candidates: list[Candidate], run: Run) -> None:
    """Keep the networks that the training environments select, one for each trial, and remove the others' files."""
    chosen = {(s.candidate.trial, s.candidate.draw) for s in selection.by_trial(candidates, "training-domain").values()}
    for c in candidates:
        if run.writes and (c.trial, c.draw) not in chosen:
            folder = part_of(name, Draw(c.algorithm, left_out, c.trial, c.draw), run).directory / "all"
            for file in ("weights.safetensors", "checkpoint.pt"):
                (folder / file).unlink(missing_ok=True)


def hold_out(environment: Batch, seed: int) -> tuple[Batch, Batch]:
    """80 % to train on, 20 % held out."""
    order = torch.randperm(len(environment), generator=torch.Generator().manual_seed(seed))
    cut = max(1, int(HOLD_OUT * len(environment)))
    return environment.take(order[cut:]), environment.take(order[:cut])


def train_one(
    draw: Draw, domains: DomainSet, splits: list[tuple[Batch, Batch]], training_on: list[int],
    measured: Mapping[str, Batch], *, config: Config, workers: Workers, run: Run, keep_best: tuple[str, ...] = (),
) -> dict[str, list[float]]:  # fmt: skip
    """Train on the 80 % of the environments `training_on`; accuracy on each batch of `measured` at every checkpoint.

    Args:
        keep_best: names in `measured`; the network is kept as it is where their mean is highest.
    """
    if run.result is not None:
        return {name: list(curve) for name, curve in run.result.items()}
    parameters = draw_hyperparameters(draw.algorithm, config.seed, draw.trial, draw.number, domains.photographs)
    pools = [splits[e][0].to(workers.device) for e in training_on]
    pooled, batch_size = concatenate(pools), int(parameters["batch"])
    everyone = workers
    if batch_size * len(pools) % workers.size:  # cannot be dealt out: every process does the whole work
        workers = Workers(0, 1, workers.device)
    networks = network_for(domains, derive(config.seed, draw.trial, Purpose.WEIGHTS)).to(workers.device)
    if workers.size > 1:
        training.share_batch_statistics(networks)
    modifier, objective = method_of(draw.algorithm, parameters, pooled)
    optimizer = torch.optim.Adam(
        networks.parameters(), lr=parameters["learning_rate"], weight_decay=parameters["weight_decay"]
    )
    curves = Curves({name: [] for name in measured})
    state: dict[str, Any] = {"networks": networks, "optimizer": optimizer, "curves": curves}
    state |= {"dro": objective} if isinstance(objective, GroupDRO) else {}
    every, first = 300 if domains.photographs else 100, run.resume(state)
    for step in progress(range(first, config.sweep_steps), run.directory.parent.name, config.sweep_steps, first):
        if loop.needs_fresh_optimizer(objective, step):
            optimizer.state.clear()
        indices = random_stream(config.seed, draw.trial, Purpose.INDICES, step)
        index = balanced_indices([len(pool) for pool in pools], batch_size, indices).to(workers.device)
        batch = modifier(pooled.take(index), random_stream(config.seed, draw.trial, Purpose.MODIFIER, step))
        logits = loop.forward(networks, [to_float(batch.images)], slice(None), workers)
        targets = loop.collect_targets([batch], len(splits), networks, slice(None), workers)
        loss = objective(logits, targets, step) / objective.divisor(step)
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        loop.sum_gradients(networks, workers)
        optimizer.step()
        if step % every == 0 or step + 1 == config.sweep_steps:
            curves.add({name: accuracy(networks, images, everyone) for name, images in measured.items()})
            if keep_best and curves.newest_is_best(keep_best):
                run.write_weights(networks)
            run.log(step, loss=float(loss.detach()))
        run.save_if_due(step + 1, state)
    return {name: list(curve) for name, curve in run.finish(curves.state_dict()).items()}


def network_for(domains: DomainSet, seed: int) -> Single:
    """An untrained network for these images, one output a class."""
    seed_everything(seed)
    shape = domains.environments[0].images.shape[1:]
    return Single(build_network(fitting_network(shape), shape, 0, len(domains.classes)))


def method_of(algorithm: str, parameters: Mapping[str, float], train: Batch) -> tuple[DistributionModifier, Any]:
    """The modifier and the objective of an algorithm, with drawn hyper-parameters."""
    arm = replace(
        ALGORITHMS[algorithm],
        lam=parameters["lam"],
        anneal=int(parameters["anneal"]),
        eta=parameters["eta"],
        alpha=parameters["alpha"],
    )
    if algorithm == "IE-edit" and isinstance(train.renderer, Rotations):
        arm = replace(arm, modifier="edit-turn")  # the edit must vary what the task allows to vary
    if arm.modifier == "weight" and len(train.nuisance.unique()) < 2:  # a twin on one domain: every weight is 1
        return Unchanged(), build_objective(arm)
    return build_modifier(arm, train), build_objective(arm)


class Curves:
    """Accuracies so far, as a part of the checkpoint."""

    def __init__(self, curves: dict[str, list[float]]) -> None:
        self.curves = curves

    def add(self, point: Mapping[str, float]) -> None:
        for name, value in point.items():
            self.curves[name].append(value)

    def newest_is_best(self, names: tuple[str, ...]) -> bool:
        """Is the mean of the curves `names` higher now than ever before?"""
        count = len(self.curves[names[0]])
        return selection.best_mean({k: self.curves[name] for k, name in enumerate(names)})[1] == count - 1

    def state_dict(self) -> dict[str, Any]:
        return {name: list(curve) for name, curve in self.curves.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, curve in state_dict.items():
            self.curves[name][:] = curve


def balanced_indices(sizes: list[int], batch: int, generator: torch.Generator) -> Int[Tensor, " total"]:
    """`batch` indices from each environment, with replacement, into the joined training set."""
    start, indices = 0, []
    for size in sizes:
        indices.append(start + torch.randint(size, (batch,), generator=generator))
        start += size
    return torch.cat(indices)


def concatenate(parts: list[Batch]) -> Batch:
    """Several batches as one, environments one after another."""
    first = parts[0]
    names = ("content", "labels", "nuisance", "environment", "images", "weights")
    whole: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return replace(first, **whole)


def accuracy(networks: Single, batch: Batch, workers: Workers) -> float:
    """Share of the images that are classified correctly: one number in all processes, for what is decided by it."""
    correct = 0
    for images, labels in zip(batch.images.split(CHUNK), batch.labels.split(CHUNK), strict=True):
        predicted = predict(networks, to_float(images.to(workers.device))[None])[0]
        correct += int((predicted.cpu() == labels.cpu()).sum())
    return float(workers.mean(torch.tensor(correct / len(batch), dtype=torch.float64, device=workers.device)))
