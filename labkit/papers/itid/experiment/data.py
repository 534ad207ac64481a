"""Scenes: training data with a spurious nuisance, and test contents that can be rendered with every nuisance."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from labkit import data, paths
from labkit.data.mnist import mnist_or_fashion
from labkit.data.pictures import read_picture
from labkit.errors import DataError, InputError
from labkit.papers.itid.experiment.config import Config, Experiment
from labkit.papers.itid.method.batch import Batch, unit_weights
from labkit.papers.itid.method.renderers import (
    Backgrounds,
    Borders,
    Photographs,
    Renderer,
    Rotations,
    Shifts,
    TwoColors,
)

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
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
    return Batch(content, labels, environment, environment, content, unit_weights(content), Photographs(domains))


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
    renderer, rho = TwoColors(), torch.tensor(experiment.rho)
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

COLOUR_DISAGREES = {"+90%": 0.1, "+80%": 0.2, "-90%": 0.9}  # environments of coloured MNIST [peer code]
FEWEST = 5  # images of an environment: one fifth is held out
FOLDER = "folder:"


@dataclass(frozen=True, eq=False)
class DomainSet:
    """A task in several environments; images are 8 bits. `environment` of a batch is its position in the list."""

    environments: list[Batch]
    names: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def photographs(self) -> bool:
        return isinstance(self.environments[0].renderer, Photographs)


def domainbed_environments(name: str, seed: int, config: Config) -> DomainSet:
    """A data set of DomainBed's protocol: colored-mnist (2x28x28, a quarter of the labels wrong), rotated-mnist (28x28;
    0, 15, ..., 75 degrees, bilinear, where the [peer code] is bicubic), or folder:PATH, see `domain_folder`.

    Raises:
        DataError: a folder is missing or not laid out like that.
    """
    if name.startswith(FOLDER):
        return domain_folder(domain_path(name), config.image_size, config.max_images)
    if name not in ("colored-mnist", "rotated-mnist"):
        raise InputError(f"there is no data set '{name}'; use colored-mnist, rotated-mnist or folder:PATH.")
    train, test = mnist_or_fashion("train"), mnist_or_fashion("test")
    content, labels = torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels])
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    colored, rotations = name == "colored-mnist", Rotations()
    names = tuple(COLOUR_DISAGREES) if colored else tuple(f"{angle:g} degrees" for angle in rotations.angles)
    environments = []
    for number, environment in enumerate(names):
        members = order[number :: len(names)][: config.max_images or None]
        position = torch.full((len(members),), number)
        images, y = content[members], labels[members]
        if colored:
            y = _noisy_halves(y, generator)
            z = flipped(y, torch.full((len(y),), COLOUR_DISAGREES[environment]), generator)
            environments.append(Batch.render(images, y, z, position, TwoColors()))
        else:
            environments.append(Batch.render(images, y, position, position, rotations))
    return DomainSet(environments, names, ("5 to 9", "0 to 4") if colored else train.classes)


def domain_path(name: str) -> Path:
    """The folder that folder:PATH names: in LABKIT_DATA, or any other."""
    given = Path(name.removeprefix(FOLDER)).expanduser()
    return inside if (inside := paths.data_dir() / given).is_dir() else given


def domain_folder(folder: Path, size: int = 64, max_images: int = 0) -> DomainSet:
    """PACS, VLCS, OfficeHome, or the reader's own: `folder`/<domain>/<class>/<image>, resized to size x size.

    Hidden files and files that are no pictures by their ending are left out. Of a domain with more than `max_images`
    (0: all) that many are taken, spread evenly over its sorted files, so that the shares of the classes stay.

    Raises:
        DataError: no such folder, fewer than two domains, other classes in one of them, too few or damaged images.
    """
    names = subfolders(folder)
    if len(names) < 2:
        raise DataError(
            f"{folder} must hold two or more domains as <domain>/<class>/<image>; it has {', '.join(names) or 'none'}."
        )
    classes = subfolders(folder / names[0])
    if len(classes) < 2:
        raise DataError(
            f"{folder / names[0]} must hold two or more folders, one for each class; it holds {len(classes)}."
        )
    files = [domain_files(folder / name, classes, max_images) for name in names]  # all mistakes before any decoding
    environments = []
    for number, members in enumerate(files):
        images = torch.stack([_square(path, size) for path, _ in members])
        labels = torch.tensor([label for _, label in members])
        environments.append(photographs(images, labels, torch.full_like(labels, number), len(names)))
    return DomainSet(environments, tuple(names), tuple(classes))


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted, without hidden ones; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def domain_files(domain: Path, classes: list[str], max_images: int) -> list[tuple[Path, int]]:
    """The picture files of a domain and their labels.

    Raises:
        DataError: other classes than the first domain has, or too few images.
    """
    if (names := subfolders(domain)) != classes:
        raise DataError(f"{domain} holds the classes {names}, the first domain holds {classes}: they must be the same.")
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((domain / name).iterdir())
        if path.suffix.lower() in PICTURE_ENDINGS and not path.name.startswith(".")
    ]
    if max_images and len(files) > max_images:
        files = [files[k * len(files) // max_images] for k in range(max_images)]
    if len(files) < FEWEST:
        raise DataError(f"{domain} gives {len(files)} images; at least {FEWEST} are needed: one fifth is held out.")
    return files


def _square(path: Path, size: int) -> UInt8[Tensor, "3 size size"]:
    picture = read_picture(path, "Replace it, or leave it out.").resize((size, size), resample=2)  # bilinear
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
