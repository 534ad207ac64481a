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
from labkit.data.coloured import mnist_or_fashion
from labkit.errors import DataError, InputError
from labkit.papers.itid.experiment.config import Experiment
from labkit.papers.itid.method.modifiers import Batch
from labkit.papers.itid.method.renderers import (
    Backgrounds,
    Borders,
    Photographs,
    Renderer,
    Rotations,
    Shifts,
    TwoColours,
)

HELD_OUT = 97  # images between training and test, on which IE-adaptive looks for weaknesses


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
    """The scene of an experiment; `seed` decides split, nuisances and label noise.

    Raises:
        DataError: the dataset is missing or damaged.
        InputError: there are fewer images than asked for.
    """
    makers: dict[str, Callable[[Experiment, torch.Generator], Scene]] = {
        "digit-backgrounds": _digit_backgrounds,
        "two-colours": _two_colours,
        "shifts": _shifts,
        "fashion-backgrounds": _fashion_backgrounds,
        "colored-mnist": _colored_mnist,
        "cifar-borders": _cifar_borders,
        "cifar-plain": _cifar_plain,
    }
    if experiment.scene not in makers:
        raise InputError(f"there is no scene '{experiment.scene}'; there are {', '.join(makers)}.")
    scene = makers[experiment.scene](experiment, torch.Generator().manual_seed(seed))
    return scene if torch.device(device).type == "cpu" else _moved(scene, torch.device(device))


def _moved(scene: Scene, device: torch.device) -> Scene:
    tensors = {f.name: value for f in fields(scene) if isinstance(value := getattr(scene, f.name), Tensor)}
    there: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors.items()}
    return replace(scene, train=scene.train.to(device), **there)


def aligned_nuisance(
    labels: Int[Tensor, " n"], rho: Float[Tensor, " n"], nuisances: int, generator: torch.Generator
) -> Int[Tensor, " n"]:
    """z = y with probability rho, else uniform over all nuisances."""
    drawn = torch.randint(nuisances, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < rho, labels, drawn)


def flipped(bits: Int[Tensor, " n"], chance: Float[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """Each bit turned over with its own probability."""
    return torch.where(torch.rand(bits.shape, generator=generator) < chance, 1 - bits, bits)


# -- sources, and how they are split ----------------------------------------------------------------------------------


@cache
def _digits() -> tuple[Tensor, Tensor]:
    parts = [data.digits("train"), data.digits("test")]
    images = torch.cat([part.images for part in parts]).float() / 255
    return images, torch.cat([part.labels for part in parts])


def _split(
    content: Tensor, labels: Tensor, experiment: Experiment, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Training contents and labels, held-out contents, test contents and labels, without overlap."""
    n, m = experiment.train_examples, experiment.test_examples
    if n + HELD_OUT + m > len(labels):
        raise InputError(
            f"train_examples + {HELD_OUT} held out + test_examples must be at most {len(labels)}, all images there "
            f"are; got {n} and {m}."
        )
    order = torch.randperm(len(labels), generator=generator)
    train, held, test = order[:n], order[n : n + HELD_OUT], order[len(order) - m :]
    return content[train], labels[train], content[held], content[test], labels[test]


def _background_scene(
    name: str, renderer: Renderer, parts: tuple[Tensor, ...], experiment: Experiment, generator: torch.Generator
) -> Scene:
    """Ten classes, ten nuisances; environments alternate, each with its own rho."""
    content, labels, held, test_content, test_labels = parts
    rho = torch.tensor(experiment.rho)
    environment = torch.arange(len(labels)) % len(rho)
    nuisance = aligned_nuisance(labels, rho[environment], renderer.nuisances, generator)
    aligned = F.one_hot(test_labels, renderer.nuisances).float()
    held_nuisance = torch.randint(renderer.nuisances, (len(held),), generator=generator)
    return Scene(
        name=name,
        renderer=renderer,
        classes=10,
        environments=len(rho),
        train=Batch.render(content, labels, nuisance, environment, renderer),
        held_out=renderer(held, held_nuisance),
        test_content=test_content,
        test_labels=test_labels,
        aligned=aligned,
        target=torch.full_like(aligned, 1 / renderer.nuisances),
    )


def _digit_backgrounds(experiment: Experiment, generator: torch.Generator) -> Scene:
    parts = _split(*_digits(), experiment, generator)
    return _background_scene("digits", Backgrounds(), parts, experiment, generator)


def _fashion_backgrounds(experiment: Experiment, generator: torch.Generator) -> Scene:
    train, test = data.fashion_mnist("train"), data.fashion_mnist("test")
    images = torch.cat([train.images, test.images]).float() / 255
    parts = _split(images, torch.cat([train.labels, test.labels]), experiment, generator)
    return _background_scene(train.name, Backgrounds(), parts, experiment, generator)


def _cifar_borders(experiment: Experiment, generator: torch.Generator) -> Scene:
    train, test = data.cifar10("train"), data.cifar10("test")
    parts = _official_split(train, test, experiment, generator)
    return _background_scene(train.name, Borders(), parts, experiment, generator)


def _official_split(
    train: data.ImageSet, test: data.ImageSet, experiment: Experiment, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Held-out images are the first of the training set; they stay in it where it is asked for as a whole."""
    for part, wanted in ((train, experiment.train_examples), (test, experiment.test_examples)):
        if wanted > len(part):
            raise InputError(f"{part.name} has {len(part):,} images here; asked for {wanted:,}.")
    order = torch.randperm(len(train), generator=generator)
    chosen, held = order[: experiment.train_examples], order[-HELD_OUT:]
    content = train.images.float() / 255
    tested = torch.randperm(len(test), generator=generator)[: experiment.test_examples]
    return content[chosen], train.labels[chosen], content[held], test.images[tested].float() / 255, test.labels[tested]


def _cifar_plain(experiment: Experiment, generator: torch.Generator) -> Scene:
    train, test = data.cifar10("train"), data.cifar10("test")
    content, labels, held, test_content, test_labels = _official_split(train, test, experiment, generator)
    ones = torch.ones(len(test_labels), 1)
    return Scene(
        train.name, Photographs(1), 10, 1, photographs(content, labels, torch.zeros_like(labels), 1), held,
        test_content, test_labels, ones, ones,
    )  # fmt: skip


def photographs(content: Tensor, labels: Tensor, environment: Tensor, domains: int) -> Batch:
    """Images that cannot be rendered anew; the domain's number is all that is known of the nuisance."""
    return Batch(content, labels, environment, environment, content, torch.ones(len(labels)), Photographs(domains))


def _shifts(experiment: Experiment, generator: torch.Generator) -> Scene:
    """Training and test have the same law: only Theorems 3 and 7 are at work."""
    content, labels, held, test_content, test_labels = _split(*_digits(), experiment, generator)
    renderer = Shifts()
    nuisance = torch.randint(renderer.nuisances, labels.shape, generator=generator)
    law = torch.full((len(test_labels), renderer.nuisances), 1 / renderer.nuisances)
    train = Batch.render(content, labels, nuisance, torch.zeros_like(labels), renderer)
    return Scene(
        "digits", renderer, 10, 1, train, renderer.neutral(held), test_content, test_labels, law, law, middle=0.0
    )


# -- two colours ------------------------------------------------------------------------------------------------------

LABEL_NOISE, TEST_RHO = 0.25, 0.1


def _two_colours(experiment: Experiment, generator: torch.Generator) -> Scene:
    content, classes, held, test_content, test_classes = _split(*_digits(), experiment, generator)
    half = torch.arange(len(classes)) * len(experiment.rho) // len(classes)
    return _two_colour_scene("digits", content, classes, half, held, test_content, test_classes, experiment, generator)


def _colored_mnist(experiment: Experiment, generator: torch.Generator) -> Scene:
    """50,000 training images in two environments, 10,000 others as the test; every second pixel [official code]."""
    source = mnist_or_fashion("train")
    content, classes = source.images.float()[:, :, ::2, ::2] / 255, source.labels
    parts = _split(content, classes, _room_for_held_out(experiment, len(classes)), generator)
    environment = torch.arange(len(parts[1])) % len(experiment.rho)
    return _two_colour_scene(
        source.name, parts[0], parts[1], environment, parts[2], parts[3], parts[4], experiment, generator
    )


def _room_for_held_out(experiment: Experiment, total: int) -> Experiment:
    spare = total - experiment.train_examples - HELD_OUT
    return replace(experiment, test_examples=min(experiment.test_examples, spare)) if spare > 0 else experiment


def _two_colour_scene(
    name: str, content: Tensor, classes: Tensor, environment: Tensor, held: Tensor, test_content: Tensor,
    test_classes: Tensor, experiment: Experiment, generator: torch.Generator,
) -> Scene:  # fmt: skip
    """y = (class < 5), turned over in 25 % of the data; the colour agrees with y with probability rho."""
    renderer, rho = TwoColours(), torch.tensor(experiment.rho)
    noise = torch.full((len(classes),), LABEL_NOISE)
    labels = flipped((classes < 5).long(), noise, generator)
    nuisance = flipped(labels, 1 - rho[environment], generator)
    test_labels = flipped((test_classes < 5).long(), noise.new_full((len(test_classes),), LABEL_NOISE), generator)
    colours = F.one_hot(test_labels, 2).float()
    mean_rho = float(rho.mean())
    return Scene(
        name=name,
        renderer=renderer,
        classes=2,
        environments=len(rho),
        train=Batch.render(content, labels, nuisance, environment, renderer),
        held_out=renderer(held, torch.zeros(len(held), dtype=torch.int64)),
        test_content=test_content,
        test_labels=test_labels,
        aligned=mean_rho * colours + (1 - mean_rho) * (1 - colours),
        target=TEST_RHO * colours + (1 - TEST_RHO) * (1 - colours),
        middle=0.0,
    )


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
        raise InputError(f"'{name}' is not known here; use colored-mnist, rotated-mnist or folder:NAME.")
    train, test = mnist_or_fashion("train"), mnist_or_fashion("test")
    content = torch.cat([train.images, test.images]).float() / 255
    classes = torch.cat([train.labels, test.labels])
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(classes), generator=generator)
    renderer: Renderer = TwoColours() if name == "colored-mnist" else Rotations()
    count = 3 if name == "colored-mnist" else renderer.nuisances
    environments = []
    for number in range(count):
        mine = order[number::count]
        mine = mine[:max_images] if max_images else mine
        labels, nuisance = classes[mine], torch.full((len(mine),), number)
        chosen = content[mine]
        if name == "colored-mnist":
            chosen = chosen[:, :, ::2, ::2]
            labels = flipped((labels < 5).long(), torch.full((len(mine),), LABEL_NOISE), generator)
            nuisance = flipped(labels, torch.full((len(mine),), (0.1, 0.2, 0.9)[number]), generator)
        place = torch.full((len(mine),), number)
        environments.append(Batch.render(chosen, labels, nuisance, place, renderer))
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
        raise DataError(f"{folder} must hold two or more domains as <domain>/<class>/<image>; found {len(domains)}.")
    classes = sorted(path.name for path in domains[0].iterdir() if path.is_dir())
    environments = []
    for number, domain in enumerate(domains):
        found = sorted(path.name for path in domain.iterdir() if path.is_dir())
        if found != classes or not classes:
            raise DataError(
                f"{domain} holds the classes {found}, {domains[0].name} holds {classes}: they must be the same."
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
        place = torch.full((len(labels),), number)
        environments.append(photographs(torch.stack(images), torch.tensor(labels), place, len(domains)))
    return environments
