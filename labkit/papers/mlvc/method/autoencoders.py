"""The three transforms that carry what cannot be predicted: motion difference, residual, and the scales of its latents.

Each is a pair: `analysis` runs at the sender alone, `synthesis` at both ends.
"""

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

    The latents get a scale each from `Hyperprior`.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels, latents = scaled(RESIDUAL_CHANNELS, width), scaled(LATENT_CHANNELS, width)
        self.analysis = analysis(3, channels, latents)
        self.synthesis = synthesis(latents, channels, scaled(FEATURE_CHANNELS, width))

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


@torch.no_grad()
def _start_as_block_means(analysis: nn.Sequential, synthesis: nn.Sequential, steps: float) -> None:
    """The first two channels run through all layers alone: low-pass and halved, then enlarged again.

    The filter is (1, 4, 6, 4, 1) / 16 along each side, whose sums are 1 on the way down and 1/4 at each of the four
    places that a transposed convolution writes on the way up. GDN leaves the two alone where their row of gamma is 0.
    """
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    low_pass = torch.outer(line, line)
    downs = [layer for layer in analysis if isinstance(layer, nn.Conv2d)]
    ups = [layer for layer in synthesis if isinstance(layer, nn.ConvTranspose2d)]
    for conv in downs:
        conv.weight[:2] = 0
        if conv.bias is not None:
            conv.bias[:2] = 0
    downs[-1].weight.zero_()
    for transposed in ups:
        transposed.weight[:, :2] = 0
        assert transposed.bias is not None
        transposed.bias[:2] = 0
    for own in range(2):
        for conv in downs:
            conv.weight[own, own] = low_pass * (steps if conv is downs[-1] else 1)
        for transposed in ups:
            transposed.weight[own, own] = 4 * low_pass / (steps if transposed is ups[0] else 1)
    for layer in (*analysis, *synthesis):
        if isinstance(layer, Gdn):
            layer.gamma_root[:2] = 0
