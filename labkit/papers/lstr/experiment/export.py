"""A finished run's detector as a file: the proposal network, one arm's network, and how they are to be used."""

from pathlib import Path

import torch
from torch import Tensor

from labkit import tensor_files
from labkit.errors import InputError, RunError
from labkit.papers.lstr.experiment import train
from labkit.papers.lstr.experiment.config import Config
from labkit.papers.lstr.experiment.detector import Detector, Header
from labkit.workbench.run_files import read_object
from labkit.workbench.runs import Run

FILE = "model.safetensors"
BEST = ("cascade", "parallel", "short")


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """The arms of a run that can be exported, the best first by what the records say.  [ours]"""
    return (*(arm for arm in BEST if arm in config.arms), *(arm for arm in config.arms if arm not in BEST))


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write `directory`/model.safetensors, which `load` reads.

    Raises:
        InputError: the run has no such arm.
        RunError: it is not trained yet.
    """
    if arm not in arms(config, run):
        raise InputError(f"there is no arm '{arm}' to export; there are {', '.join(arms(config, run))}")
    found = trained(config, run, arm)
    tensor_files.write(directory / FILE, found.state_dict(), found.header)


def trained(config: Config, run: Run, arm: str) -> Detector:
    """The detector of an arm of a run."""
    if run.result is None:
        raise RunError(f"{run.directory} is not finished. Go on with --resume, then load it.")
    found = Detector(
        Header(
            settings=config.settings(arm),
            proposals=train.proposal_settings(config),
            classes=tuple(run.result["classes"]),
            labels=run.result["labels"],
            frames=config.frames,
            stride=config.frame_stride,
            clips=config.clips,
            size=config.size,
            most=config.proposals,
        )
    )
    run.part("proposals").read_weights(found.proposer)
    run.part(f"arm-{arm}").read_weights(found.network)
    return found.eval()


def load(path: str | Path, device: str | torch.device = "cpu") -> Detector:
    """The detector of a file, of a folder that `labkit export` wrote, or of a run's own folder (its best arm).

    Raises:
        InputError: no such file or run, a damaged one, or one of another kind.
    """
    place = Path(path)
    if place.is_dir() and not (place / FILE).exists() and (identity := read_object(place / "config.json")):
        config = _config_of(identity, place)
        run = Run.open(place, config, writes=False)
        return trained(config, run, arms(config, run)[0]).to(device)
    file = place / FILE if place.is_dir() else place
    tensors, header = tensor_files.read(file, Header)
    with torch.device("meta"):  # takes no memory, whatever sizes the header names
        found = Detector(header)
    wanted = found.state_dict()
    wrong = [
        name for name in sorted(wanted.keys() | tensors.keys()) if not _same_kind(wanted.get(name), tensors.get(name))
    ]
    if wrong:
        raise tensor_files.TensorFileError(f"'{file}' does not hold this detector's networks ({', '.join(wrong[:3])}).")
    found.load_state_dict(tensors, assign=True)
    return found.to(device).eval()


def _same_kind(wanted: Tensor | None, given: Tensor | None) -> bool:
    return wanted is not None and given is not None and (wanted.shape, wanted.dtype) == (given.shape, given.dtype)


def _config_of(identity: dict[str, object], place: Path) -> Config:
    from labkit.papers.lstr import PAPER

    config = PAPER.config_of(identity)
    if config is None:
        raise InputError(f"{place} is a run of another paper, or of another version of this one.")
    assert isinstance(config, Config)
    return config
