"""Bicubic resizing with the numbers of MATLAB's imresize: Keys' kernel, widened when shrinking, borders mirrored.

Published super-resolution figures rest on this function: the low-resolution images are made with it.
"""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError


def bicubic_resize(images: Float[Tensor, "*batch h w"], height: int, width: int) -> Float[Tensor, "*batch h2 w2"]:
    """`images` at the new size, as imresize(image, [height width], 'bicubic') gives it before any rounding.

    Each axis is a product with a sparse matrix whose rows add up to 1. Computed in float64, given back in the dtype of
    `images`. Values may leave the range of the input: bicubic overshoots at edges.

    Raises:
        InputError: not a floating-point image, or a size below 1.
    """
    if not images.is_floating_point() or images.dim() < 2:
        raise InputError(
            f"bicubic_resize takes floating-point images (..., h, w); got {images.dtype}. Convert: x.float()"
        )
    if height < 1 or width < 1:
        raise InputError(f"the new size must be 1x1 or more; got {height}x{width}.")
    h, w = images.shape[-2:]
    rows, columns = (resize_matrix(before, after).to(images.device) for before, after in ((h, height), (w, width)))
    return (rows @ images.double() @ columns.T).to(images.dtype)


@functools.lru_cache(maxsize=64)
def resize_matrix(before: int, after: int) -> Float[Tensor, "after before"]:
    """The linear map of one axis: row i holds the weights of the old pixels in new pixel i.

    Pixel i of the new axis has its centre at (i + 1/2) / scale - 1/2 of the old one. When shrinking, the kernel is
    stretched by 1 / scale, so that it also is the low-pass filter.  Borders: mirrored, the edge pixel twice.
    """
    scale = after / before
    stretch = min(scale, 1.0)
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) / scale - 0.5
    reach = 2 / stretch
    first = torch.floor(centres - reach).long()
    taps = first[:, None] + torch.arange(math.ceil(2 * reach) + 2)
    weights = keys_kernel((centres[:, None] - taps) * stretch)
    weights = weights / weights.sum(1, keepdim=True)
    mirrored = taps.remainder(2 * before)
    mirrored = torch.where(mirrored < before, mirrored, 2 * before - 1 - mirrored)
    return torch.zeros(after, before, dtype=torch.float64).scatter_add_(1, mirrored, weights)


def keys_kernel(t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Keys' cubic with a = -1/2: 1.5|t|^3 - 2.5|t|^2 + 1 up to 1, -0.5|t|^3 + 2.5|t|^2 - 4|t| + 2 up to 2, then 0."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t <= 1, near, torch.where(t <= 2, far, torch.zeros_like(t)))
