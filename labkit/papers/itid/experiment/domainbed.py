"""DomainBed's protocol: random hyper-parameter draws, trials, one environment left out, three ways to select.

Hold-out of 20 % per environment, equal batches from each training environment, hyper-parameters from the ranges of the
[peer code].
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from labkit.papers.itid.experiment import data, loop, selection
from labkit.papers.itid.experiment.config import ALGORITHMS, Config
from labkit.papers.itid.experiment.evaluate import predict
from labkit.papers.itid.experiment.jobs import Purpose, build_modifier, build_objective, random_stream
from labkit.papers.itid.experiment.model import Single, build_network
from labkit.papers.itid.experiment.objectives import GroupDRO
from labkit.papers.itid.experiment.selection import Candidate
from labkit.papers.itid.method.batch import Batch
from labkit.papers.itid.method.renderers import Rotations
from labkit.seeds import derive
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers, seed_everything

HOLD_OUT = 0.2
CHECKPOINTS = 300  # steps between two evaluations
EVALUATION_LIMIT = 5000  # images of an environment in one evaluation, at most


def draw_hyperparameters(algorithm: str, seed: int, trial: int, number: int) -> dict[str, float]:
    """Hyper-parameters of one draw; draw 0 is the defaults [peer code, small images].

    learning rate 10^U(-4.5, -2.5), batch 2^U(3, 9) per environment; lam 10^U(-1, 5), anneal 10^U(0, 4), eta
    10^U(-3, -1), mixup's alpha 10^U(-1, 1).
    """
    if number == 0:
        return {"learning_rate": 1e-3, "batch": 64, "lam": 10.0 if algorithm == "V-REx" else 100.0, "anneal": 500,
                "eta": 1e-2, "alpha": 0.2}  # fmt: skip
    generator = torch.Generator().manual_seed(derive(seed, trial, Purpose.HYPERPARAMETERS, number))
    u = torch.rand(6, generator=generator, dtype=torch.float64).tolist()

    def log_uniform(low: float, high: float, k: int) -> float:
        return float(10 ** (low + (high - low) * u[k]))

    return {
        "learning_rate": log_uniform(-4.5, -2.5, 0),
        "batch": int(2 ** (3 + 6 * u[1])),
        "lam": log_uniform(-1.0, 5.0, 2),
        "anneal": int(log_uniform(0.0, 4.0, 3)),
        "eta": log_uniform(-3.0, -1.0, 4),
        "alpha": log_uniform(-1.0, 1.0, 5),
    }


def sweep(name: str, config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """All algorithms, draws and trials on data set `name`, each environment left out in turn.

    Returns:
        {test environment: {algorithm: {criterion: {"accuracy": mean over trials, "regret": ..., "each": [...]}}}}
    """
    result: dict[str, Any] = {}
    count = len(data.domainbed_environments(name, 0, config.max_images or 8))
    for left_out in range(count):
        result[str(left_out)] = {}
        for algorithm in config.algorithms:
            if name.startswith("folder:") and algorithm in ("IE-swap", "IE-uniform"):
                continue  # photographs cannot be rendered anew
            candidates = [
                train_candidate(name, algorithm, left_out, number, trial, config, workers, run)
                for trial in range(config.trials)
                for number in range(config.draws)
            ]
            result[str(left_out)][algorithm] = summarise_selection(candidates)
    return result


def summarise_selection(candidates: list[Candidate]) -> dict[str, Any]:
    """Test accuracy of what each criterion selects, and its regret; mean over trials."""
    summary = {}
    for criterion in selection.CRITERIA:
        selected = list(selection.by_trial(candidates, criterion).values())
        each = [s.accuracy for s in selected]
        regret = sum(s.regret for s in selected) / len(selected)
        summary[criterion] = {"accuracy": sum(each) / len(each), "regret": regret, "each": each}
    return summary


def train_candidate(
    name: str, algorithm: str, left_out: int, number: int, trial: int, config: Config, workers: Workers, run: Run
) -> Candidate:
    """One draw: the network, and its twins that miss one more training environment each."""
    part = run.part(f"{name.replace(':', '-')}-without-{left_out}-{algorithm}-{trial}-{number}")
    if part.result is None:
        environments = data.domainbed_environments(name, derive(config.seed, trial, Purpose.DATA), config.max_images)
        others = [e for e in range(len(environments)) if e != left_out]
        parameters = draw_hyperparameters(algorithm, config.seed, trial, number)
        curves = train_one(algorithm, parameters, environments, others, trial, config, workers, part.part("all"))
        twins = {}
        for e in others if len(others) > 1 else []:
            rest = [o for o in others if o != e]
            twin = train_one(
                algorithm, parameters, environments, rest, trial, config, workers, part.part(f"without-{e}")
            )
            twins[str(e)] = twin[str(e)][-1]
        part.finish(
            {"held_out": {str(e): curves[str(e)] for e in others}, "test": curves[str(left_out)], "twins": twins}
        )
    result = part.result or {}
    return Candidate(
        algorithm=algorithm,
        draw=number,
        trial=trial,
        held_out={int(e): curve for e, curve in result["held_out"].items()},
        test=result["test"],
        left_out={int(e): value for e, value in result["twins"].items()} or None,
    )


def hold_out(environment: Batch, seed: int) -> tuple[Batch, Batch]:
    """80 % to train on, 20 % held out."""
    order = torch.randperm(len(environment), generator=torch.Generator().manual_seed(seed))
    cut = max(1, int(HOLD_OUT * len(environment)))
    return environment.take(order[cut:]), environment.take(order[:cut])


def train_one(
    algorithm: str, parameters: dict[str, float], environments: list[Batch], training: list[int], trial: int,
    config: Config, workers: Workers, run: Run,
) -> dict[str, list[float]]:  # fmt: skip
    """Accuracy on the held-out part of *every* environment at every checkpoint, trained on the `training` ones."""
    if run.result is not None:
        return {e: list(curve) for e, curve in run.result.items()}
    seed = config.seed
    parts = [hold_out(environment, derive(seed, trial, Purpose.SPLIT, e)) for e, environment in enumerate(environments)]
    arm = replace(
        ALGORITHMS[algorithm],
        lam=parameters["lam"],
        anneal=int(parameters["anneal"]),
        eta=parameters["eta"],
        alpha=parameters["alpha"],
    )
    if algorithm == "IE-edit" and isinstance(environments[0].renderer, Rotations):
        arm = replace(arm, modifier="edit-turn")  # the edit must vary what the task allows to vary
    classes = 1 + max(int(environment.labels.max()) for environment in environments)
    seed_everything(derive(seed, trial, Purpose.WEIGHTS))
    shape = environments[0].images.shape[1:]
    network = build_network("mnist-cnn", shape, 0, 1 if classes == 2 else classes)
    networks = Single(network).to(workers.device)
    pools = [parts[e][0].to(workers.device) for e in training]
    pooled = concatenate(pools)
    modifier = build_modifier(arm, pooled)
    objective = build_objective(arm)
    optimizer = torch.optim.Adam(networks.parameters(), lr=parameters["learning_rate"])
    curves: dict[str, list[float]] = {str(e): [] for e in range(len(environments))}
    state: dict[str, Any] = {"networks": networks, "optimizer": optimizer, "curves": Curves(curves)}
    state |= {"dro": objective} if isinstance(objective, GroupDRO) else {}
    for step in range(run.resume(state), config.sweep_steps):
        if loop.needs_fresh_optimizer(objective, step):
            optimizer.state.clear()
        indices = random_stream(seed, trial, Purpose.INDICES, step)
        index = balanced_indices([len(pool) for pool in pools], int(parameters["batch"]), indices)
        batch = modifier(pooled.take(index.to(workers.device)), random_stream(seed, trial, Purpose.MODIFIER, step))
        logits = loop.forward(networks, [batch.images], slice(None), workers)
        targets = loop.collect_targets([batch], len(environments), networks, slice(None), workers)
        loss = objective(logits, targets, step) / objective.divisor(step)
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        loop.sum_gradients(networks, workers)
        optimizer.step()
        if (step + 1) % CHECKPOINTS == 0 or step + 1 == config.sweep_steps:
            for e, (_, held_out) in enumerate(parts):
                curves[str(e)].append(accuracy(networks, held_out, workers))
            run.log(step, loss=float(loss.detach()))
        run.save_if_due(step + 1, state)
    return {e: list(curve) for e, curve in run.finish(curves).items()}


class Curves:
    """Accuracies so far, as a part of the checkpoint."""

    def __init__(self, curves: dict[str, list[float]]) -> None:
        self.curves = curves

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


@torch.no_grad()
def accuracy(networks: Single, held_out: Batch, workers: Workers) -> float:
    """Share of (at most `EVALUATION_LIMIT`) held-out images that are classified correctly."""
    images, labels = (
        held_out.images[:EVALUATION_LIMIT].to(workers.device),
        held_out.labels[:EVALUATION_LIMIT].to(workers.device),
    )
    return float((predict(networks, images[None])[0] == labels).double().mean())
