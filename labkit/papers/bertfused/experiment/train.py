"""Everything a config asks for: each setting of the abstract in its own part of the run directory."""

from collections.abc import Callable
from typing import Any

from labkit import devices
from labkit.papers.bertfused.experiment import back_translation, data, documents, sentences, unsupervised
from labkit.papers.bertfused.experiment.config import Config, Experiment
from labkit.workbench import training
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

RUN: dict[Experiment, Callable[[Config, Workers, Run], dict[str, Any]]] = {
    "sentences": sentences.compare,
    "documents": documents.compare,
    "semi-supervised": back_translation.compare,
    "unsupervised": unsupervised.compare,
}


def train(config: Config, run: Run) -> dict[str, Any]:
    """All experiments of `config`, one after another; finished parts are skipped.

    Returns:
        {"data": name, experiment: see its `compare`, ...}

    Raises:
        InputError, DataError: what the config names is not there.
    """
    with training.workers(config.device) as workers, devices.one_thread():
        data.check(config)
        results = {name: RUN[name](config, workers, run.part(name)) for name in config.experiments}
        return {"data": results[config.experiments[0]]["data"]} | results
