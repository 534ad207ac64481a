"""What the notebook shows besides the comparison: a scene, and the predictions of trained networks for every colour."""

import torch

from labkit.papers.itid.experiment.config import Config
from labkit.papers.itid.experiment.data import Scene
from labkit.papers.itid.experiment.evaluate import prediction_table
from labkit.papers.itid.experiment.jobs import build_networks, build_scene, job_groups
from labkit.papers.itid.teaching.figures import Predictions
from labkit.workbench.runs import Run


def first_scene(config: Config, experiment: str = "backgrounds") -> Scene:
    """The first replica's scene."""
    return build_scene(config.experiment(experiment), config.seed, 0)


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
