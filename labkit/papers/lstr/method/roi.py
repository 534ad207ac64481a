"""One vector a tubelet: RoIAlign in each frame with the frame's own box, mean over time, a linear layer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.kernels.roi_align import roi_align


def boxes_over_time(tubelets: Float[Tensor, "clips k frames 4"], steps: int) -> Float[Tensor, "clips steps k 4"]:
    """Boxes at the `steps` times of a map that has fewer of them than the clip has frames: means of equal parts.

    Raises:
        InputError: the number of frames is no multiple of the number of steps.
    """
    clips, k, frames, _ = tubelets.shape
    if steps < 1 or frames % steps:
        raise InputError(f"a map of {steps} time steps does not divide a clip of {frames} frames.")
    return tubelets.reshape(clips, k, steps, frames // steps, 4).mean(3).transpose(1, 2)


class TubeletFeatures(nn.Module):
    """x_i = relu(W mean_t RoIAlign(F_t, box_it)), (clips, k, width).  [inferred]"""

    def __init__(self, channels: int, stride: int, width: int, bins: int) -> None:
        super().__init__()
        self.stride, self.bins = stride, bins
        self.project = nn.Sequential(nn.Linear(channels * bins * bins, width), nn.ReLU())

    def forward(
        self, maps: Float[Tensor, "clips c t h w"], tubelets: Float[Tensor, "clips k frames 4"]
    ) -> Float[Tensor, "clips k width"]:
        steps = maps.shape[2]
        # cell g of the map stands at pixel stride * g: RoIAlign's own half cell is taken back
        at = boxes_over_time(tubelets, steps) + self.stride / 2
        flat = maps.transpose(1, 2).flatten(0, 1)
        pooled = roi_align(flat, at.flatten(0, 1), self.bins, scale=1 / self.stride)
        return self.project(torch.flatten(pooled.unflatten(0, (-1, steps)).mean(1), 2))
