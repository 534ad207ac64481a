"""What the networks train on: the images that the config names, with zero mean and unit variance per channel."""

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.data import IMAGENET_MEAN, IMAGENET_STD, ImageSet, labelled_images, normalize, random_crop_flip
from labkit.papers.qnet.experiment.config import Config
from labkit.workbench.images import ImageTask, Pixels, TrainingBatches
from labkit.workbench.training import Workers


def load(config: Config, workers: Workers) -> ImageTask:
    """The task that `config.data` names, cut to the asked number of examples.

    Raises:
        DataError: the dataset is missing or damaged; says how to get it.
    """
    train, test = labelled_images(config.data, config.seed)
    if isinstance(train, ImageSet):
        statistics = train.first(min(config.train_examples or len(train), len(train))).statistics()
    else:
        statistics = IMAGENET_MEAN, IMAGENET_STD
    mean, std = torch.tensor(statistics, device=workers.device)

    def to_input(pixels: Pixels) -> Float[Tensor, "n c h w"]:
        return normalize(pixels, mean, std).contiguous(memory_format=memory_format(config))

    return ImageTask(train, test, to_input, workers, config.train_examples, config.test_examples, config.data_workers)


def memory_format(config: Config) -> torch.memory_format:
    return torch.channels_last if config.channels_last else torch.contiguous_format


def training_batches(task: ImageTask, config: Config) -> TrainingBatches:
    """Batches of the config's size; augmented after normalisation, so that a crop's border has the mean colour."""

    def augment(pixels: Pixels, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        cropped = random_crop_flip(task.to_input(pixels), padding=4, generator=generator)
        return cropped.contiguous(memory_format=memory_format(config))

    in_memory = isinstance(task.train, ImageSet)  # a folder's loader augments by itself
    return TrainingBatches(task, config.batch_size, config.seed, augment if config.augment and in_memory else None)
