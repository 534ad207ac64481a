"""What a finished run leaves to be taken home: its trained classifiers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int, Num
from pydantic import BaseModel, Field
from torch import Tensor, nn

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.itid.experiment.config import Config
from labkit.papers.itid.experiment.domainbed import Draw, part_of
from labkit.papers.itid.experiment.jobs import build_networks, build_scene, job_groups
from labkit.papers.itid.experiment.model import Single, build_network, fitting_network
from labkit.papers.itid.method.pixels import to_float
from labkit.workbench.runs import Run

FILE = "model.safetensors"
Size = Annotated[int, Field(ge=1, le=100_000)]


class Header(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """Which network the tensors are of: the arguments of `build_network`."""

    format: Literal["labkit itid classifier 1"] = "labkit itid classifier 1"
    network: Literal["mlp", "cnn", "mnist-cnn", "resnet18", "resnet18-large"]
    shape: tuple[Size, Size, Size]
    hidden: int = Field(ge=0, le=100_000)
    outputs: Size
    middle: float
    classes: tuple[str, ...] = Field(min_length=2, max_length=100_000)


class Classifier(nn.Module):
    """A trained classifier: images (n, channels, height, width), uint8 or floats in [0, 1], to scores."""

    def __init__(self, header: Header, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.header, self.classes = header, header.classes
        with torch.device("meta"):  # no memory for what a header merely claims
            self.network = build_network(header.network, header.shape, header.hidden, header.outputs, header.middle)
        self.network.load_state_dict(dict(weights), assign=True)
        self.eval()

    def forward(self, images: Num[Tensor, "n channels height width"]) -> Float[Tensor, "n outputs"]:
        """Scores, one per class; of two classes there may be one score alone, the second one's.

        Raises:
            InputError: images of another shape than those of the training.
        """
        if tuple(images.shape[1:]) != self.header.shape:
            raise InputError(
                f"images must be (n, {', '.join(map(str, self.header.shape))}); got {tuple(images.shape)}."
            )
        return self.network(to_float(images).to(next(self.parameters()).dtype))

    @torch.no_grad()
    def predict(self, images: Num[Tensor, "n channels height width"]) -> Int[Tensor, " n"]:
        """The number of each image's class, an index into `classes`."""
        scores = self(images)
        return (scores[:, 0] > 0).long() if scores.shape[1] == 1 else scores.argmax(1)

    def save(self, path: str | Path) -> None:
        """Write one file, which `load` reads."""
        tensor_files.write(Path(path), self.network.state_dict(), self.header)


def load(path: str | Path) -> Classifier:
    """The classifier in an exported folder, or in a file that `Classifier.save` wrote.

    Raises:
        InputError: nothing there, damaged, or something else.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    tensors, header = tensor_files.read(path, Header)
    try:
        return Classifier(header, tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise tensor_files.TensorFileError(f"'{path}': its header and its tensors do not fit ({reason}).") from None


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """The classifiers of a finished run, IE-swap's first, then others of Algorithm IE: experiment/arm, and of a sweep
    data set/test environment/algorithm."""
    result = run.result or {}
    names = [
        f"{name}/{environment}/{algorithm}"
        for name in config.sweep
        for environment, algorithms in result.get("sweep", {}).get(name, {}).items()
        for algorithm in algorithms
    ]
    names += [f"{name}/{arm}" for name in config.experiments for arm in result.get(name, {}).get("arms", {})]
    last = [name.rpartition("/")[2] for name in names]
    ranks = [0 if arm == "IE-swap" else 1 if arm.startswith("IE-") else 2 for arm in last]
    return tuple(names[k] for k in sorted(range(len(names)), key=ranks.__getitem__))


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write the classifier `arm` into `directory`: of an experiment, that of the first replica; of a sweep, the one
    that the training environments select in the first trial, at its best checkpoint.

    Raises:
        InputError: the run has no such classifier.
    """
    if arm not in (there := arms(config, run)):
        raise InputError(f"{run.directory} has no classifier '{arm}'; there are {', '.join(there) or 'none yet'}.")
    name, _, last = arm.rpartition("/")
    trained = of_experiment(name, last, config, run) if name in config.experiments else of_sweep(arm, config, run)
    trained.save(directory / FILE)


def of_experiment(name: str, arm: str, config: Config, run: Run) -> Classifier:
    """The first replica's classifier of an arm."""
    setting = config.experiment(name)
    scene = build_scene(setting, config.seed, 0)
    header = Header(
        network=setting.network,  # type: ignore[arg-type]
        shape=scene.shape,  # type: ignore[arg-type]
        hidden=setting.arms[arm].hidden or setting.hidden,
        outputs=scene.outputs,
        middle=scene.middle,
        classes=tuple(map(str, range(scene.classes))),
    )
    for jobs, group in job_groups(setting, [scene] * config.replicas, config, run.part(name)):
        rows = [k for k, job in enumerate(jobs) if job.arm == arm and job.replica == 0]
        if rows:
            networks = build_networks(jobs, setting, config)
            group.read_weights(networks)
            return Classifier(header, networks.weights_of(rows[0]))
    raise InputError(f"{run.directory} has no classifier '{name}/{arm}'.")


def of_sweep(arm: str, config: Config, run: Run) -> Classifier:
    """The classifier that the training environments select in the first trial."""
    dataset = next(name for name in config.sweep if arm.startswith(f"{name}/"))
    environment, algorithm = arm.removeprefix(f"{dataset}/").split("/")
    left_out = list((run.result or {})["sweep"][dataset]).index(environment)
    for number in range(config.draws):
        part = part_of(dataset, Draw(algorithm, left_out, 0, number), run)
        if (part.directory / "all" / "weights.safetensors").exists():  # of the others they were removed
            about = part.result or {}
            shape, classes = tuple(about["shape"]), tuple(about["classes"])
            kind, outputs = fitting_network(shape), len(classes)
            networks = Single(build_network(kind, shape, 0, outputs))
            part.part("all").read_weights(networks)
            header = Header(network=kind, shape=shape, hidden=0, outputs=outputs, middle=0.5, classes=classes)  # type: ignore[arg-type]
            return Classifier(header, networks.weights_of(0))
    raise InputError(f"{run.directory} has no classifier '{arm}'.")
