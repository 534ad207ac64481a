"""Residual Refine-Net: the decoded residual, corrected by what the references show."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.papers.mlvc.method.layers import UNet, activation, conv, scaled


class ResidualRefiner(nn.Module):
    """r̂_t's correction from r̂'_t, x̄_t and the warped features of the four references.  [official code]

    The U-Net's last convolution starts at 0.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        features = scaled(32, width)
        self.image = nn.Sequential(conv(3, features), activation())
        self.net = UNet(6 * features, scaled(48, width), 3, entry=1, skip=1, exit=2)

    def forward(
        self,
        residual: Float[Tensor, "batch features height width"],
        prediction: Float[Tensor, "batch 3 height width"],
        references: Float[Tensor, "batch _ height width"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """residual: r̂'_t. prediction: x̄_t. references: `Compensation.features`."""
        return self.net(torch.cat([self.image(prediction), references, residual], dim=1))
