"""What the notebook looks at besides the comparison: trained networks' answers to every colour."""

import torch

from labkit.papers.itid.experiment import data
from labkit.papers.itid.experiment.config import Config
from labkit.papers.itid.experiment.data import Scene
from labkit.papers.itid.experiment.evaluate import prediction_table
from labkit.papers.itid.experiment.train import bundles, data_seed, networks_for
from labkit.papers.itid.teaching.figures import Answers
from labkit.workbench import training
from labkit.workbench.runs import Run


def scene_of(config: Config, experiment: str = "backgrounds") -> Scene:
    """The first replica's scene."""
    return data.build(config.experiment(experiment), data_seed(config.seed, 0))


def answers_of(
    config: Config, run: Run, experiment: str = "backgrounds", arms: tuple[str, ...] = ("ERM", "IE-swap")
) -> Answers:
    """What the first replica of each arm says to every test digit in every colour; networks come from the run."""
    asked = config.experiment(experiment)
    with training.workers("cpu"):
        scenes = [data.build(asked, data_seed(config.seed, r)) for r in range(config.replicas)]
        tables: dict[str, torch.Tensor] = {}
        for jobs, place in bundles(asked, scenes, config, run.part(experiment)):
            networks = networks_for(jobs, asked, config)
            place.read_weights(networks)
            found = prediction_table(networks, jobs)
            tables |= {job.arm: found[k] for k, job in enumerate(jobs) if job.arm in arms and job.replica == 0}
    scene = scenes[0]
    return Answers(scene.test_content, scene.test_labels, {arm: tables[arm] for arm in arms})


def metrics_of(config: Config, run: Run, experiment: str) -> list[dict]:
    """The logged lines of an experiment, from all parts in which its networks were trained."""
    asked = config.experiment(experiment)
    scene = data.build(asked, data_seed(config.seed, 0))
    places = bundles(asked, [scene] * config.replicas, config, run.part(experiment))
    return [line for _, place in places for line in place.metrics()]
