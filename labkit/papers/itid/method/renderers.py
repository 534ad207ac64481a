"""Renderers g(c, z): images from content and nuisance, so that every counterfactual is exact.

A renderer is called as `renderer(content, nuisance)`. `nuisances` is the size of Z; `neutral(content)` are images that
carry no nuisance, for the oracle. Contents are (n, channels, h, w) in [0, 1]; images stay in floating point.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError

Content = Float[Tensor, "n channels height width"]
Images = Float[Tensor, "n image_channels image_height image_width"]
Codes = Int[Tensor, " n"]

# red, green, blue, yellow, magenta, cyan, dark red, dark green, dark blue, grey
PALETTE = (
    (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 1.0),
    (0.0, 1.0, 1.0), (0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.5), (0.6, 0.6, 0.6),
)  # fmt: skip


@runtime_checkable
class Renderer(Protocol):
    @property
    def nuisances(self) -> int: ...
    def __call__(self, content: Tensor, nuisance: Tensor) -> Tensor: ...
    def neutral(self, content: Tensor) -> Tensor: ...


def require_codes(nuisance: Tensor, nuisances: int) -> None:
    """Raises InputError where a code is not one of 0 ... nuisances - 1."""
    if len(nuisance) and (int(nuisance.min()) < 0 or int(nuisance.max()) >= nuisances):
        raise InputError(
            f"nuisances are numbered 0 to {nuisances - 1}; got {int(nuisance.min())} to {int(nuisance.max())}."
        )


@dataclass(frozen=True)
class TwoColours:
    """The grey image in the red (z = 0) or the green (z = 1) channel, the other one empty [peer code: IRM]."""

    nuisances: int = 2

    def __call__(self, content: Content, nuisance: Codes) -> Images:
        require_codes(nuisance, self.nuisances)
        return F.one_hot(nuisance, 2)[:, :, None, None].to(content.dtype) * content

    def neutral(self, content: Content) -> Images:
        return content.expand(-1, 2, -1, -1) / 2


@dataclass(frozen=True)
class Backgrounds:
    """White foreground over a coloured background: m + (1 - m) * palette[z] per channel, m the grey image in [0, 1]."""

    palette: tuple[tuple[float, float, float], ...] = PALETTE

    @property
    def nuisances(self) -> int:
        return len(self.palette)

    def __call__(self, content: Content, nuisance: Codes) -> Images:
        require_codes(nuisance, self.nuisances)
        colour = torch.tensor(self.palette, dtype=content.dtype, device=content.device)[nuisance]
        return content + (1 - content) * colour[:, :, None, None]

    def neutral(self, content: Content) -> Images:
        return (content + (1 - content) * 0.5).expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class Shifts:
    """The image on a canvas with `margin` empty pixels on each side, moved by up to `reach` pixels each way.

    z = 0, ..., (2 reach + 1)^2 - 1. A set of transformations as nuisance is the second reading of ITID.
    """

    reach: int = 1
    margin: int = 2

    @property
    def nuisances(self) -> int:
        return (2 * self.reach + 1) ** 2

    def __call__(self, content: Content, nuisance: Codes) -> Images:
        require_codes(nuisance, self.nuisances)
        canvas, side = F.pad(content, [self.margin] * 4), 2 * self.reach + 1
        rows, columns = nuisance // side - self.reach, nuisance % side - self.reach
        height, width = canvas.shape[2:]
        y = (torch.arange(height, device=content.device) - rows[:, None]) % height
        x = (torch.arange(width, device=content.device) - columns[:, None]) % width
        n = torch.arange(len(canvas), device=content.device)[:, None, None]
        return canvas[n, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)

    def neutral(self, content: Content) -> Images:
        return F.pad(content, [self.margin] * 4)


@dataclass(frozen=True)
class Borders:
    """A frame of `width` pixels in the colour palette[z] over a colour image."""

    width: int = 4
    palette: tuple[tuple[float, float, float], ...] = PALETTE

    @property
    def nuisances(self) -> int:
        return len(self.palette)

    def covered(self, height: int, width: int) -> Tensor:
        """1 where the nuisance covers the image."""
        if min(height, width) <= 2 * self.width:
            raise InputError(f"a border of {self.width} pixels leaves nothing of a {height}x{width} image.")
        mask = torch.ones(height, width)
        mask[self.width : -self.width, self.width : -self.width] = 0
        return mask

    def __call__(self, content: Content, nuisance: Codes) -> Images:
        require_codes(nuisance, self.nuisances)
        colour = torch.tensor(self.palette, dtype=content.dtype, device=content.device)[nuisance]
        mask = self.covered(*content.shape[2:]).to(content)
        return content * (1 - mask) + mask * colour[:, :, None, None]

    def neutral(self, content: Content) -> Images:
        mask = self.covered(*content.shape[2:]).to(content)
        return content * (1 - mask) + mask * 0.5


@dataclass(frozen=True)
class Rotations:
    """The image turned by angles[z] degrees, bilinear, zeros outside.  [peer code: rotated MNIST]"""

    angles: tuple[float, ...] = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0)

    @property
    def nuisances(self) -> int:
        return len(self.angles)

    def __call__(self, content: Content, nuisance: Codes) -> Images:
        require_codes(nuisance, self.nuisances)
        radians = torch.tensor([math.radians(a) for a in self.angles], device=content.device)[nuisance]
        cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
        turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
        grid = F.affine_grid(turn.to(content.dtype), list(content.shape), align_corners=False)
        return F.grid_sample(content, grid, align_corners=False)

    def neutral(self, content: Content) -> Images:
        return content


@dataclass(frozen=True)
class Photographs:
    """Photographs: differences between domains cannot be rendered; z is the number of the domain."""

    nuisances: int

    def __call__(self, content: Content, nuisance: Codes) -> Images:
        raise InputError(
            "photographs cannot be rendered with another nuisance. Use IE-edit, which needs no renderer, or weights."
        )

    def neutral(self, content: Content) -> Images:
        raise InputError("photographs have no version without their nuisance: there is no oracle for them.")
