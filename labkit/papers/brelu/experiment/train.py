"""`train`: every task of a config, one after another."""

from typing import Any

from labkit.papers.brelu.experiment import classification, data, regression
from labkit.papers.brelu.experiment.config import Config
from labkit.progress import progress
from labkit.workbench import training
from labkit.workbench.runs import Run


def train(config: Config, run: Run) -> dict[str, Any]:
    """Each task of `config` in parts of the run directory; finished parts are skipped.

    Returns:
        {"data": what was really used, task: see `regression.measure`, `classification.measure` and
            `classification.measure_mobilenet`, ...}
    """
    with training.workers(config.device) as workers:
        result: dict[str, Any] = {}
        used = []
        for task in progress(config.tasks, "tasks"):
            if task in ("classification", "mobilenet"):
                images = data.labelled(config, workers)
                measure = classification.measure if task == "classification" else classification.measure_mobilenet
                result[task] = measure(config, images, run)
                used.append(images.name)
            else:
                load = {"superresolution": data.superresolution, "artifacts": data.artifacts}[task]
                pictures = load(config, workers)
                result[task] = regression.measure(task, config, pictures, run)
                used.append(f"{pictures.name} to {', '.join(pictures.tests)}")
        return {"data": "; ".join(dict.fromkeys(used)), **result}
