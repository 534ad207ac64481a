"""Image classification for a training loop: endless batches, calibration images, test batches, accuracy."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from labkit.data import ImageFolder, ImageSet, image_batches
from labkit.workbench.training import CROPS, ShuffledIndices, Workers, generator_at

Pixels = UInt8[Tensor, "batch channels height width"]
Inputs = Float[Tensor, "batch channels height width"]
Labels = Int64[Tensor, " batch"]

EVALUATION_BATCH = 250  # images: what one batch touches stays in a CPU's cache


@dataclass(eq=False)
class ImageTask:
    """Images to learn from and to be tested on. Pixels stay bytes until a batch is made: a quarter of the memory.

    Args:
        train, test: a set in memory is moved to the workers' device; a folder is decoded while the device computes.
        to_input: from pixels to what the network gets.
        workers: the processes that share every batch.
        train_examples, test_examples: how many images to use, where there are so many; 0: all.
        data_workers: processes that decode a folder's images.
    """

    train: ImageSet | ImageFolder
    test: ImageSet | ImageFolder
    to_input: Callable[[Pixels], Inputs]
    workers: Workers
    train_examples: int = 0
    test_examples: int = 0
    data_workers: int = 0

    def __post_init__(self) -> None:
        self.train_examples = min(self.train_examples or len(self.train), len(self.train))
        self.test_examples = min(self.test_examples or len(self.test), len(self.test))
        if isinstance(self.train, ImageSet) and isinstance(self.test, ImageSet):
            self.train, self.test = self.train.to(self.workers.device), self.test.to(self.workers.device)

    @property
    def name(self) -> str:
        """Which set was really used."""
        return self.train.name

    @property
    def classes(self) -> int:
        return len(self.train.classes)

    @property
    def channels(self) -> int:
        return self.train.images.shape[1] if isinstance(self.train, ImageSet) else 3

    @property
    def image_size(self) -> int:
        return self.train.images.shape[-1] if isinstance(self.train, ImageSet) else self.train.size

    def ordered(
        self, images: ImageSet | ImageFolder, order: Int64[Tensor, " n"], batch_size: int, epoch: int = 0
    ) -> Iterator[tuple[Pixels, Labels]]:
        """Pixels and labels of `images` in exactly this order, on the workers' device; the last batch may be smaller.

        `epoch` decides the random crops of a folder's training images.
        """
        if isinstance(images, ImageSet):
            for part in order.to(images.labels.device).split(batch_size):
                yield images.images[part], images.labels[part]
            return
        for pixels, labels in image_batches(images, order, batch_size, epoch=epoch, workers=self.data_workers):
            device = self.workers.device
            yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def calibration_inputs(self, count: int, batch_size: int) -> Iterator[Inputs]:
        """The first `count` training images as network inputs, without labels and without augmentation."""
        plain = self.train.without_augmentation() if isinstance(self.train, ImageFolder) else self.train
        order = chosen(plain, min(count, self.train_examples))
        yield from (self.to_input(pixels) for pixels, _ in self.ordered(plain, order, batch_size))

    def test_batches(self) -> Iterator[tuple[Pixels, Labels]]:
        """This process's share of the test images, as pixels."""
        mine = chosen(self.test, self.test_examples)[self.workers.rank :: self.workers.size]
        yield from self.ordered(self.test, mine, EVALUATION_BATCH)


def chosen(images: ImageSet | ImageFolder, count: int) -> Int64[Tensor, " count"]:
    """Indices of `count` images: the first of a set in memory; of a folder, which is sorted by class, evenly spread."""
    every = torch.arange(count)
    return every * len(images) // count if isinstance(images, ImageFolder) else every


class TrainingBatches:
    """Endless batches (inputs, labels), this process's share of each; knows its own position, for checkpoints.

    Args:
        batch_size: images per batch, over all processes together.
        augment: from pixels and a generator to the network's input; None: `task.to_input`.
    """

    def __init__(
        self,
        task: ImageTask,
        batch_size: int,
        seed: int,
        augment: Callable[[Pixels, torch.Generator], Inputs] | None = None,
    ) -> None:
        self.task, self.seed, self.augment = task, seed, augment
        self.indices = ShuffledIndices(task.train_examples, batch_size, seed)
        self._epoch: Iterator[tuple[Pixels, Labels]] | None = None

    def __iter__(self) -> "TrainingBatches":
        return self

    def __next__(self) -> tuple[Inputs, Labels]:
        epoch, batch = self.indices.epoch, next(self.indices)
        if self._epoch is None or self.indices.epoch != epoch:  # one loader an epoch, opened where a checkpoint left it
            self._epoch = self._rest_of_epoch(batch)
        pixels, labels = next(self._epoch)
        if self.augment is None:
            return self.task.to_input(pixels), labels
        return self.augment(pixels, self._generator()), labels

    def _rest_of_epoch(self, batch: Int64[Tensor, " batch"]) -> Iterator[tuple[Pixels, Labels]]:
        workers, images = self.task.workers, self.task.train
        ahead = torch.cat([batch[None], self.indices.rest_of_epoch()])
        order = chosen(images, self.task.train_examples)[torch.cat([workers.share(one) for one in ahead])]
        return self.task.ordered(images, order, len(batch) // workers.size, self.indices.epoch)

    def _generator(self) -> torch.Generator:
        """Depends on seed, position and process alone: nothing to save, nothing shared between processes."""
        return generator_at(self.seed, CROPS, self.indices.epoch, self.indices.position, self.task.workers.rank)

    def state_dict(self) -> dict[str, Any]:
        return self.indices.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.indices.load_state_dict(state_dict)
        self._epoch = None


@torch.no_grad()
def accuracy(scores: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], workers: Workers) -> float:
    """Share of all processes' images that are put into the right class, in percent.

    Args:
        scores: from the images of a batch to one score per class, (n, classes) or (n, classes, 1, 1).
        batches: this process's share of the images, with their labels.
    """
    counts = torch.zeros(2, dtype=torch.float64, device=workers.device)
    for images, labels in batches:
        correct = (scores(images).flatten(1).argmax(1) == labels).sum()
        counts += torch.stack([correct, correct.new_tensor(len(labels))])
    right, total = workers.mean(counts).tolist()
    return 100 * right / total
