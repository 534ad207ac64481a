"""Labelled images by the name that a config gives them, whole in memory or as a folder."""

from labkit.data.cifar import cifar10
from labkit.data.image_folder import ImageFolder, imagenet
from labkit.data.images import ImageSet, best_available, digits, fashion_mnist
from labkit.errors import InputError

_IN_MEMORY = {"best": best_available, "digits": digits, "fashion-mnist": fashion_mnist, "cifar10": cifar10}


def labelled_images(name: str, seed: int) -> tuple[ImageSet, ImageSet] | tuple[ImageFolder, ImageFolder]:
    """Training and test images of the dataset `name`; `seed` decides the random crops of ImageNet's training images.

    Raises:
        InputError: there is no such dataset of images.
        DataError: the dataset is missing or damaged; says how to get it.
    """
    if name == "imagenet":
        return imagenet("train", seed), imagenet("val")
    if name not in _IN_MEMORY:
        raise InputError(f"there are no images '{name}'; there are {', '.join(_IN_MEMORY)}, imagenet.")
    return _IN_MEMORY[name]("train"), _IN_MEMORY[name]("test")
