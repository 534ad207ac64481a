"""What the networks train on and are measured with: pairs of pictures for the regression tasks, labelled images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.data import labelled_images, random_crop_flip
from labkit.data import superresolution as sr
from labkit.errors import InputError
from labkit.papers.brelu.experiment.config import Config
from labkit.vision.bicubic import bicubic_resize
from labkit.workbench.images import ImageTask, TrainingBatches
from labkit.workbench.training import ShuffledIndices, Workers

Pair = tuple[Float[Tensor, "_ _"], Float[Tensor, "_ _"]]  # (what the network gets, what it should give), 0..255

INPUT_RATIO = 255.0  # r of pixel - 128 where the network's input is (pixel - 128) / 255: sigma is 1


@dataclass(frozen=True, eq=False)
class Pictures:
    """A regression task.

    inputs, targets: training patches (n, 1, p, p) in 0..255, on the workers' device. tests: by name of the test set,
    with the pixels to shave. workers: the processes that share every batch.
    """

    name: str
    inputs: Float[Tensor, "n 1 p p"]
    targets: Float[Tensor, "n 1 p p"]
    tests: dict[str, tuple[list[Pair], int]]
    workers: Workers

    @property
    def first_test(self) -> str:
        return next(iter(self.tests))


def superresolution(config: Config, workers: Workers) -> Pictures:
    """Patches of the bicubic image, and whole test images, for each factor of `config.upscales`.

    Raises DataError when a set that is asked for is not there.
    """
    training, tests = _sets(config)
    pairs = [bicubic_pair(image, scale) for scale in config.upscales for image in training.images]
    inputs, targets = random_patches(pairs, config.patches, config.patch_size, config.seed)
    test_pairs = {
        f"{test.name} x{scale}": ([bicubic_pair(image, scale) for image in test.images], scale)
        for test in tests
        for scale in config.upscales
    }
    return Pictures(training.name, inputs.to(workers.device), targets.to(workers.device), test_pairs, workers)


def artifacts(config: Config, workers: Workers) -> Pictures:
    """Patches of compressed photographs; nothing is shaved, as in the paper's protocol."""
    compress = {"jpeg": sr.jpeg_pair, "hevc": sr.hevc_pair}[config.codec]
    training, tests = _sets(config)
    if training.name != "bundled train":
        bsd = sr.photographs("BSD68")
        tests = [bsd.first(min(config.test_images or len(bsd), len(bsd)))]
    pairs = [compress(image, config.quality) for image in training.images]
    inputs, targets = random_patches(pairs, config.patches, config.artifact_patch_size, config.seed)
    test_pairs = {test.name: ([compress(image, config.quality) for image in test.images], 0) for test in tests}
    return Pictures(training.name, inputs.to(workers.device), targets.to(workers.device), test_pairs, workers)


def bicubic_pair(image: Float[Tensor, "h2 w2"], scale: int) -> Pair:
    """(bicubic, original): shrunk and enlarged again by `scale` with MATLAB's imresize, rounded; cropped to fit."""
    original = sr.crop_to_multiple(image, scale)
    h, w = original.shape
    small = bicubic_resize(original, h // scale, w // scale)
    return bicubic_resize(small, h, w).round().clamp(0, 255), original


def _sets(config: Config) -> tuple[sr.Photographs, list[sr.Photographs]]:
    name = config.photographs
    if name == "best":
        name = "T91" if sr.available("T91") else "bundled"
    if name == "bundled":
        return sr.photographs("bundled train"), [sr.photographs("bundled test")]
    return sr.photographs(name), [sr.photographs(test) for test in config.test_sets]


def random_patches(pairs: list[Pair], count: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` patches at random places, turned and mirrored at random; larger images give more of them.

    Raises InputError when no image is as large as a patch.
    """
    pairs = [pair for pair in pairs if min(pair[0].shape) >= size]
    if not pairs:
        raise InputError(f"no photograph is as large as a patch of {size} pixels; choose a smaller patch_size.")
    random = np.random.default_rng(seed)
    areas = np.array([pair[0].numel() for pair in pairs], dtype=float)
    inputs, targets = torch.empty(2, count, 1, size, size)
    for i, which in enumerate(random.choice(len(pairs), count, p=areas / areas.sum())):
        h, w = pairs[which][0].shape
        top, left, turns = random.integers(h - size + 1), random.integers(w - size + 1), int(random.integers(4))
        mirrored = random.integers(2) == 1
        for out, image in zip((inputs, targets), pairs[which], strict=True):
            patch = torch.rot90(image[top : top + size, left : left + size], turns)
            out[i, 0] = patch.flip(1) if mirrored else patch
    return inputs, targets


class PatchBatches:
    """Endless training batches (inputs, targets), this process's share of each; knows its own position."""

    def __init__(self, pictures: Pictures, batch_size: int, seed: int) -> None:
        self.pictures = pictures
        self.indices = ShuffledIndices(len(pictures.inputs), batch_size, seed)

    def __iter__(self) -> "PatchBatches":
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        mine = self.pictures.workers.share(next(self.indices)).to(self.pictures.inputs.device)
        batch = (self.pictures.inputs[mine], self.pictures.targets[mine])
        return tuple(part.contiguous(memory_format=torch.channels_last) for part in batch)  # type: ignore[return-value]

    def state_dict(self) -> dict[str, Any]:
        return self.indices.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.indices.load_state_dict(state_dict)


# -- labelled images --------------------------------------------------------------------------------------------------

SIGMA = {"digits": 0.35, "fashion-mnist": 0.35, "cifar10": 0.25, "cifar10-jpeg": 0.25, "imagenet": 0.226}
"""Standard deviation of the network's input, pixels in 0..1, one for all channels; 0.226 is the [official code]'s."""


def labelled(config: Config, workers: Workers) -> ImageTask:
    """The classification task that `config.classification` names; the network's input is (pixel - 128) / (255 sigma).

    Raises DataError when the dataset is missing or damaged; says how to get it.
    """
    options = config.classification
    train, test = labelled_images(options.images, config.seed)
    ratio = 255 * SIGMA[train.name]

    def to_input(pixels: Tensor) -> Float[Tensor, "n c h w"]:
        return ((pixels.float() - 128) / ratio).contiguous(memory_format=torch.channels_last)

    return ImageTask(
        train, test, to_input, workers, options.train_examples, options.test_examples, options.data_workers
    )


def ratio_of(task: ImageTask) -> float:
    """r of the input: 255 sigma, the same for all channels.  [official code]"""
    return 255 * SIGMA[task.name]


def training_batches(task: ImageTask, config: Config) -> TrainingBatches:
    """Clothes and photographs are mirrored at random; digits stay as they are; ImageNet's loader crops and mirrors."""

    def mirrored(pixels: Tensor, generator: torch.Generator) -> Tensor:
        chosen = torch.rand(len(pixels), generator=generator).to(pixels.device) < 0.5
        return task.to_input(torch.where(chosen[:, None, None, None], pixels.flip(3), pixels))

    def cropped(pixels: Tensor, generator: torch.Generator) -> Tensor:
        return task.to_input(random_crop_flip(pixels, padding=4, generator=generator))

    augment = {"fashion-mnist": mirrored, "cifar10": cropped, "cifar10-jpeg": cropped}.get(task.name)
    return TrainingBatches(task, config.classification.batch_size, config.seed, augment)
