"""What the notebook shows besides the comparison: a scene, and what trained networks say about its test digits."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from labkit.papers.itid.experiment.config import EXPERIMENTS, Config
from labkit.papers.itid.experiment.data import Scene
from labkit.papers.itid.experiment.evaluate import predict, prediction_table
from labkit.papers.itid.experiment.jobs import Job, build_networks, build_scene, job_groups
from labkit.papers.itid.experiment.loop import fit
from labkit.papers.itid.experiment.model import Single, Stack
from labkit.papers.itid.method.modifiers import DistributionModifier, Swap, Unchanged
from labkit.papers.itid.teaching.figures import Predictions, recolored_digits
from labkit.workbench import training
from labkit.workbench.runs import Run


def first_scene(config: Config, experiment: str = "backgrounds") -> Scene:
    """The first replica's scene."""
    return build_scene(config.experiment(experiment), config.seed, 0)


def train_briefly(modifier: DistributionModifier, name: str, steps: int) -> tuple[Stack | Single, Job]:
    """One network, trained on the first replica of experiment `name` as `modifier` changes it."""
    experiment = replace(EXPERIMENTS[name], steps=steps)
    config = Config(experiments=(name,), replicas=1, stacked=False, probes=0)
    job = Job("ERM", config.seed, 0, build_scene(experiment, config.seed, 0), modifier)
    networks = build_networks([job], experiment, config)
    with TemporaryDirectory() as folder, training.workers("cpu") as workers:
        run = Run.open(Path(folder) / "training", config)
        fit(networks, [job], experiment, config, workers, run)
        run.close()
    return networks, job


def two_networks() -> dict[str, list[int]]:
    """What two networks say about the ten digits of the first picture: one for each way to treat the training data."""
    ways: dict[str, DistributionModifier] = {
        "trained on the data as they are": Unchanged(),
        "trained on swapped colours": Swap(),
    }
    answers = {}
    for way, modifier in ways.items():
        networks, job = train_briefly(modifier, "backgrounds", EXPERIMENTS["backgrounds"].steps)
        answers[way] = predict(networks, recolored_digits(job.scene)[None])[0].tolist()
    return answers


def predictions_of(
    config: Config, run: Run, experiment: str = "backgrounds", arms: tuple[str, ...] = ("ERM", "IE-swap")
) -> Predictions:
    """Predictions of the first replica of each arm for every test digit in every colour; networks come from the run."""
    setting = config.experiment(experiment)
    scenes = [build_scene(setting, config.seed, r) for r in range(config.replicas)]
    tables: dict[str, torch.Tensor] = {}
    for jobs, group in job_groups(setting, scenes, config, run.part(experiment)):
        networks = build_networks(jobs, setting, config)
        group.read_weights(networks)
        table = prediction_table(networks, jobs)
        tables |= {job.arm: table[k] for k, job in enumerate(jobs) if job.arm in arms and job.replica == 0}
    return Predictions(scenes[0].test_content, scenes[0].test_labels, {arm: tables[arm] for arm in arms})


def metrics_of(config: Config, run: Run, experiment: str) -> list[dict]:
    """The logged lines of an experiment, from all parts in which its networks were trained."""
    scenes = [first_scene(config, experiment)] * config.replicas
    groups = job_groups(config.experiment(experiment), scenes, config, run.part(experiment))
    return [line for _, group in groups for line in group.metrics()]
