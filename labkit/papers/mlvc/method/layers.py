"""What all networks of the paper are made of: 3 x 3 convolutions, residual blocks, one U-Net, the chained warp."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.kernels.flow_warp import chained_warp

SLOPE = 0.1
"""Of LeakyReLU below 0, in all networks.  [official code]"""
FLOW_UNIT = 20.0
"""Pixels in one unit of every flow that a network sees.  [official code]"""
Maps = Float[Tensor, "batch _ height width"]


def scaled(channels: int, width: float) -> int:
    """Channels at a width multiplier: a multiple of 4, at least 4; the paper's own number at 1.  [ours]"""
    return channels if width == 1 else max(4, 4 * round(channels * width / 4))


def conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3 x 3, "same" zero padding."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The last layer of a network that corrects something: it starts by correcting nothing.  [inferred]"""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


@torch.no_grad()
def first_three(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer that turns features into RGB: it starts by taking the first three as they are.  [ours]"""
    zero(layer).weight[:, :3, 1, 1] = torch.eye(3)
    return layer


def activation() -> nn.LeakyReLU:
    return nn.LeakyReLU(SLOPE)


class ChainedWarp(nn.Module):
    """`labkit.kernels.flow_warp.chained_warp` as a module, so that the codec can put exact arithmetic in its place.

    In mixed precision images and flows are computed in float32: half a coordinate is whole pixels beyond 1024.
    """

    def forward(
        self,
        images: Float[Tensor, "batch refs channels height width"],
        flows: Float[Tensor, "batch refs 2 height width"],
    ) -> tuple[Float[Tensor, "batch refs channels height width"], Float[Tensor, "batch refs 2 height width"]]:
        kind = torch.promote_types(torch.promote_types(images.dtype, flows.dtype), torch.float32)
        return chained_warp(images.to(kind), flows.to(kind))


class Up2(nn.Upsample):
    """Twice as large, bilinear."""

    def __init__(self) -> None:
        super().__init__(scale_factor=2, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))  [official code]"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels)

    def forward(self, x: Maps) -> Maps:
        return x + self.second(torch.relu(self.first(x)))


class UNet(nn.Module):
    """Three scales; the coarser ones are added, bilinearly enlarged.  [official code]

        s0 = lrelu(conv(RB^entry(conv(x))))       s1 = lrelu(conv_2(s0))        s2 = lrelu(conv_2(s1))
        t1 = RB(s1) + up(RB(s2))                  t0 = RB^skip(s0) + up(RB(t1))
        y = conv(RB^exit(t0))

    conv_2 has stride 2. Height and width must be multiples of 4. The last convolution starts at 0.

    Args:
        entry, skip, exit: numbers of residual blocks: 3, 2, 3 in MMC-Net; 1, 1, 2 in Residual Refine-Net.
    """

    def __init__(self, inputs: int, channels: int, outputs: int, entry: int, skip: int, exit: int) -> None:
        super().__init__()

        def blocks(count: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))

        self.entry = nn.Sequential(conv(inputs, channels), blocks(entry), conv(channels, channels), activation())
        self.down1 = nn.Sequential(conv(channels, channels, stride=2), activation())
        self.down2 = nn.Sequential(conv(channels, channels, stride=2), activation())
        self.skip0, self.skip1, self.block1, self.block2 = blocks(skip), blocks(1), blocks(1), blocks(1)
        self.up = Up2()
        self.exit = nn.Sequential(blocks(exit), zero(conv(channels, outputs)))

    def forward(self, x: Maps) -> Maps:
        s0 = self.entry(x)
        s1 = self.down1(s0)
        t1 = self.skip1(s1) + self.up(self.block2(self.down2(s1)))
        return self.exit(self.skip0(s0) + self.up(self.block1(t1)))


def parameters_of(module: nn.Module) -> int:
    return sum(math.prod(p.shape) for p in module.parameters())
