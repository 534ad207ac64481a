"""The three transforms that carry what cannot be predicted: motion difference, residual, and the scales of its latents.

Each is a pair: `analysis` runs at the sender alone, `synthesis` at both ends.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.papers.mlvc.method.gdn import Gdn
from labkit.papers.mlvc.method.layers import scaled
from labkit.papers.mlvc.method.priors import FactorizedPrior

MOTION_CHANNELS, RESIDUAL_CHANNELS, LATENT_CHANNELS, FEATURE_CHANNELS = 192, 128, 192, 32
MOTION_GAIN, RESIDUAL_GAIN = 20.0, 32.0
"""What analysis transforms multiply their input by, and synthesis transforms divide by: a motion difference of one
pixel, a residual of eight grey levels is 1.  [ours]: weights absorb such a factor in a long training; in a short one
latents that begin far below the rounding step stay there."""
RESIDUAL_STEP = 26.0
"""Quantiser step that the residual's transform starts with, in grey levels: D + lambda R of a coefficient that is well
above it is smallest at sqrt(18 lambda / ln 2), 20 to 41 for the paper's lambdas.  [ours]"""
STRIDE = 64
"""Frame sides are multiples of it: 16 pixels to a latent, four latents to a hyper-latent."""


def down(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """5 x 5, stride 2."""
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=bias)


def up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """5 x 5 transposed, stride 2."""
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)


def analysis(inputs: int, channels: int, latents: int) -> nn.Sequential:
    """Four convolutions by 2, GDN after the first three; the last has no bias.  [official code]"""
    return nn.Sequential(
        down(inputs, channels), Gdn(channels),
        down(channels, channels), Gdn(channels),
        down(channels, channels), Gdn(channels),
        down(channels, latents, bias=False),
    )  # fmt: skip


def synthesis(latents: int, channels: int, outputs: int) -> nn.Sequential:
    """The mirror image, with IGDN.  [official code]"""
    return nn.Sequential(
        up(latents, channels), Gdn(channels, inverse=True),
        up(channels, channels), Gdn(channels, inverse=True),
        up(channels, channels), Gdn(channels, inverse=True),
        up(channels, outputs),
    )  # fmt: skip


class MotionAutoencoder(nn.Module):
    """MVD encoder and decoder: d_t (2 channels, in units of 20 pixels) <-> m_t at 1/16 of the size.  [official code]

    It starts as what codecs did before there were networks: two latents hold the means of d_t over blocks in steps of
    half a pixel, the others nothing. From a random start a short training never gets there.  [ours]
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = scaled(MOTION_CHANNELS, width)
        self.analysis, self.synthesis = analysis(2, channels, channels), synthesis(channels, channels, 2)
        self.prior = FactorizedPrior(channels)
        _start_as_block_means(self.analysis, self.synthesis, steps=2.0)

    def encode(self, difference: Float[Tensor, "batch 2 height width"]) -> Float[Tensor, "batch _ _ _"]:
        """m_t = g_a(d_t)"""
        return self.analysis(difference * MOTION_GAIN)

    def decode(self, latent: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch 2 height width"]:
        """d̂_t = g_s(m̂_t)"""
        return self.synthesis(latent) * (1 / MOTION_GAIN)


class ResidualAutoencoder(nn.Module):
    """r_t (RGB) -> y_t at 1/16 of the size; ŷ_t -> r̂'_t, features of full size.  [official code]

    The latents get a scale each from `Hyperprior`. It starts as what codecs did before there were networks, too:
    three features are the residual's R, G and B as far as low frequencies of 16 x 16 blocks hold them.  [ours]
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels, latents = scaled(RESIDUAL_CHANNELS, width), scaled(LATENT_CHANNELS, width)
        self.analysis = analysis(3, channels, latents)
        self.synthesis = synthesis(latents, channels, scaled(FEATURE_CHANNELS, width))
        _start_as_walsh_transform(self.analysis, self.synthesis, step=RESIDUAL_STEP / 255 * RESIDUAL_GAIN)

    def encode(self, residual: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch _ _ _"]:
        """y_t = g_a(r_t)"""
        return self.analysis(residual * RESIDUAL_GAIN)

    def decode(self, latent: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ height width"]:
        """r̂'_t = g_s(ŷ_t)"""
        return self.synthesis(latent)


class Hyperprior(nn.Module):
    """|y| -> z at 1/64 of the frame; ẑ -> sigma of each ŷ.  [official code]"""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels, latents = scaled(RESIDUAL_CHANNELS, width), scaled(LATENT_CHANNELS, width)
        self.analysis = nn.Sequential(
            nn.Conv2d(latents, channels, 3, padding=1), nn.ReLU(),
            down(channels, channels), nn.ReLU(),
            down(channels, channels),
        )  # fmt: skip
        self.synthesis = nn.Sequential(
            up(channels, channels), nn.ReLU(),
            up(channels, channels), nn.ReLU(),
            nn.Conv2d(channels, latents, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        last = self.synthesis[-2]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        # [ours]: sigma starts near 1 everywhere; around 0 half of it would sit in the dead half of the last ReLU
        nn.init.ones_(last.bias)
        self.prior = FactorizedPrior(channels)

    def encode(self, y: Float[Tensor, "batch latents height width"]) -> Float[Tensor, "batch _ _ _"]:
        """z = h_a(|y|)"""
        return self.analysis(torch.abs(y))

    def decode(self, latent: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """sigma = h_s(ẑ), not negative"""
        return self.synthesis(latent)


def _layers(analysis: nn.Sequential, synthesis: nn.Sequential) -> tuple[list[nn.Conv2d], list[nn.ConvTranspose2d]]:
    return (
        [layer for layer in analysis if isinstance(layer, nn.Conv2d)],
        [layer for layer in synthesis if isinstance(layer, nn.ConvTranspose2d)],
    )


def _free(analysis: nn.Sequential, synthesis: nn.Sequential, own: Sequence[int]) -> None:
    """The first own[k] channels at level k (0: full size, 4: latents) hear of nothing yet, and GDN leaves them alone.

    The latents hear of nothing at all: what is at its random start stays unheard until training gives it a weight.
    """
    downs, ups = _layers(analysis, synthesis)
    for level, conv in enumerate(downs, 1):
        conv.weight[: own[level]] = 0
        if conv.bias is not None:
            conv.bias[: own[level]] = 0
    downs[-1].weight.zero_()
    for level, transposed in zip((3, 2, 1, 0), ups, strict=True):
        transposed.weight[:, : own[level]] = 0
        assert transposed.bias is not None
        transposed.bias[: own[level]] = 0
    divisions = [layer for layer in (*analysis, *synthesis) if isinstance(layer, Gdn)]
    for level, gdn in zip((1, 2, 3, 3, 2, 1), divisions, strict=True):
        gdn.gamma_root[: own[level]] = 0


@torch.no_grad()
def _start_as_block_means(analysis: nn.Sequential, synthesis: nn.Sequential, steps: float) -> None:
    """The first two channels run through all layers alone: low-pass and halved, then enlarged again.

    The filter is (1, 4, 6, 4, 1) / 16 along each side, whose sums are 1 on the way down and 1/4 at each of the four
    places that a transposed convolution writes on the way up.
    """
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    low_pass = torch.outer(line, line)
    downs, ups = _layers(analysis, synthesis)
    _free(analysis, synthesis, (2, 2, 2, 2, 2))
    for own in range(2):
        for conv in downs:
            conv.weight[own, own] = low_pass * (steps if conv is downs[-1] else 1)
        for transposed in ups:
            transposed.weight[own, own] = 4 * low_pass / (steps if transposed is ups[0] else 1)


Band = tuple[int, int, int]
"""(color, frequency along x, frequency along y), frequencies from 0 to 2^k - 1 at level k."""


@torch.no_grad()
def _start_as_walsh_transform(analysis: nn.Sequential, synthesis: nn.Sequential, step: float) -> None:
    """Each layer splits bands into sums and differences of 2 x 2 neighbours, orthonormal; the way up joins them.

    Four layers make the Walsh transform of 16 x 16 blocks, of which the latents hold the lowest frequencies, one
    quantiser step for all of them. Whatever is left out is lost; all else comes back.
    """
    downs, ups = _layers(analysis, synthesis)
    levels = _lowest_bands(downs[-1].out_channels, downs[0].out_channels)
    _free(analysis, synthesis, [len(bands) for bands in levels])
    for level, conv, transposed in zip((1, 2, 3, 4), downs, ups[::-1], strict=True):
        scale = step if level == 4 else 1.0
        position = {band: number for number, band in enumerate(levels[level - 1])}
        kernels = np.zeros((len(levels[level]), len(position), 5, 5), np.float32)
        for own, band in enumerate(levels[level]):
            # above the first level are R, G and B, of which a color is a mixture
            parts = enumerate(_COLORS[band[0]]) if level == 1 else [(position[_parent(band)], 1.0)]
            for parent, part in parts:
                kernels[own, parent] = part * np.outer(_SPLIT[_is_sum(band[2])], _SPLIT[_is_sum(band[1])])
        start = torch.tensor(kernels)
        conv.weight[: len(start), : len(position)] = start / scale
        transposed.weight[: len(start), : len(position)] = start * scale


_COLORS = ((3**-0.5, 3**-0.5, 3**-0.5), (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5))
"""Lightness and two differences of R, G and B, orthonormal."""


def _parent(band: Band) -> Band:
    return band[0], band[1] // 2, band[2] // 2


_SPLIT = {True: np.array([0, 0, 1, 1, 0]) / 2**0.5, False: np.array([0, 0, 1, -1, 0]) / 2**0.5}
"""Sum and difference of two neighbours."""


def _is_sum(frequency: int) -> bool:
    """Whether the sum, not the difference, of neighbours makes this frequency of the one half as high."""
    return frequency % 2 == frequency // 2 % 2


def _lowest_bands(latents: int, channels: int) -> list[list[Band]]:
    """Bands at the levels 0 to 4: as many as there are latents, and what they come from within `channels` a level.

    Differences of color count as three frequencies more: they change less from place to place.
    """
    order = sorted(
        itertools.product(range(3), range(16), range(16)), key=lambda b: (math.hypot(*b[1:]) + 3 * (b[0] > 0), b)
    )
    levels: list[list[Band]] = [[(0, 0, 0), (1, 0, 0), (2, 0, 0)], [], [], [], []]
    for band in order:
        line = [band]
        while len(line) < 4:
            line.insert(0, _parent(line[0]))
        new = [level for level in (1, 2, 3) if line[level - 1] not in levels[level]]
        if len(levels[4]) < latents and all(len(levels[level]) < channels for level in new):
            for level in (*new, 4):
                levels[level].append(line[level - 1])
    return levels
