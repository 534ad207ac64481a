"""Datasets: what labkit knows about them (`registry`), and loaders that use only files that are what they should be."""

from labkit.data.augment import random_crop_flip
from labkit.data.cifar import CIFAR10_MEAN, CIFAR10_STD, cifar10
from labkit.data.classification import labelled_images
from labkit.data.image_folder import IMAGENET_MEAN, IMAGENET_STD, ImageFolder, image_batches, imagenet
from labkit.data.images import ImageSet, best_available, digits, fashion_mnist, normalize

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ImageFolder",
    "ImageSet",
    "best_available",
    "cifar10",
    "digits",
    "fashion_mnist",
    "image_batches",
    "imagenet",
    "labelled_images",
    "normalize",
    "random_crop_flip",
]
