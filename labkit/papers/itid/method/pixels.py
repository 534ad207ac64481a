"""Pixels as they come: 8 bits or floating point of any precision, grey or colour, any size."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from labkit.errors import InputError

Images = Num[Tensor, "n channels height width"]


def to_float(images: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Pixels as arithmetic wants them: 8 bits become [0, 1], half precision is widened, others stay as they are.

    Raises:
        InputError: integers of another width, for nothing says which of them is white.
    """
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 255
    if not images.is_floating_point():
        raise InputError(f"pixels must be uint8 (0 to 255) or floating point; got {images.dtype}. Convert the images.")
    return images if images.dtype == torch.float64 else images.to(torch.float32)


def in_float(change: Callable[[Tensor], Tensor], images: Num[Tensor, "*shape"]) -> Num[Tensor, "*changed"]:
    """`change(images)`, computed in floating point and rounded back to the type that came in."""
    changed = change(to_float(images))
    if images.dtype == torch.uint8:
        changed = (changed * 255).round().clamp(0, 255)
    return changed.to(images.dtype)
