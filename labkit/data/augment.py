"""Augmentation of whole batches, on whatever device they live."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from labkit.errors import InputError


def random_crop_flip(
    images: Shaped[Tensor, "n c h w"], padding: int, generator: torch.Generator
) -> Shaped[Tensor, "n c h w"]:
    """Each image padded by `padding` zeros on all sides, cropped at a random offset, mirrored with probability 1/2.

    The usual CIFAR augmentation (padding 4), one gather for the batch. Draws come from `generator` on its own device:
    with a CPU generator, a GPU run sees the same crops as a CPU run.
    """
    if padding < 0:
        raise InputError(f"padding must be 0 or more pixels; got {padding}.")
    n, c, h, w = images.shape
    draw = {"generator": generator, "device": generator.device}
    top, left = torch.randint(0, 2 * padding + 1, (2, n, 1), **draw).to(images.device)  # type: ignore[call-overload]
    mirrored = (torch.rand(n, 1, **draw) < 0.5).to(images.device)  # type: ignore[call-overload]

    rows = top + torch.arange(h, device=images.device)  # (n, h): the rows of the padded image that each crop shows
    columns = torch.arange(w, device=images.device).expand(n, w)
    columns = left + torch.where(mirrored, w - 1 - columns, columns)  # (n, w)
    padded = torch.nn.functional.pad(images, (padding, padding, padding, padding))
    which = torch.arange(n, device=images.device)
    channel = torch.arange(c, device=images.device)
    return padded[which[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]
