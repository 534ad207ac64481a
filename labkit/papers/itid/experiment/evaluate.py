"""What a network does when the nuisance changes: every test datum rendered with every nuisance, plain numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.papers.itid.experiment.data import Scene
from labkit.papers.itid.experiment.model import Single, Stack
from labkit.papers.itid.method import bounds
from labkit.papers.itid.method.measures import measure_shift
from labkit.papers.itid.method.modifiers import Neutral, Weight
from labkit.workbench.training import Workers

if TYPE_CHECKING:
    from labkit.papers.itid.experiment.train import Job

CHUNK = 1000  # images at a time for one network
CERTAINTY = 0.05  # d of the certificate


@torch.no_grad()
def answers(
    networks: Stack | Single, images: Float[Tensor, "networks n channels height width"], rows: slice = slice(None)
) -> Int[Tensor, "networks n"]:
    """The label each network gives; leaves them in the mode they were in."""
    training = networks.training
    networks.eval()
    found = []
    for part in images.split(CHUNK, dim=1):
        logits = networks(part, rows)
        found.append((logits[..., 0] > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1))
    networks.train(training)
    return torch.cat(found, 1)


def prediction_table(
    networks: Stack | Single, jobs: "Sequence[Job]", workers: Workers | None = None
) -> Int[Tensor, "networks n nuisances"]:
    """h(g(c_i, z)) for all test data and all z. Several processes share the nuisances among them."""
    scene = jobs[0].scene
    rank, size = (workers.rank, workers.size) if workers else (0, 1)
    table = torch.zeros(len(jobs), len(scene.test_labels), scene.columns, dtype=torch.float64)
    table = table.to(scene.test_labels.device)
    for z in range(rank, scene.columns, size):
        shown = {job.replica: job.scene.test_images(z) for job in jobs}
        images = torch.stack([test_view(job, shown[job.replica]) for job in jobs])
        table[:, :, z] = answers(networks, images).double()
    return (workers.mean(table) * size if workers else table).round().long()


def test_view(job: "Job", images: Tensor) -> Tensor:
    """What an arm is shown in the test: the oracle never sees a nuisance."""
    return job.scene.renderer.neutral(job.scene.test_content) if isinstance(job.modifier, Neutral) else images


def summarise(networks: Stack | Single, jobs: "Sequence[Job]", workers: Workers) -> list[dict[str, Any]]:
    """The measures of each job's network."""
    tables = prediction_table(networks, jobs, workers).cpu()
    fitted = training_accuracy(networks, jobs)
    found = []
    for job, table, train in zip(jobs, tables, fitted, strict=True):
        row = measures_of(table, job.scene) | {"train": train}
        if isinstance(job.modifier, Weight):
            row |= {
                "effective_sample_size": job.modifier.effective_sample_size,
                "mean_weight": job.modifier.mean_weight,
            }
        found.append(row)
    return found


def training_accuracy(networks: Stack | Single, jobs: "Sequence[Job]") -> list[float]:
    """Accuracy on (at most 5000 of) the training data as they came, noisy labels included."""
    views = [
        job.scene.renderer.neutral(t.content) if isinstance(job.modifier, Neutral) else t.images
        for job in jobs
        for t in [job.scene.train.take(torch.arange(min(5000, len(job.scene.train))))]
    ]
    labels = torch.stack([job.scene.train.labels[: len(views[0])] for job in jobs])
    right = answers(networks, torch.stack(views)) == labels
    return right.double().mean(1).tolist()


def measures_of(table: Int[Tensor, "n nuisances"], scene: Scene) -> dict[str, float]:
    """Accuracies under the test's two nuisance laws, worst cases, and the measures of non-invariance.

    aligned, target: accuracy under the training law and where the bias is broken. worst_nuisance: least accuracy over
    z. worst_group: least over (class, z). vary: share of data that some nuisance makes answer differently. slack: iota
    minus the gap, never negative by Theorem 1. ceiling: the certificate for the target risk, from the risk under the
    training law and delta, at 95 %.
    """
    labels = scene.test_labels.cpu()
    aligned, target = scene.aligned.cpu(), scene.target.cpu()
    shift = measure_shift(table, labels, aligned, target)
    right = (table == labels[:, None]).double()
    groups = torch.stack([right[labels == y].mean(0) for y in labels.unique()])
    n = len(labels)
    return {
        "aligned": 1 - shift.risk,
        "target": 1 - shift.risk2,
        "worst_nuisance": float(right.mean(0).min()),
        "worst_group": float(groups.min()),
        "iota": shift.iota,
        "tv_prediction": shift.tv_prediction,
        "delta": shift.delta,
        "omega": shift.oscillation,
        "oscillation_times_tv": shift.oscillation_times_tv,
        "vary": float((table != table[:, :1]).any(1).double().mean()),
        "slack": shift.slack,
        "ceiling": bounds.certificate(shift.risk, min(1.0, shift.delta), n, CERTAINTY),
    }


def summarise_arm(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation over replicas, and each replica's own value of what the ledger needs."""
    values = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
    summary: dict[str, Any] = {name: round(float(v.mean()), 6) for name, v in values.items()}
    summary["sd"] = {name: round(float(v.std()), 6) if len(v) > 1 else 0.0 for name, v in values.items()}
    summary["slack"] = float(values["slack"].min())
    summary["each"] = {
        name: [round(float(x), 6) for x in values[name]] for name in ("aligned", "target", "delta", "omega", "iota")
    }
    return summary
