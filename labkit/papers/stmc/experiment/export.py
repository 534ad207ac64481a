"""A finished run's recogniser as a file: weights, architecture, vocabulary."""

from pathlib import Path

from labkit.papers.stmc.experiment.config import Config
from labkit.papers.stmc.experiment.recognizer import FILE, Recognizer, of_run, usable
from labkit.workbench.runs import Run


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """The arms of a run that can be exported, multi-cue first. [ours]"""
    return usable(config, run)


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write `directory`/model.safetensors, which `load` reads.

    Raises:
        InputError: the run has no such arm to export.
        RunError: its network is not trained yet.
    """
    of_run(config, run, arm).save(directory / FILE)


def load(path: str | Path, device: str = "cpu") -> Recognizer:
    """The recogniser of a file, of the folder that `labkit export` wrote, or of a run: `transcribe(frames)`.

    Raises:
        InputError: no such place, a damaged file or one of another kind.
    """
    return Recognizer.load(path, device=device)
