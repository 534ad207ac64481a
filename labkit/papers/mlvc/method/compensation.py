"""MMC-Net: multiple-frames motion compensation, x̄_t from four references and the flows between them."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.papers.mlvc.method.layers import ChainedWarp, UNet, activation, conv, scaled


class Compensation(NamedTuple):
    """prediction: x̄_t. warped: W(x̂_{t-1}, v̂_t), what a codec with one reference and no network predicts.

    features: of the four references, each on the grid of x_t, side by side; Residual Refine-Net reads them too.
    chain: f_1..f_4 in pixels.
    """

    prediction: Float[Tensor, "batch 3 height width"]
    warped: Float[Tensor, "batch 3 height width"]
    features: Float[Tensor, "batch _ height width"]
    chain: Float[Tensor, "batch 4 2 height width"]


class MotionCompensator(nn.Module):
    """x̄_t = W(x̂_{t-1}, v̂_t) + U-Net(W(x̂_{t-1}, v̂_t), W(features of x̂_{t-k}, f_k), k = 1..4)  [official code]

    One extractor (a convolution) serves all references. The U-Net's last convolution starts at 0, so x̄ = the warp.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        features, channels = scaled(32, width), scaled(64, width)
        self.features = nn.Sequential(conv(3, features), activation())
        self.net = UNet(3 + 4 * features, channels, 3, entry=3, skip=2, exit=3)
        self.warp = ChainedWarp()

    def forward(
        self, references: Float[Tensor, "batch 4 3 height width"], flows: Float[Tensor, "batch 4 2 height width"]
    ) -> Compensation:
        """references: x̂_{t-1}..x̂_{t-4} in [0, 1]. flows: v̂_t, v̂_{t-1}, v̂_{t-2}, v̂_{t-3} in pixels."""
        maps = self.features(references.flatten(0, 1)).unflatten(0, references.shape[:2])
        aligned, chain = self.warp(maps, flows)
        warped = self.warp(references[:, :1], flows[:, :1])[0][:, 0]
        features = aligned.flatten(1, 2)
        return Compensation(warped + self.net(torch.cat([warped, features], dim=1)), warped, features, chain)
