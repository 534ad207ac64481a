"""MV Refine-Net: what the quantiser took from the flow, found again from earlier flows and the reference frame."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.papers.mlvc.method.layers import FLOW_UNIT, ChainedWarp, activation, conv, scaled, zero


class MotionRefiner(nn.Module):
    """v̂_t = v̂'_t + h(v̂'_t, v̂_{t-1..t-3} aligned, x̂_{t-1}), seven dilated convolutions.  [official code]

    Features of the earlier flows are aligned along the chain that begins with v̂'_t; those of x̂_{t-1} are not warped.
    Flows are in units of 20 pixels. The last convolution starts at 0, so v̂ = v̂'.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        narrow, wide, middle = (scaled(channels, width) for channels in (32, 64, 48))
        self.earlier, self.current, self.image = (
            nn.Sequential(conv(inputs, narrow), activation()) for inputs in (2, 2, 3)
        )
        shape = (
            (5 * narrow, wide, 1),
            (wide, wide, 2),
            (wide, wide, 4),
            (wide, middle, 8),
            (middle, narrow, 16),
            (narrow, narrow, 1),
        )
        self.body = nn.Sequential(
            *(layer for i, o, dilation in shape for layer in (conv(i, o, dilation=dilation), activation())),
            zero(conv(narrow, 2)),
        )
        self.warp = ChainedWarp()

    def forward(
        self,
        flow: Float[Tensor, "batch 2 height width"],
        earlier: Float[Tensor, "batch 3 2 height width"],
        reference: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch 2 height width"]:
        """flow: v̂'_t. earlier: v̂_{t-1}, v̂_{t-2}, v̂_{t-3}. reference: x̂_{t-1} in [0, 1]."""
        features = self.earlier(earlier.flatten(0, 1)).unflatten(0, (len(flow), 3))
        chain = torch.cat([flow[:, None], earlier[:, :2]], dim=1) * FLOW_UNIT
        aligned, _ = self.warp(features, chain)
        return flow + self.body(torch.cat([self.current(flow), aligned.flatten(1, 2), self.image(reference)], dim=1))
