"""Random label-preserving edits of images, for IE-edit: knowledge of the task instead of knowledge of z.

An edit is called as `edit(images, generator)` on images in floating point, and draws anew for each of them; `Edit` and
`EditTransform` take other pixels, too. That it preserves the label is an assumption about the task: `half_turn` makes
a 6 of a 9, and then ITID does not hold.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.itid.method.pixels import in_float

Images = Float[Tensor, "n channels height width"]
EditFunction = Callable[[Images, torch.Generator], Images]


def _uniform(images: Images, generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(len(images), *shape, generator=generator).to(images)


def color_matrix(images: Images, generator: torch.Generator) -> Images:
    """A random row-stochastic matrix over the channels, then each channel blended with the pixel's largest one.

    Raises:
        InputError: grey images, which this would leave as they are.
    """
    channels = images.shape[1]
    if channels < 2:
        raise InputError("grey images have no colours to mix; use another edit: shift, blur, turn or mirror.")
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
    return turned_by(images, angle.to(images.device))


def turned_by(images: Images, angle: Float[Tensor, " n"]) -> Images:
    """Each image turned by its own angle, in radians, bilinear, zeros outside."""
    height, width = images.shape[2:]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # a grid runs from -1 to 1 along both axes, whatever the sides: without their ratio a turn would shear
    rows = torch.stack([cos, -sin * (height / width), zero], 1), torch.stack([sin * (width / height), cos, zero], 1)
    grid = torch.nn.functional.affine_grid(torch.stack(rows, 1).to(images), list(images.shape), align_corners=False)
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
    "colour": color_matrix,
    "shift": shift,
    "blur": blur,
    "turn": turn,
    "half-turn": half_turn,
    "mirror": mirror,
}


@dataclass(frozen=True)
class EditTransform:
    """An edit as the `transform` of a Dataset: one image (channels, height, width), or a batch, of any pixel type.

    It draws from torch's own generator, which a DataLoader seeds apart in each of its workers.
    """

    family: EditFunction

    def __call__(self, image: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        if image.ndim not in (3, 4):
            raise InputError(
                f"an image must be (channels, height, width), or a batch of such; got {tuple(image.shape)}."
            )
        images = image if image.ndim == 4 else image[None]
        edited = in_float(lambda pixels: self.family(pixels, own_generator()), images)
        return edited if image.ndim == 4 else edited[0]


def own_generator() -> torch.Generator:
    """A generator seeded by torch's own one: it follows `torch.manual_seed`, and differs between loading processes."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())))
