"""A trained arm of a run as a file of its own, and any such file back as a network that is ready for use."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.experiment import data
from labkit.papers.qnet.experiment.config import ARMS, Config
from labkit.papers.qnet.experiment.model import build_model
from labkit.papers.qnet.experiment.train import load_arm
from labkit.papers.qnet.method import packed_file
from labkit.papers.qnet.method.packing import pack
from labkit.workbench import training
from labkit.workbench.runs import Run

FILE = "model.safetensors"


class Architecture(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """The network of a run, and the dataset whose normalised images it takes."""

    model: str
    classes: int = Field(ge=2, le=100_000)
    image_size: int = Field(ge=1, le=10_000)
    channels: int = Field(ge=1, le=100)
    data: str


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """The arms of a finished run that have a packed form, the most accurate as deployed first."""
    result = run.result
    if result is None:
        raise InputError(f"{run.directory} is not finished yet; go on with --resume, then export")
    packable = [name for name in config.arms if _is_packable(name) and name in result]
    return tuple(sorted(packable, key=lambda name: -result[name]["hard"]))


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Writes the trained network of `arm`, packed, as `directory`/model.safetensors.

    Raises:
        InputError: the run is not finished, or has no such arm that can be packed.
    """
    if arm not in (there := arms(config, run)):
        raise InputError(f"there is no arm '{arm}' to export; there are {', '.join(there) or 'none'}")
    with training.workers(config.device) as workers:
        task = data.load(config, workers)
        model = load_arm(arm, config, task, workers, run).eval()
        sample = next(task.calibration_inputs(2, 2))
        about = Architecture(
            model=config.model, classes=task.classes, image_size=task.image_size, channels=task.channels, data=task.name
        )
        packed_file.save(pack(model, sample), directory / FILE, about.model_dump())


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The packed network of a file, or of the folder that `labkit export` wrote, in eval mode.

    Args:
        model: the float network that was quantised, for its architecture; its weights do not matter, and it is not
            changed. None: the network that labkit trained, whose architecture stands in the file.

    Raises:
        InputError: no such file; not a packed network, damaged or cut short; of another architecture.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    if model is None:
        model = _described(packed_file.about_file(path), path)
    return packed_file.load(path, model)


def _described(about: dict[str, Any], path: Path) -> nn.Module:
    try:
        known = Architecture.model_validate(about)
    except ValidationError:
        raise InputError(
            f"'{path}' does not say which network it belongs to; give the float one: load(path, model)"
        ) from None
    return build_model(known.model, known.classes, known.image_size, known.channels)


def _is_packable(name: str) -> bool:
    """Has the arm quantisers at all, with scales that are known before an input is (XNOR's are not)?"""
    arm = ARMS[name]
    return bool(arm.weights or arm.activations) and arm.activations != "XNOR"
