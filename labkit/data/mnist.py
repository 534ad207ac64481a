"""MNIST; and Fashion-MNIST in its place where MNIST is missing."""

from labkit.data import registry
from labkit.data.images import ImageSet, check_split, fashion_mnist, read_idx


def mnist(split: str) -> ImageSet:
    """MNIST, (n, 1, 28, 28): 'train' has 60,000 images, 'test' 10,000, in the official order.

    Raises DataError when the files are missing or damaged.
    """
    check_split(split)
    folder = registry.require("mnist")
    prefix = "train" if split == "train" else "t10k"
    return ImageSet(
        images=read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")[:, None],
        labels=read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz").long(),
        classes=tuple("0123456789"),
        name="mnist",
        provenance=f"official MNIST files, {split} split",
    )


def mnist_or_fashion(split: str) -> ImageSet:
    """MNIST if its files are present, otherwise Fashion-MNIST; `name` of the set says which.

    Raises DataError when the one in use is damaged, or neither is there.
    """
    return fashion_mnist(split) if registry.status("mnist").state == "missing" else mnist(split)
