"""MAMVP-Net: multi-scale aligned motion-vector prediction, v̄_t from v̂_{t-1}, v̂_{t-2}, v̂_{t-3}."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.papers.mlvc.method.layers import FLOW_UNIT, ChainedWarp, Maps, Up2, activation, conv, scaled, zero

LEVELS = 4


class MotionPredictor(nn.Module):
    """The next flow, coarse to fine at 1/8, 1/4, 1/2 and 1 of the size.  [official code]

    On each level the features of v̂_{t-2} and v̂_{t-3} are aligned with those of v̂_{t-1} by the flows themselves, and an
    estimator of six convolutions corrects the flow of the level below:

        v̄^l = 2 up(v̄^{l+1}) + E_l(features of the three, 2 up(v̄^{l+1}), up(hidden^{l+1}))

    Flows are in units of 20 pixels inside and out. The last convolution of each estimator starts at 0, so v̄ = 0.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        fine, coarse, hidden = (scaled(channels, width) for channels in (16, 24, 32))
        self.features = nn.ModuleList(
            [nn.Sequential(conv(2, fine), activation(), conv(fine, fine), activation())]
            + [
                nn.Sequential(conv(inputs, coarse, stride=2), activation(), conv(coarse, coarse), activation())
                for inputs in (fine, coarse, coarse)
            ]
        )
        self.estimators = nn.ModuleList()
        for level in range(LEVELS):
            count = 3 * (fine if level == 0 else coarse) + (0 if level == LEVELS - 1 else 2 + hidden)
            self.estimators.append(_Estimator(count, hidden))
        self.warp, self.up = ChainedWarp(), Up2()

    def forward(self, flows: Float[Tensor, "batch 3 2 height width"]) -> Float[Tensor, "batch 2 height width"]:
        """flows: v̂_{t-1}, v̂_{t-2}, v̂_{t-3}; height and width multiples of 8."""
        batch = len(flows)
        pyramid, maps = [], flows.flatten(0, 1)
        for extract in self.features:
            maps = extract(maps)
            pyramid.append(maps.unflatten(0, (batch, 3)))
        flow = hidden = None
        for level in range(LEVELS - 1, -1, -1):
            inputs = self._aligned(pyramid[level], flows, level)
            if flow is not None and hidden is not None:
                flow = 2 * self.up(flow)  # twice as many pixels of this level
                inputs = torch.cat([inputs, flow, self.up(hidden)], dim=1)
            estimator = self.estimators[level]
            step, hidden = estimator(inputs)
            flow = step if flow is None else flow + step
        assert flow is not None
        return flow

    def _aligned(self, features: Tensor, flows: Tensor, level: int) -> Tensor:
        """Features of the three flows on the grid of v̂_{t-1}, side by side."""
        size = 2**level
        pixels = flows[:, :2, :, ::size, ::size] * (FLOW_UNIT / size)  # nearest, in pixels of this level
        aligned, _ = self.warp(features[:, 1:], pixels)
        return torch.cat([features[:, 0], aligned[:, 0], aligned[:, 1]], dim=1)


class _Estimator(nn.Module):
    """Five convolutions, and a sixth to the flow. Gives the flow and the fifth's features."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        layers = [layer for k in range(5) for layer in (conv(hidden if k else inputs, hidden), activation())]
        self.hidden, self.flow = nn.Sequential(*layers), zero(conv(hidden, 2))

    def forward(self, inputs: Maps) -> tuple[Float[Tensor, "batch 2 height width"], Maps]:
        hidden = self.hidden(inputs)
        return self.flow(hidden), hidden
