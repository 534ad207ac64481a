"""Everything a config asks for, in units that need nothing of each other: a study, or an algorithm on a task."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labkit import devices, tensor_files
from labkit.papers.pombu.experiment import calibration, zone
from labkit.papers.pombu.experiment.algorithms import learning_curves
from labkit.papers.pombu.experiment.config import Config
from labkit.papers.pombu.experiment.evaluate import summarize_zone
from labkit.papers.pombu.experiment.kept import MAPS, PAIRS, PairsHeader, maps_content
from labkit.papers.pombu.experiment.offline import SNAPSHOTS, Arms
from labkit.papers.pombu.method import tabular
from labkit.progress import progress
from labkit.workbench import training
from labkit.workbench.runs import Run

Unit = Callable[[Config, Run, torch.device], dict[str, Any]]


def train(config: Config, run: Run) -> dict[str, Any]:
    """All units of `config`; finished ones are skipped. Several processes deal the units out among them.

    Returns:
        {"data": "simulated", study: its numbers, environment: {algorithm: learning curves}}
    """
    with training.workers(config.device) as workers, devices.one_thread():
        units = units_of(config)
        left = [name for name in units if run.part(name).result is None]
        workers.barrier()  # all have looked before anybody begins
        for name in progress(left[workers.rank :: workers.size], "studies and trainings"):
            part = run.private_part(name)
            part.finish(units[name](config, part, workers.device))
        workers.barrier()
    results: dict[str, Any] = {"data": "simulated"}
    for name in units:
        environment, _, algorithm = name.partition("+")
        result = run.part(name).result
        if algorithm:
            results.setdefault(environment, {})[algorithm] = result
        else:
            results[name] = result
    return results


def units_of(config: Config) -> dict[str, Unit]:
    """What is to be done, by the name of its part of the run directory."""
    studies: dict[str, Unit] = {"tabular": tabular_unit, "calibration": calibration_unit}
    units = {name: studies.get(name) or zone_unit(name) for name in config.studies}
    for environment in config.environments:
        for algorithm in config.algorithms:
            units[f"{environment}+{algorithm}"] = loop_unit(environment, algorithm)
    return units


def tabular_unit(config: Config, part: Run, device: torch.device) -> dict[str, Any]:
    return dict(tabular.compare_bounds(config.posterior_samples, config.seed))


def calibration_unit(config: Config, part: Run, device: torch.device) -> dict[str, Any]:
    """Every row of the calibration table; the pairs behind the scatter plots go into a file of their own."""
    results: dict[str, Any] = {}
    pairs: dict[str, Tensor] = {}
    for name in progress(config.calibrations, "calibration of √U"):
        row = calibration.calibrate(name, config)
        results[name] = calibration.summarize(row)
        tensors = {"predicted": row.predicted, "error": row.error}
        if row.persistent is not None and row.persistent_error is not None:
            tensors |= {"persistent": row.persistent, "persistent_error": row.persistent_error}
        pairs |= {f"{name}/{key}": value for key, value in tensors.items()}
    part.write_bytes(PAIRS, tensor_files.to_bytes(pairs, PairsHeader()))
    return results


def zone_unit(name: str) -> Unit:
    """The study `name`; what its maps are drawn from is kept beside its numbers."""

    def work(config: Config, part: Run, device: torch.device) -> dict[str, Any]:
        _, prepared, improved = zone.run_study(name, config, part)
        arms, updates = zone.arms_of(name, config), zone.setting_of(name, config).updates
        kept = (*range(0, updates, SNAPSHOTS), updates)
        part.write_bytes(MAPS, maps_content(prepared, improved, arms, kept))
        return summarize_zone(improved.history, Arms(arms, config.zone_copies))

    return work


def loop_unit(environment: str, algorithm: str) -> Unit:
    """An algorithm's learning curves on a task."""

    def work(config: Config, part: Run, device: torch.device) -> dict[str, Any]:
        return learning_curves(algorithm, environment, config, part, device)

    return work
