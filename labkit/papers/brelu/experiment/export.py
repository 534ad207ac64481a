"""What a finished run leaves to be taken home: its integer networks, one file each."""

from pathlib import Path

from labkit.errors import InputError
from labkit.papers.brelu.experiment.config import Config
from labkit.papers.brelu.method.integer import IntegerNetwork
from labkit.workbench.runs import Run

FILE = "model.safetensors"


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """The integer networks that a run has kept, in the order of its tasks."""
    return tuple(name for name in config.tasks if _kept(run, name).exists())


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write `arm` into `directory`, as `load` reads it.

    Raises:
        InputError: the run has no such network.
    """
    if arm not in arms(config, run):
        there = ", ".join(arms(config, run)) or "none: the run is not finished"
        raise InputError(f"{run.directory} has no integer network '{arm}'; there are {there}.")
    network = IntegerNetwork.load(_kept(run, arm))
    network.save(directory / FILE)


def load(path: str | Path) -> IntegerNetwork:
    """The integer network of an exported folder, or of a file that `IntegerNetwork.save` wrote.

    Raises:
        InputError: nothing there, damaged, or not an integer network.
    """
    path = Path(path)
    return IntegerNetwork.load(path / FILE if path.is_dir() else path)


def _kept(run: Run, name: str) -> Path:
    return run.directory / f"{name}.int8.safetensors"
