"""Scenes: training data with a spurious nuisance, and test contents that can be rendered with every nuisance."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from labkit import data, paths
from labkit.data.mnist import mnist_or_fashion
from labkit.errors import DataError, InputError
from labkit.papers.itid.experiment.config import Experiment
from labkit.papers.itid.method.batch import Batch
from labkit.papers.itid.method.renderers import (
    Backgrounds,
    Borders,
    Photographs,
    Renderer,
    Rotations,
    Shifts,
    TwoColours,
)

HELD_OUT = 97  # images between training and test, on which IE-adaptive measures the network


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything an arm is trained and tested on.

    aligned, target: nuisance laws of the test data, one row per datum: as in training, and where the bias is broken.
    middle: what the network subtracts from the pixels.
    """

    name: str
    renderer: Renderer
    classes: int
    environments: int
    train: Batch
    held_out: Float[Tensor, "held channels height width"]
    test_content: Float[Tensor, "n channels2 height2 width2"]
    test_labels: Int[Tensor, " n"]
    aligned: Float[Tensor, "n nuisances"]
    target: Float[Tensor, "n nuisances"]
    middle: float = 0.5

    @property
    def outputs(self) -> int:
        """Two classes share one logit."""
        return 1 if self.classes == 2 else self.classes

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.images.shape[1:])

    @property
    def columns(self) -> int:
        """Nuisances that the test data can be rendered with."""
        return 1 if isinstance(self.renderer, Photographs) else self.renderer.nuisances

    def test_images(self, nuisance: int) -> Float[Tensor, "n channels height width"]:
        """All test contents with one nuisance."""
        if isinstance(self.renderer, Photographs):
            return self.test_content
        return self.renderer(self.test_content, torch.full_like(self.test_labels, nuisance))


def build(experiment: Experiment, seed: int, device: torch.device | str = "cpu") -> Scene:
    """The scene of an experiment; split, nuisances and label noise are drawn from `seed`.

    Raises:
        DataError: the dataset is missing or damaged.
        InputError: there are fewer images than asked for.
    """
    builders: dict[str, Callable[[Experiment, torch.Generator], Scene]] = {
        "digit-backgrounds": _digit_backgrounds,
        "two-colours": _two_colours,
        "shifts": _shifts,
        "fashion-backgrounds": _fashion_backgrounds,
        "colored-mnist": _colored_mnist,
        "cifar-borders": _cifar_borders,
        "cifar-plain": _cifar_plain,
    }
    if experiment.scene not in builders:
        raise InputError(f"there is no scene '{experiment.scene}'; there are {', '.join(builders)}.")
    scene = builders[experiment.scene](experiment, torch.Generator().manual_seed(seed))
    return scene if torch.device(device).type == "cpu" else _to_device(scene, torch.device(device))


def _to_device(scene: Scene, device: torch.device) -> Scene:
    tensors = {f.name: value for f in fields(scene) if isinstance(value := getattr(scene, f.name), Tensor)}
    moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors.items()}
    return replace(scene, train=scene.train.to(device), **moved)


def aligned_nuisance(
    labels: Int[Tensor, " n"], rho: Float[Tensor, " n"], nuisances: int, generator: torch.Generator
) -> Int[Tensor, " n"]:
    """z = y with probability rho, else uniform over all nuisances."""
    uniform = torch.randint(nuisances, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < rho, labels, uniform)


def flipped(bits: Int[Tensor, " n"], chance: Float[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """Each bit flipped with its own probability."""
    return torch.where(torch.rand(bits.shape, generator=generator) < chance, 1 - bits, bits)


# -- sources, and how they are split ----------------------------------------------------------------------------------


@cache
def _digits() -> tuple[Tensor, Tensor]:
    parts = [data.digits("train"), data.digits("test")]
    images = torch.cat([part.images for part in parts]).float() / 255
    return images, torch.cat([part.labels for part in parts])


@dataclass(frozen=True, eq=False)
class Split:
    """Contents of the three parts of a data set, and the labels of two."""

    content: Float[Tensor, "n channels height width"]
    labels: Int[Tensor, " n"]
    held_out: Float[Tensor, "held channels height width"]
    test_content: Float[Tensor, "m channels height width"]
    test_labels: Int[Tensor, " m"]


def _split(content: Tensor, labels: Tensor, experiment: Experiment, generator: torch.Generator) -> Split:
    """Three parts without overlap."""
    n, m = experiment.train_examples, experiment.test_examples
    if n + HELD_OUT + m > len(labels):
        raise InputError(
            f"train_examples + {HELD_OUT} held out + test_examples must be at most {len(labels)}, the number of "
            f"images; got {n} and {m}."
        )
    order = torch.randperm(len(labels), generator=generator)
    train, held, test = order[:n], order[n : n + HELD_OUT], order[len(order) - m :]
    return Split(content[train], labels[train], content[held], content[test], labels[test])


def _background_scene(
    name: str, renderer: Renderer, split: Split, experiment: Experiment, generator: torch.Generator
) -> Scene:
    """Ten classes, ten nuisances; environments alternate, each with its own rho."""
    rho = torch.tensor(experiment.rho)
    environment = torch.arange(len(split.labels)) % len(rho)
    nuisance = aligned_nuisance(split.labels, rho[environment], renderer.nuisances, generator)
    aligned = F.one_hot(split.test_labels, renderer.nuisances).float()
    held_nuisance = torch.randint(renderer.nuisances, (len(split.held_out),), generator=generator)
    return Scene(
        name=name,
        renderer=renderer,
        classes=10,
        environments=len(rho),
        train=Batch.render(split.content, split.labels, nuisance, environment, renderer),
        held_out=renderer(split.held_out, held_nuisance),
        test_content=split.test_content,
        test_labels=split.test_labels,
        aligned=aligned,
        target=torch.full_like(aligned, 1 / renderer.nuisances),
    )


def _digit_backgrounds(experiment: Experiment, generator: torch.Generator) -> Scene:
    split = _split(*_digits(), experiment, generator)
    return _background_scene("digits", Backgrounds(), split, experiment, generator)


def _fashion_backgrounds(experiment: Experiment, generator: torch.Generator) -> Scene:
    train, test = data.fashion_mnist("train"), data.fashion_mnist("test")
    images = torch.cat([train.images, test.images]).float() / 255
    split = _split(images, torch.cat([train.labels, test.labels]), experiment, generator)
    return _background_scene(train.name, Backgrounds(), split, experiment, generator)


def _cifar_borders(experiment: Experiment, generator: torch.Generator) -> Scene:
    train, test = data.cifar10("train"), data.cifar10("test")
    split = _official_split(train, test, experiment, generator)
    return _background_scene(train.name, Borders(), split, experiment, generator)


def _official_split(
    train: data.ImageSet, test: data.ImageSet, experiment: Experiment, generator: torch.Generator
) -> Split:
    """Held-out images are taken from the training set; where all of it is used, they are training images too."""
    for part, wanted in ((train, experiment.train_examples), (test, experiment.test_examples)):
        if wanted > len(part):
            raise InputError(f"{part.name} has {len(part):,} images; {wanted:,} were asked for.")
    order = torch.randperm(len(train), generator=generator)
    chosen, held = order[: experiment.train_examples], order[-HELD_OUT:]
    content = train.images.float() / 255
    tested = torch.randperm(len(test), generator=generator)[: experiment.test_examples]
    test_content = test.images[tested].float() / 255
    return Split(content[chosen], train.labels[chosen], content[held], test_content, test.labels[tested])


def _cifar_plain(experiment: Experiment, generator: torch.Generator) -> Scene:
    train, test = data.cifar10("train"), data.cifar10("test")
    split = _official_split(train, test, experiment, generator)
    law = torch.ones(len(split.test_labels), 1)
    batch = photographs(split.content, split.labels, torch.zeros_like(split.labels), 1)
    return Scene(
        train.name, Photographs(1), 10, 1, batch, split.held_out, split.test_content, split.test_labels, law, law
    )


def photographs(content: Tensor, labels: Tensor, environment: Tensor, domains: int) -> Batch:
    """Images that cannot be rendered anew; of their nuisance only the number of the domain is known."""
    return Batch(content, labels, environment, environment, content, torch.ones(len(labels)), Photographs(domains))


def _shifts(experiment: Experiment, generator: torch.Generator) -> Scene:
    """Training and test have the same law: only Theorems 3 and 7 apply."""
    split, renderer = _split(*_digits(), experiment, generator), Shifts()
    nuisance = torch.randint(renderer.nuisances, split.labels.shape, generator=generator)
    law = torch.full((len(split.test_labels), renderer.nuisances), 1 / renderer.nuisances)
    train = Batch.render(split.content, split.labels, nuisance, torch.zeros_like(split.labels), renderer)
    held_out = renderer.neutral(split.held_out)
    return Scene(
        "digits", renderer, 10, 1, train, held_out, split.test_content, split.test_labels, law, law, middle=0.0
    )


# -- two colours ------------------------------------------------------------------------------------------------------

LABEL_NOISE, TEST_RHO = 0.25, 0.1


def _two_colours(experiment: Experiment, generator: torch.Generator) -> Scene:
    split = _split(*_digits(), experiment, generator)
    half = torch.arange(len(split.labels)) * len(experiment.rho) // len(split.labels)
    return _two_colour_scene("digits", split, half, experiment, generator)


def _colored_mnist(experiment: Experiment, generator: torch.Generator) -> Scene:
    """50,000 training images in two environments, 10,000 others as the test; every second pixel [official code]."""
    source = mnist_or_fashion("train")
    content = source.images.float()[:, :, ::2, ::2] / 255
    spare = len(content) - experiment.train_examples - HELD_OUT
    if spare > 0:  # held-out images are taken from the test's
        experiment = replace(experiment, test_examples=min(experiment.test_examples, spare))
    split = _split(content, source.labels, experiment, generator)
    environment = torch.arange(len(split.labels)) % len(experiment.rho)
    return _two_colour_scene(source.name, split, environment, experiment, generator)


def _two_colour_scene(
    name: str, split: Split, environment: Tensor, experiment: Experiment, generator: torch.Generator
) -> Scene:
    """y = (class < 5), flipped in 25 % of the data; the colour agrees with y with probability rho."""
    renderer, rho = TwoColours(), torch.tensor(experiment.rho)
    labels = _noisy_halves(split.labels, generator)
    nuisance = flipped(labels, 1 - rho[environment], generator)
    test_labels = _noisy_halves(split.test_labels, generator)
    colours = F.one_hot(test_labels, 2).float()
    mean_rho = float(rho.mean())
    return Scene(
        name=name,
        renderer=renderer,
        classes=2,
        environments=len(rho),
        train=Batch.render(split.content, labels, nuisance, environment, renderer),
        held_out=renderer(split.held_out, torch.zeros(len(split.held_out), dtype=torch.int64)),
        test_content=split.test_content,
        test_labels=test_labels,
        aligned=mean_rho * colours + (1 - mean_rho) * (1 - colours),
        target=TEST_RHO * colours + (1 - TEST_RHO) * (1 - colours),
        middle=0.0,
    )


def _noisy_halves(classes: Int[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """(class < 5), flipped with probability .25."""
    return flipped((classes < 5).long(), torch.full((len(classes),), LABEL_NOISE), generator)


# -- DomainBed's data: several environments, one of them left out -----------------------------------------------------


def domainbed_environments(name: str, seed: int, max_images: int = 0) -> list[Batch]:
    """The environments of a data set in DomainBed's protocol; environment numbers are positions in the list.

    colored-mnist: +90 %, +80 %, -90 %, with 25 % label noise; rotated-mnist: 0, 15, ..., 75 degrees; folder:NAME:
    LABKIT_DATA/NAME/<domain>/<class>/<image>.

    Raises:
        DataError: a folder is missing or not laid out like that.
    """
    if name.startswith("folder:"):
        return domain_folder(paths.data_dir() / name.removeprefix("folder:"), max_images=max_images)
    if name not in ("colored-mnist", "rotated-mnist"):
        raise InputError(f"there is no data set '{name}'; use colored-mnist, rotated-mnist or folder:NAME.")
    train, test = mnist_or_fashion("train"), mnist_or_fashion("test")
    content = torch.cat([train.images, test.images]).float() / 255
    classes = torch.cat([train.labels, test.labels])
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(classes), generator=generator)
    renderer: Renderer = TwoColours() if name == "colored-mnist" else Rotations()
    count = 3 if name == "colored-mnist" else renderer.nuisances
    environments = []
    for number in range(count):
        members = order[number::count][: max_images or None]
        images, labels = content[members], classes[members]
        environment = nuisance = torch.full((len(members),), number)
        if name == "colored-mnist":
            images, labels = images[:, :, ::2, ::2], _noisy_halves(labels, generator)
            nuisance = flipped(labels, torch.full((len(members),), (0.1, 0.2, 0.9)[number]), generator)
        environments.append(Batch.render(images, labels, nuisance, environment, renderer))
    return environments


def domain_folder(folder: Path, size: int = 64, max_images: int = 0) -> list[Batch]:
    """PACS, VLCS, OfficeHome, ...: `folder`/<domain>/<class>/<image>, each image resized to size x size.

    Raises:
        DataError: no such folder, no domains, domains with other classes, or a damaged image.
    """
    import numpy as np
    from PIL import Image

    domains = sorted(path for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else []
    if len(domains) < 2:
        raise DataError(f"{folder} must hold two or more domains as <domain>/<class>/<image>; it holds {len(domains)}.")
    classes = sorted(path.name for path in domains[0].iterdir() if path.is_dir())
    environments = []
    for number, domain in enumerate(domains):
        names = sorted(path.name for path in domain.iterdir() if path.is_dir())
        if names != classes or not classes:
            raise DataError(
                f"{domain} holds the classes {names}, {domains[0].name} holds {classes}: they must be the same."
            )
        images, labels = [], []
        for label, name in enumerate(classes):
            for file in sorted((domain / name).iterdir())[: max_images or None]:
                try:
                    with Image.open(file) as image:
                        pixels = np.asarray(image.convert("RGB").resize((size, size)), dtype=np.float32)
                except OSError as error:
                    raise DataError(f"{file} is not a readable image ({error}). Unpack it anew.") from error
                images.append(torch.from_numpy(pixels.transpose(2, 0, 1) / 255))
                labels.append(label)
        environment = torch.full((len(labels),), number)
        environments.append(photographs(torch.stack(images), torch.tensor(labels), environment, len(domains)))
    return environments
