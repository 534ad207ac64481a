"""What a network does when the nuisance changes: every test datum rendered with every nuisance, plain numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.papers.itid.experiment.data import Scene
from labkit.papers.itid.experiment.jobs import Job
from labkit.papers.itid.experiment.model import Single, Stack
from labkit.papers.itid.method import bounds
from labkit.papers.itid.method.measures import measure_law_change
from labkit.papers.itid.method.modifiers import Neutral, Weight
from labkit.workbench.training import Workers

CHUNK = 1000  # images at a time for one network
FAILURE_PROBABILITY = 0.05  # d of the certificate


@torch.no_grad()
def predict(
    networks: Stack | Single, images: Float[Tensor, "networks n channels height width"], rows: slice = slice(None)
) -> Int[Tensor, "networks n"]:
    """The label that each network predicts; training mode is restored afterwards."""
    training = networks.training
    networks.eval()
    labels = []
    for part in images.split(CHUNK, dim=1):
        logits = networks(part, rows)
        labels.append((logits[..., 0] > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1))
    networks.train(training)
    return torch.cat(labels, 1)


def prediction_table(
    networks: Stack | Single, jobs: Sequence[Job], workers: Workers | None = None
) -> Int[Tensor, "networks n nuisances"]:
    """h(g(c_i, z)) for all test data and all z. Several processes share the nuisances among them."""
    scene = jobs[0].scene
    rank, size = (workers.rank, workers.size) if workers else (0, 1)
    table = torch.zeros(len(jobs), len(scene.test_labels), scene.columns, dtype=torch.float64)
    table = table.to(scene.test_labels.device)
    for z in range(rank, scene.columns, size):
        rendered = {job.replica: job.scene.test_images(z) for job in jobs}
        images = torch.stack([test_view(job, rendered[job.replica]) for job in jobs])
        table[:, :, z] = predict(networks, images).double()
    return (workers.mean(table) * size if workers else table).round().long()


def test_view(job: Job, images: Tensor) -> Tensor:
    """The test images of an arm: the oracle's have no nuisance."""
    return job.scene.renderer.neutral(job.scene.test_content) if isinstance(job.modifier, Neutral) else images


def summarize(networks: Stack | Single, jobs: Sequence[Job], workers: Workers) -> list[dict[str, Any]]:
    """The measures of each job's network."""
    tables = prediction_table(networks, jobs, workers).cpu()
    rows = []
    for job, table, train in zip(jobs, tables, training_accuracy(networks, jobs), strict=True):
        row = measures_of(table, job.scene) | {"train": train}
        if isinstance(job.modifier, Weight):
            row |= {
                "effective_sample_size": job.modifier.effective_sample_size,
                "mean_weight": job.modifier.mean_weight,
            }
        rows.append(row)
    return rows


def training_accuracy(networks: Stack | Single, jobs: Sequence[Job]) -> list[float]:
    """Accuracy on (at most 5000 of) the unmodified training data, noisy labels included."""
    batches = [job.scene.train.take(torch.arange(min(5000, len(job.scene.train)))) for job in jobs]
    views = [
        job.scene.renderer.neutral(batch.content) if isinstance(job.modifier, Neutral) else batch.images
        for job, batch in zip(jobs, batches, strict=True)
    ]
    correct = predict(networks, torch.stack(views)) == torch.stack([batch.labels for batch in batches])
    return correct.double().mean(1).tolist()


def measures_of(table: Int[Tensor, "n nuisances"], scene: Scene) -> dict[str, float]:
    """Accuracies under the two nuisance laws of the test, worst cases, and the measures of non-invariance.

    Args:
        table: the label predicted for each test datum with each nuisance.

    Returns:
        aligned, target: accuracy under the training law, and where the bias is broken. worst_nuisance: least accuracy
        over z. worst_group: least over (class, z). vary: share of the data whose prediction depends on z. slack: iota
        minus the gap, never negative by Theorem 1. ceiling: the certificate for the target risk, from the risk under
        the training law and delta, at 95 %. The others: see `measures.LawChange`.
    """
    labels = scene.test_labels.cpu()
    aligned, target = scene.aligned.cpu(), scene.target.cpu()
    change = measure_law_change(table, labels, aligned, target)
    correct = (table == labels[:, None]).double()
    groups = torch.stack([correct[labels == y].mean(0) for y in labels.unique()])
    return {
        "aligned": 1 - change.risk,
        "target": 1 - change.risk2,
        "worst_nuisance": float(correct.mean(0).min()),
        "worst_group": float(groups.min()),
        "iota": change.iota,
        "tv_prediction": change.tv_prediction,
        "delta": change.delta,
        "omega": change.oscillation,
        "oscillation_times_tv": change.oscillation_times_tv,
        "vary": float((table != table[:, :1]).any(1).double().mean()),
        "slack": change.slack,
        "ceiling": bounds.certificate(change.risk, min(1.0, change.delta), len(labels), FAILURE_PROBABILITY),
    }


@torch.no_grad()
def measure_delta(networks: Stack | Single, jobs: Sequence[Job], probes: int) -> dict[str, float]:
    """delta between the two nuisance laws of the test on `probes` test data, for the first replica of each arm."""
    deltas: dict[str, float] = {}
    for k, job in enumerate(jobs):
        scene, content = job.scene, job.scene.test_content[:probes]
        if job.replica or not probes or scene.columns == 1 or isinstance(job.modifier, Neutral):
            continue
        rendered = [
            scene.renderer(content, torch.full_like(scene.test_labels[: len(content)], z)) for z in range(scene.columns)
        ]
        table = predict(networks, torch.cat(rendered)[None], slice(k, k + 1))[0].view(scene.columns, -1).T
        one_hot = torch.nn.functional.one_hot(table, max(2, scene.outputs)).float()
        first, second = ((one_hot * law[: len(content), :, None]).sum(1) for law in (scene.aligned, scene.target))
        deltas[f"delta/{job.arm}"] = float((1 - (first * second).sum(1)).mean())
    return deltas


def summarize_arm(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation over replicas; of what figures and claims need, each replica's own value too."""
    values = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
    summary: dict[str, Any] = {name: round(float(v.mean()), 6) for name, v in values.items()}
    summary["sd"] = {name: round(float(v.std()), 6) if len(v) > 1 else 0.0 for name, v in values.items()}
    summary["slack"] = float(values["slack"].min())
    summary["each"] = {
        name: [round(float(x), 6) for x in values[name]] for name in ("aligned", "target", "delta", "omega", "iota")
    }
    return summary
