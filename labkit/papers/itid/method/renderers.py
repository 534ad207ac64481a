"""Renderers g(c, z): images from content and nuisance, so that every counterfactual is exact.

A renderer is called as `renderer(content, nuisance)`. `nuisances` is the size of Z; `neutral(content)` are images that
carry no nuisance, for the oracle. Contents are (n, channels, h, w), in [0, 1] or in 8 bits; images have their type.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Int, Num
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.itid.method.edits import turned_by
from labkit.papers.itid.method.pixels import in_float

Content = Num[Tensor, "n channels height width"]
Images = Num[Tensor, "n image_channels image_height image_width"]
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


def _colours(palette: tuple[tuple[float, float, float], ...], nuisance: Codes, like: Tensor) -> Tensor:
    """The colour of each datum, (n, 3, 1, 1)."""
    return torch.tensor(palette, dtype=like.dtype, device=like.device)[nuisance][:, :, None, None]


@dataclass(frozen=True)
class TwoColors:
    """The grey image in the red (z = 0) or the green (z = 1) channel, the other one empty [peer code: IRM]."""

    nuisances: int = 2

    def __call__(self, content: Content, nuisance: Codes) -> Images:
        require_codes(nuisance, self.nuisances)
        return F.one_hot(nuisance, 2)[:, :, None, None].to(content.dtype) * content

    def neutral(self, content: Content) -> Images:
        return in_float(lambda grey: grey.expand(-1, 2, -1, -1) / 2, content)


@dataclass(frozen=True)
class Backgrounds:
    """White foreground over a coloured background: m + (1 - m) * palette[z] per channel, m the grey image in [0, 1]."""

    palette: tuple[tuple[float, float, float], ...] = PALETTE

    @property
    def nuisances(self) -> int:
        return len(self.palette)

    def __call__(self, content: Content, nuisance: Codes) -> Images:
        require_codes(nuisance, self.nuisances)
        return in_float(lambda m: m + (1 - m) * _colours(self.palette, nuisance, m), content)

    def neutral(self, content: Content) -> Images:
        return in_float(lambda m: (m + (1 - m) * 0.5).expand(-1, 3, -1, -1), content)


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
        mask = self.covered(*content.shape[2:]).to(content.device)
        return in_float(lambda x: x * (1 - mask) + mask * _colours(self.palette, nuisance, x), content)

    def neutral(self, content: Content) -> Images:
        mask = self.covered(*content.shape[2:]).to(content.device)
        return in_float(lambda x: x * (1 - mask) + mask * 0.5, content)


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
        return in_float(lambda images: turned_by(images, radians), content)

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


@dataclass(frozen=True)
class Cutouts:
    """Objects before the backgrounds of other photographs: what IE-swap needs where masks are known.

    Content is the photograph with the object's mask (above 0: object) as its last channel, the nuisance is a whole
    photograph, its own or another's: `(torch.cat([image, mask]), label, image)` is a sample.
    """

    nuisances: int = 0  # photographs are not numbered

    def __call__(self, content: Content, nuisance: Num[Tensor, "n image_channels height width"]) -> Images:
        if content.shape[1] != nuisance.shape[1] + 1:
            raise InputError(
                f"content must have one channel more than the photographs, the object's mask; got {content.shape[1]} "
                f"and {nuisance.shape[1]} channels."
            )
        return torch.where(content[:, -1:] > 0, content[:, :-1], nuisance)

    def neutral(self, content: Content) -> Images:
        """The object before black."""
        return torch.where(content[:, -1:] > 0, content[:, :-1], torch.zeros_like(content[:, :-1]))


@dataclass(frozen=True)
class OwnRenderer:
    """A function of the reader's own as renderer: `function(content, nuisance)` gives images.

    nuisances: their number, for IE-uniform; 0: not known.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    nuisances: int = 0

    def __call__(self, content: Tensor, nuisance: Tensor) -> Images:
        return self.function(content, nuisance)

    def neutral(self, content: Tensor) -> Images:
        raise InputError(
            "a function alone does not say what an image without nuisance is: give the renderer `neutral`."
        )
