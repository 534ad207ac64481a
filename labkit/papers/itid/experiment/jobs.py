"""Jobs: which network is trained how, on what data, and from which random numbers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch

from labkit.papers.itid.experiment import data
from labkit.papers.itid.experiment.config import Arm, Config, Experiment
from labkit.papers.itid.experiment.data import Scene
from labkit.papers.itid.experiment.model import Single, Stack, build_network
from labkit.papers.itid.experiment.objectives import ERM, Consistency, GroupDRO, Objective, Penalized
from labkit.papers.itid.method import modifiers
from labkit.papers.itid.method.batch import Batch
from labkit.papers.itid.method.edits import EDITS
from labkit.papers.itid.method.modifiers import DistributionModifier
from labkit.seeds import derive
from labkit.workbench import training
from labkit.workbench.runs import Run


class Purpose(IntEnum):
    """What random numbers are drawn for. Seeds are `derive(seed of the run, replica, purpose, ...)`."""

    DATA = 0
    WEIGHTS = 1
    INDICES = 2
    MODIFIER = 3
    ADAPTATION = 4
    SPLIT = 5
    HYPERPARAMETERS = 6


def random_stream(seed: int, replica: int, purpose: Purpose, step: int) -> torch.Generator:
    """A generator that depends on these four alone: nothing to save, the same for every arm and in every process."""
    return torch.Generator().manual_seed(derive(seed, replica, purpose, step))


@dataclass(frozen=True, eq=False)
class Job:
    """One network to train: an arm and a replica. seed: of the run."""

    arm: str
    seed: int
    replica: int
    scene: Scene
    modifier: DistributionModifier

    def stream(self, purpose: Purpose, step: int) -> torch.Generator:
        return random_stream(self.seed, self.replica, purpose, step)


def build_scene(experiment: Experiment, seed: int, replica: int, device: torch.device | str = "cpu") -> Scene:
    """The data of one replica."""
    return data.build(experiment, derive(seed, replica, Purpose.DATA), device)


def job_groups(
    experiment: Experiment, scenes: list[Scene], config: Config, part: Run
) -> Iterator[tuple[list[Job], Run]]:
    """Jobs that train together, each group with its run directory: arms that can be stacked, or single networks."""
    groups = stackable_arms(experiment)
    for group in groups:
        jobs = make_jobs(group, experiment, scenes, config)
        if is_stacked(experiment, config):
            yield jobs, part if len(groups) == 1 else part.part("-".join(group))
            continue
        for job in jobs:
            yield [job], part.part(f"{job.arm}-{job.replica}")


def stackable_arms(experiment: Experiment) -> list[list[str]]:
    """Arms that can train as one stack: same width, same step size, same way to use the penalty."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, arm in experiment.arms.items():
        groups.setdefault((arm.hidden, arm.learning_rate, arm.rescale), []).append(name)
    return list(groups.values())


def is_stacked(experiment: Experiment, config: Config) -> bool:
    """Networks with batch normalisation are never stacked: a stack has no running statistics."""
    return config.stacked and experiment.network != "resnet18"


def make_jobs(arms: Sequence[str], experiment: Experiment, scenes: list[Scene], config: Config) -> list[Job]:
    """One job per arm and replica; the replicas of an arm are adjacent."""
    return [
        Job(arm, config.seed, replica, scene, build_modifier(experiment.arms[arm], scene.train))
        for arm in arms
        for replica, scene in enumerate(scenes)
    ]


def build_networks(jobs: Sequence[Job], experiment: Experiment, config: Config) -> Stack | Single:
    """Untrained networks; all arms of one replica start from the same weights."""
    networks = []
    for job in jobs:
        training.seed_everything(derive(job.seed, job.replica, Purpose.WEIGHTS))
        hidden, scene = experiment.arms[job.arm].hidden or experiment.hidden, job.scene
        networks.append(
            build_network(experiment.network, scene.shape, hidden, scene.outputs, scene.middle, experiment.xavier)
        )
    return Stack(networks) if is_stacked(experiment, config) else Single(networks[0])


def build_modifier(arm: Arm, train: Batch) -> DistributionModifier:
    """The modifier that `arm` names, for the training set `train`."""
    name, _, family = arm.modifier.partition("-")
    if name == "edit":
        return modifiers.Edit(EDITS[family])
    makers: dict[str, Callable[[], DistributionModifier]] = {
        "none": modifiers.Unchanged,
        "swap": modifiers.Swap,
        "uniform": modifiers.Uniform,
        "oracle": modifiers.Neutral,
        "weight": lambda: modifiers.Weight(train.labels, train.nuisance),
        "resample": lambda: modifiers.Resample(train),
        "mixup": lambda: modifiers.Mixup(arm.alpha),
        "interdomain": lambda: modifiers.InterdomainMixup(arm.alpha),
        "adaptive": lambda: modifiers.Adaptive(modifiers.DEFAULT_FAMILIES),
        "paired": lambda: modifiers.Paired(modifiers.Swap()),
    }
    return makers[name]()


def build_objective(arm: Arm, anneal: int = 0) -> Objective:
    """The objective that `arm` names; `anneal` where the arm has no step of its own."""
    if arm.objective.startswith("dro-"):
        return GroupDRO({"environment": "environment", "group": "label-nuisance"}[arm.objective[4:]], arm.eta)
    if arm.objective == "consistency":
        return Consistency(arm.lam)
    if arm.objective == "erm":
        return ERM()
    return Penalized(arm.objective, arm.lam, anneal if arm.anneal is None else arm.anneal, arm.rescale)
