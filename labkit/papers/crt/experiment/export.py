"""A finished run's tracker as a file: settings and, where there is one, the network that was trained for it."""

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.crt.experiment import learning
from labkit.papers.crt.experiment.config import ARMS, Arm, Config
from labkit.papers.crt.experiment.tracking import hand_made_features
from labkit.papers.crt.method.cascade import CascadeTracker
from labkit.papers.crt.method.features import Learned, SmallNet
from labkit.papers.crt.method.refine import Refiner
from labkit.workbench.runs import Run

FILE = "model.safetensors"
BEST = ("cascade-learned", "cascade")


class Header(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """What the tensors belong to; settings hold themselves within their ranges."""

    format: Literal["labkit crt tracker 1"] = "labkit crt tracker 1"
    arm: Arm


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """The arms of a run that can be exported, the best first by what the records say of all kinds of clips. [ours]

    ResNet arms are left out: their weights are the user's own, and their settings stand in `ARMS`.
    """
    tracked = dict.fromkeys((*config.arms, *(config.footage_arms if config.footage else ())))
    own = [name for name in tracked if "resnet" not in ARMS[name].features]
    return (*(name for name in BEST if name in own), *(name for name in own if name not in BEST))


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write `directory`/model.safetensors, which `load` reads.

    Raises:
        InputError: the run has no such arm to export.
        RunError: its network is not trained yet.
    """
    if arm not in arms(config, run):
        raise InputError(f"there is no arm '{arm}' to export; there are {', '.join(arms(config, run)) or 'none'}")
    tensors: dict[str, Tensor] = {}
    for part, net in _networks(ARMS[arm]).items():
        run.part(part).read_weights(net)
        tensors |= {f"{part}.{name}": value for name, value in net.state_dict().items()}
    tensor_files.write(directory / FILE, tensors, Header(arm=ARMS[arm]))


def load(path: str | Path, device: str | torch.device = "cpu") -> CascadeTracker:
    """The tracker of a file, or of the folder that `labkit export` wrote: `init(frame, box)`, then `update(frame)`.

    Raises TensorFileError (an InputError): no such file, a damaged one, or one of another kind.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    tensors, header = tensor_files.read(file, Header)
    networks = _networks(header.arm)
    wanted = {f"{part}.{name}": value for part, net in networks.items() for name, value in net.state_dict().items()}
    wrong = [name for name in wanted.keys() | tensors.keys() if not _same_kind(wanted.get(name), tensors.get(name))]
    if wrong or "resnet" in header.arm.features:
        raise tensor_files.TensorFileError(f"'{file}' does not hold this tracker's network ({', '.join(wrong[:3])}).")
    for part, net in networks.items():
        net.load_state_dict({name: tensors[f"{part}.{name}"] for name in net.state_dict()})
        net.to(device).eval()
    small, overlap = networks.get("features"), networks.get("overlap")
    features = Learned(small) if isinstance(small, SmallNet) else hand_made_features(header.arm)
    refiner = Refiner(overlap.net) if isinstance(overlap, learning.Predictor) else None
    return CascadeTracker(header.arm.settings, features, refiner, device, head=header.arm.head(seed=0))


def _networks(arm: Arm) -> dict[str, Any]:
    """Untrained networks of the kinds that an arm needs, by the part of a run that trains them."""
    networks: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):  # their random start is overwritten, and is not to be noticed elsewhere
        if arm.features == "learned":
            networks["features"] = learning.small_net(0)
        if arm.settings.refine:
            networks["overlap"] = learning.predictor(0)
    return networks


def _same_kind(wanted: Tensor | None, given: Tensor | None) -> bool:
    return wanted is not None and given is not None and (wanted.shape, wanted.dtype) == (given.shape, given.dtype)
