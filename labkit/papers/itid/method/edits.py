"""Random label-preserving edits of images, for IE-edit: knowledge of the task instead of knowledge of z.

An edit is called as `edit(images, generator)` and draws anew for each image. That it preserves the label is an
assumption about the task: `half_turn` makes a 6 of a 9, and then ITID does not hold.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "n channels height width"]
EditFunction = Callable[[Images, torch.Generator], Images]


def _uniform(images: Images, generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(len(images), *shape, generator=generator).to(images)


def colour_matrix(images: Images, generator: torch.Generator) -> Images:
    """A random row-stochastic matrix over the channels, then each channel blended with the pixel's largest one."""
    channels = images.shape[1]
    mix = _uniform(images, generator, channels, channels)
    mixed = torch.einsum("nij,njhw->nihw", mix / mix.sum(2, keepdim=True), images)
    kept = _uniform(images, generator, channels, 1, 1)
    return kept * mixed + (1 - kept) * mixed.amax(1, keepdim=True)


def shift(images: Images, generator: torch.Generator, reach: int = 1) -> Images:
    """Each image moved by up to `reach` pixels each way, periodically."""
    n, _, height, width = images.shape
    move = torch.randint(-reach, reach + 1, (2, n, 1), generator=generator).to(images.device)
    y = (torch.arange(height, device=images.device) - move[0]) % height
    x = (torch.arange(width, device=images.device) - move[1]) % width
    index = torch.arange(n, device=images.device)[:, None, None]
    return images[index, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def blur(images: Images, generator: torch.Generator) -> Images:
    """Blended with its 3x3 mean by a random weight."""
    smooth = torch.nn.functional.avg_pool2d(images, 3, 1, padding=1, count_include_pad=False)
    weight = _uniform(images, generator, 1, 1, 1)
    return images + weight * (smooth - images)


def turn(images: Images, generator: torch.Generator, degrees: float = 45.0) -> Images:
    """Each image turned by up to `degrees` either way, bilinear, zeros outside."""
    angle = (torch.rand(len(images), generator=generator) * 2 - 1) * math.radians(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1).to(images)
    grid = torch.nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, align_corners=False)


def half_turn(images: Images, generator: torch.Generator) -> Images:
    """Turned by 180 degrees, half of the time. For digits this is *not* label-preserving."""
    turned = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(turned[:, None, None, None], images.flip((2, 3)), images)


def mirror(images: Images, generator: torch.Generator) -> Images:
    """Mirrored left to right, half of the time."""
    turned = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(turned[:, None, None, None], images.flip(3), images)


EDITS: dict[str, EditFunction] = {
    "colour": colour_matrix,
    "shift": shift,
    "blur": blur,
    "turn": turn,
    "half-turn": half_turn,
    "mirror": mirror,
}
