"""Train and evaluate what a config asks for: experiments, DomainBed's protocol, the coverage of the bounds."""

from typing import Any

from labkit import devices
from labkit.papers.itid.experiment import domainbed
from labkit.papers.itid.experiment.config import Config
from labkit.papers.itid.experiment.evaluate import summarize, summarize_arm
from labkit.papers.itid.experiment.jobs import build_networks, build_scene, job_groups
from labkit.papers.itid.experiment.loop import fit
from labkit.papers.itid.method.coverage import coverage_by_size
from labkit.progress import progress
from labkit.workbench import training
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers


def train(config: Config, run: Run) -> dict[str, Any]:
    """All experiments of `config`, the sweep, the coverage of the bounds; finished parts are skipped.

    Returns:
        {"data": names, experiment: {"data": name, "arms": {arm: see `evaluate.summarize_arm`}, ...}, "coverage": {...},
        "sweep": {...}}
    """
    with training.workers(config.device) as workers, devices.one_thread():
        swept = {name: domainbed.prepare(name, config) for name in config.sweep}  # bad data are refused before any work
        names = progress(config.experiments, "experiments")
        result: dict[str, Any] = {name: train_experiment(name, config, workers, run) for name in names}
        datasets = sorted({part["data"] for part in result.values()})
        if config.coverage_samples:
            result["coverage"] = coverage_by_size(config.coverage_samples, config.seed)
        if config.sweep:
            result["sweep"] = {
                name: domainbed.sweep(name, domains, config, workers, run) for name, domains in swept.items()
            }
        return {"data": "+".join([*datasets, *config.sweep])} | result


def train_experiment(name: str, config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """Train and evaluate the arms of one experiment, in its own part of the run directory.

    Arms that share width and step size train together; `config.stacked=False` trains every network by itself.
    """
    part = run.part(name)
    if part.result is not None:
        return part.result
    experiment = config.experiment(name)
    scenes = [build_scene(experiment, config.seed, r, workers.device) for r in range(config.replicas)]
    table: dict[str, list[dict[str, Any]]] = {arm: [] for arm in experiment.arms}
    for jobs, group in job_groups(experiment, scenes, config, part):
        networks = build_networks(jobs, experiment, config).to(workers.device)
        if (group.directory / "weights.safetensors").exists():  # a kill came between this and the result
            group.read_weights(networks)
        else:
            fit(networks, jobs, experiment, config, workers, group)
            group.write_weights(networks)
        for job, row in zip(jobs, summarize(networks, jobs, workers), strict=True):
            table[job.arm].append(row)
    arms = {arm: summarize_arm(rows) for arm, rows in table.items()}
    return part.finish({"data": scenes[0].name, "arms": arms})
