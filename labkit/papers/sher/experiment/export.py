"""What of a finished run can be taken along, as a file that `load` of the room's face reads."""

from pathlib import Path

from labkit.errors import InputError
from labkit.papers.sher.experiment.algorithm import ALGORITHMS, FILE, policy
from labkit.papers.sher.experiment.config import Config, is_robot
from labkit.papers.sher.experiment.trained import trained
from labkit.papers.sher.experiment.worlds.build import name_of
from labkit.workbench.runs import Run


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """Names "experiment/arm", or "experiment/arm/layout" where there are several; robots first, and SHER's arms. [ours]

    Policies for rows of bits have no continuous actions, and are left out.
    """
    names = []
    for name in config.experiments:
        experiment = config.experiment(name)
        continuous = {kind.default.agent for kind in ALGORITHMS.values()}
        for key, arm in experiment.arms.items():
            layouts = [f"/{layout}" for layout in experiment.layouts] if len(experiment.layouts) > 1 else [""]
            rank = (not is_robot(experiment), arm.agent != "sher")
            names += [(rank, f"{name}/{key}{layout}") for layout in layouts if arm.agent in continuous]
    return tuple(arm for _, arm in sorted(names, key=lambda entry: entry[0]))


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write `arm`, one of `arms`, as `directory`/model.safetensors: its first replica, not its best one. [ours]

    Raises:
        InputError: the run has no such arm.
        RunError: it is not finished.
    """
    if arm not in arms(config, run):
        raise InputError(f"there is no arm '{arm}' to export; there are {', '.join(arms(config, run))}.")
    name, key, *rest = arm.split("/")
    experiment = config.experiment(name)
    layout = rest[0] if rest else experiment.layouts[0]
    learner = trained(config, run, name, key, layout)
    steps = experiment.cycles * experiment.episodes * learner.world.horizon
    environment = experiment.world if is_robot(experiment) else (layout or name_of(experiment))
    policy(learner.agent, learner.copy, experiment, learner.world, environment, steps).save(directory / FILE)
