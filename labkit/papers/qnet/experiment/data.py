"""What the networks train on: an image task, whole in memory or read from a folder, behind one small face."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit import data
from labkit.papers.qnet.experiment.config import Config
from labkit.workbench.training import ShuffledIndices, Workers

Batch = tuple[Float[Tensor, "batch channels height width"], Int[Tensor, " batch"]]

EVALUATION_BATCH = 250  # images: what one batch touches stays in a CPU's cache


@runtime_checkable
class TrainingBatches(Protocol):
    """Endless batches, this process's share of each; knows its own position, for checkpoints."""

    def __iter__(self) -> "TrainingBatches": ...
    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> None: ...


@runtime_checkable
class Task(Protocol):
    """An image classification task. All images come normalised, as float32, on the worker's device."""

    name: str
    provenance: str
    classes: int
    channels: int
    image_size: int
    train_examples: int

    def training_batches(self, config: Config) -> TrainingBatches: ...
    def calibration_images(self, count: int, batch_size: int) -> Iterator[Float[Tensor, "batch channels h w"]]:
        """The first `count` training images without labels, as they are (no augmentation)."""
        ...

    def test_batches(self) -> Iterator[Batch]:
        """This process's share of the test images."""
        ...


def load(config: Config, workers: Workers) -> Task:
    """The task that `config.data` names, cut to the asked number of examples.

    Raises:
        DataError: the dataset is missing or damaged; says how to get it.
    """
    if config.data == "imagenet":
        return FolderTask(config, workers)
    loader = {
        "best": data.best_available,
        "digits": data.digits,
        "fashion-mnist": data.fashion_mnist,
        "cifar10": data.cifar10,
    }[config.data]
    train, test = loader("train"), loader("test")
    train = train.first(min(config.train_examples or len(train), len(train)))
    test = test.first(min(config.test_examples or len(test), len(test)))
    return MemoryTask(train, test, workers, memory_format(config))


def memory_format(config: Config) -> torch.memory_format:
    return torch.channels_last if config.channels_last else torch.contiguous_format


class MemoryTask:
    """Images that fit on the device: normalised once, then only indexed."""

    def __init__(
        self, train: data.ImageSet, test: data.ImageSet, workers: Workers, layout: torch.memory_format
    ) -> None:
        self.name, self.provenance = train.name, train.provenance
        self.classes, self.train_examples = len(train.classes), len(train)
        self.channels, self.image_size = train.images.shape[1], train.images.shape[-1]
        self.workers = workers
        mean, std = train.statistics()
        self._train, self._test = (
            part.to(workers.device).normalized(mean, std).contiguous(memory_format=layout) for part in (train, test)
        )
        self._train_labels, self._test_labels = (part.labels.to(workers.device) for part in (train, test))

    def training_batches(self, config: Config) -> "MemoryBatches":
        return MemoryBatches(self._train, self._train_labels, config, self.workers)

    def calibration_images(self, count: int, batch_size: int) -> Iterator[Float[Tensor, "batch channels h w"]]:
        yield from self._train[:count].split(batch_size)

    def test_batches(self) -> Iterator[Batch]:
        mine = slice(self.workers.rank, None, self.workers.size)
        images, labels = self._test[mine], self._test_labels[mine]
        yield from zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True)


class MemoryBatches:
    """Training batches from memory."""

    def __init__(self, images: Tensor, labels: Tensor, config: Config, workers: Workers) -> None:
        self.images, self.labels, self.workers = images, labels, workers
        self.augment, self.seed, self.layout = config.augment, config.seed, memory_format(config)
        self.indices = ShuffledIndices(len(labels), config.batch_size, config.seed)

    def __iter__(self) -> "MemoryBatches":
        return self

    def __next__(self) -> Batch:
        mine = self.workers.share(next(self.indices)).to(self.images.device)
        images = self.images[mine]
        if self.augment:
            images = data.random_crop_flip(images, padding=4, generator=self._crops())
        return images.contiguous(memory_format=self.layout), self.labels[mine]

    def _crops(self) -> torch.Generator:
        """Crops depend on seed, position and process alone: nothing to save, nothing shared between processes."""
        place = (self.indices.epoch * self.indices.batches_per_epoch + self.indices.position) * self.workers.size
        return torch.Generator().manual_seed(self.seed * 1_000_003 + place + self.workers.rank)

    def state_dict(self) -> dict[str, Any]:
        return self.indices.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.indices.load_state_dict(state_dict)


def spread(count: int, total: int) -> Int[Tensor, " count"]:
    """`count` indices at even distances: a folder is sorted by class, so its first images are its first classes."""
    return torch.arange(count) * total // count


@dataclass
class FolderTask:
    """ImageNet: decoded by `config.data_workers` processes while the device computes."""

    config: Config
    workers: Workers

    def __post_init__(self) -> None:
        size = 224
        self.train, self.test = data.imagenet("train", self.config.seed, size), data.imagenet("val", size=size)
        self.name, self.provenance = "imagenet", "ILSVRC 2012, as registered users download it"
        self.classes, self.channels, self.image_size = len(self.train.classes), 3, size
        self.train_examples = min(self.config.train_examples or len(self.train), len(self.train))
        self.chosen = spread(self.train_examples, len(self.train))

    def training_batches(self, config: Config) -> "FolderBatches":
        return FolderBatches(self)

    def calibration_images(self, count: int, batch_size: int) -> Iterator[Float[Tensor, "batch channels h w"]]:
        plain = replace(self.train, augment=False)
        for images, _ in self.ordered(plain, spread(min(count, len(self.train)), len(self.train)), batch_size):
            yield images

    def test_batches(self) -> Iterator[Batch]:
        count = min(self.config.test_examples or len(self.test), len(self.test))
        yield from self.ordered(self.test, spread(count, len(self.test))[self.workers.rank :: self.workers.size], 250)

    def ordered(self, images: data.ImageFolder, order: Tensor, batch_size: int, epoch: int = 0) -> Iterator[Batch]:
        """Batches of `images` in exactly this order, normalised, on the device."""
        loader = data.image_batches(images, order, batch_size, epoch=epoch, workers=self.config.data_workers)
        for pixels, labels in loader:
            pixels = pixels.to(self.workers.device, non_blocking=True)
            labels = labels.to(self.workers.device, non_blocking=True)
            normal = data.normalize(pixels, data.IMAGENET_MEAN, data.IMAGENET_STD)
            yield normal.contiguous(memory_format=memory_format(self.config)), labels


class FolderBatches:
    """Training batches from a folder: one loader per epoch, opened at the position a checkpoint left it."""

    def __init__(self, task: FolderTask) -> None:
        self.task = task
        self.indices = ShuffledIndices(task.train_examples, task.config.batch_size, task.config.seed)
        self._epoch: Iterator[Batch] | None = None

    def __iter__(self) -> "FolderBatches":
        return self

    def __next__(self) -> Batch:
        epoch = self.indices.epoch
        batch = next(self.indices)
        if self._epoch is None or self.indices.epoch != epoch:
            ahead = torch.cat([batch[None], self.indices.rest_of_epoch()])
            order = self.task.chosen[torch.cat([self.task.workers.share(batch) for batch in ahead])]
            share = self.task.config.batch_size // self.task.workers.size
            self._epoch = self.task.ordered(self.task.train, order, share, self.indices.epoch)
        return next(self._epoch)

    def state_dict(self) -> dict[str, Any]:
        return self.indices.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.indices.load_state_dict(state_dict)
        self._epoch = None
