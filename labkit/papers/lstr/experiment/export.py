"""A finished run's detector as a file: the proposal network, one arm's network, and how they are to be used."""

from pathlib import Path

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.lstr.experiment.config import Config
from labkit.papers.lstr.experiment.detector import FILE, arms, trained
from labkit.workbench.runs import Run

__all__ = ["arms", "export"]


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write `directory`/model.safetensors, which `load` reads.

    Raises:
        InputError: the run has no such arm.
        RunError: it is not trained yet.
    """
    if arm not in arms(config, run):
        raise InputError(f"there is no arm '{arm}' to export; there are {', '.join(arms(config, run))}")
    detector = trained(config, run, arm)
    tensor_files.write(directory / FILE, detector.state_dict(), detector.header)
