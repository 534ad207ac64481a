"""What a run keeps besides its numbers: the maps of a Zone study, the pairs of the calibration, the loop's policies."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from labkit import tensor_files
from labkit.errors import RunError
from labkit.papers.pombu.experiment.offline import Improved, Prepared, TimedValue
from labkit.papers.pombu.experiment.zone import Zone
from labkit.papers.pombu.method.ensemble import DynamicsEnsemble
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.tensor_files import TensorFileError

MAPS, PAIRS = "maps.safetensors", "pairs.safetensors"


class MapsHeader(BaseModel, frozen=True, strict=True, extra="forbid"):
    """Whose policies they are: (updates, arms) of them, in this order; widths of the networks."""

    format: Literal["labkit pombu maps 1"] = "labkit pombu maps 1"
    arms: tuple[str, ...] = Field(min_length=1)
    updates: tuple[int, ...] = Field(min_length=1, description="after how many updates policies were kept")
    members: int = Field(ge=2, le=1000)


class PairsHeader(BaseModel, frozen=True, strict=True, extra="forbid"):
    format: Literal["labkit pombu calibration pairs 1"] = "labkit pombu calibration pairs 1"


def policy_name(replica: int) -> str:
    """The file of a replica's policy, in the part of its algorithm and environment."""
    return f"policy-{replica}.safetensors"


def maps_content(prepared: Prepared, improved: Improved, arms: tuple[str, ...], updates: tuple[int, ...]) -> bytes:
    """The first seed's data, models, first V, and the policy of every arm after some updates."""
    history, members = improved.history, prepared.ensemble.members
    tensors = {"data": prepared.states[0]}
    tensors |= {name: torch.stack(values) for name, values in history.values.items() if name.startswith("policy/")}
    for name, value in prepared.ensemble.state_dict().items():
        tensors[f"ensemble/{name}"] = value[: members if name.startswith("net.") else 1]
    tensors |= {f"value/{name}": value[:1] for name, value in improved.first_value.state_dict().items()}
    return tensor_files.to_bytes(tensors, MapsHeader(arms=arms, updates=updates, members=members))


class MapFile:
    """A file of maps, checked part by part as it is asked for.

    Raises:
        RunError: there is none: the study was not run, or is not finished.
        TensorFileError: damaged, or of another kind.
    """

    def __init__(self, run: Path, study: str) -> None:
        self.path = run / study / MAPS
        if not self.path.exists():
            raise RunError(f"{run} holds no {study}/{MAPS}: it was run without the study '{study}'.")
        self._tensors, self.header = tensor_files.read(self.path, MapsHeader)

    def data(self, task: Zone) -> Tensor:
        rows = self._tensors.get("data")
        if rows is None or rows.dim() != 2 or rows.shape[1] != task.state_size:
            raise self._other("data")
        return rows

    def policies(self, task: Zone) -> GaussianPolicy:
        """One copy a policy: update number u of arm number a is copy u * len(arms) + a."""
        shape = (len(self.header.updates), len(self.header.arms))
        own = self._group("policy")
        if any(value.shape[:2] != shape for value in own.values()):
            raise self._other("policy")
        own = {name: value.flatten(0, 1) for name, value in own.items()}
        hidden = self._hidden(own, "mean.layers", shape[0] * shape[1])
        policy = GaussianPolicy(task.state_size, task.action_size, hidden, [0] * (shape[0] * shape[1]))
        return self._loaded(policy, own, "policy")

    def ensemble(self, task: Zone) -> DynamicsEnsemble:
        own, members = self._group("ensemble"), self.header.members
        hidden = self._hidden(own, "net.layers", members)
        sizes = (task.state_size, task.action_size, hidden)
        ensemble = DynamicsEnsemble(1, members, *sizes, "tanh", weight_norm=False).requires_grad_(False)
        return self._loaded(ensemble, own, "ensemble")

    def value(self, task: Zone) -> TimedValue:
        own = self._group("value")
        width = self._hidden(own, "net.layers", 1)
        if len(width) != 2 or width[0] != width[1]:
            raise self._other("value")
        return self._loaded(TimedValue(1, task, width[0], [torch.Generator()]), own, "value")

    def _group(self, kind: str) -> dict[str, Tensor]:
        prefix = f"{kind}/"
        return {name.removeprefix(prefix): x for name, x in self._tensors.items() if name.startswith(prefix)}

    def _hidden(self, tensors: dict[str, Tensor], layers: str, copies: int) -> tuple[int, ...]:
        """Widths of the hidden layers, as the tensors themselves have them: no network is made larger than the file."""
        biases = [tensors[name] for number in range(len(tensors)) if (name := f"{layers}.{number}.bias") in tensors]
        if len(biases) < 2 or any(x.dim() != 3 or x.shape[0] != copies for x in biases):
            raise self._other(layers)
        return tuple(x.shape[-1] for x in biases[:-1])

    def _loaded(self, module, tensors: dict[str, Tensor], kind: str):  # type: ignore[no-untyped-def]
        try:
            module.load_state_dict(tensors)
        except RuntimeError:
            raise self._other(kind) from None
        return module

    def _other(self, kind: str) -> TensorFileError:
        return TensorFileError(
            f"'{self.path}' holds no maps of this study ({kind}): run it again in another --run-dir."
        )


def pairs_of(run: Path) -> dict[str, dict[str, Tensor]]:
    """The pairs of prediction and error behind the calibration table, by row and name.

    Raises:
        RunError: the run has no calibration study.
        TensorFileError: damaged, or of another kind.
    """
    path = run / "calibration" / PAIRS
    if not path.exists():
        raise RunError(f"{run} holds no calibration/{PAIRS}: it was run without the study 'calibration'.")
    tensors, _ = tensor_files.read(path, PairsHeader)
    rows: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        row, _, key = name.rpartition("/")
        rows.setdefault(row, {})[key] = value
    for row, pairs in rows.items():
        shapes = {value.shape for value in pairs.values()}
        whole = [{"predicted", "error"}, {"predicted", "error", "persistent", "persistent_error"}]
        if len(shapes) != 1 or len(shapes.pop()) != 2 or pairs.keys() not in whole:
            raise TensorFileError(f"'{path}' holds no pairs of predictions and errors in '{row}'.")
    return rows
