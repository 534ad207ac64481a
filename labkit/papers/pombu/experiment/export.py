"""What of a finished run can be taken along, as a file that `load` of the room's face reads."""

from pathlib import Path

from labkit.errors import InputError
from labkit.files import write_atomically
from labkit.papers.pombu.experiment import zone
from labkit.papers.pombu.experiment.algorithms import IN_LOOP
from labkit.papers.pombu.experiment.config import ZONE_STUDIES, Config
from labkit.papers.pombu.experiment.kept import MapFile, policy_name
from labkit.papers.pombu.method.algorithm import FILE, POMBU, policy_file
from labkit.workbench.runs import Run

FIRST = ("pombu", "alpha-2")  # which algorithm and which of Zone's arms come first


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """Policies of finished parts: "environment+algorithm/replica", then "study/arm" of the first seed.  [ours]

    PPO, SAC and MBPO are stable-baselines3's and keep nothing here.
    """
    names = [
        f"{environment}+{algorithm}/{replica}"
        for environment in config.environments
        for algorithm in sorted(set(config.algorithms) & IN_LOOP.keys(), key=lambda name: (name not in FIRST, name))
        for replica in range(config.replicas)
    ]
    for study in config.studies:
        if study in ZONE_STUDIES:
            names += [f"{study}/{arm}" for arm in sorted(zone.arms_of(study, config), key=lambda arm: arm not in FIRST)]
    return tuple(arm for arm in names if (run.directory / arm.rpartition("/")[0] / "result.json").exists())


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write `arm`, one of `arms`, as `directory`/model.safetensors.

    Raises:
        InputError: the run has no such arm, or not yet.
        TensorFileError: what the run kept is damaged.
    """
    known = arms(config, run)
    if arm not in known:
        raise InputError(f"there is no arm '{arm}' to export; there are {', '.join(known) or 'none: not finished'}.")
    part, _, name = arm.rpartition("/")
    if part in ZONE_STUDIES:
        maps, task = MapFile(run.directory, part), zone.task_of(part)
        copy = (len(maps.header.updates) - 1) * len(maps.header.arms) + maps.header.arms.index(name)
        steps = zone.setting_of(part, config).episodes * task.horizon
        write_atomically(directory / FILE, policy_file(maps.policies(task), copy, part, config.seed, steps))
    else:
        POMBU.load(run.directory / part / policy_name(int(name)), device="cpu").save(directory / FILE)
