"""From a clip to a feature map over space and time: one protocol, 2-D networks on each frame or 3-D ones.

Which backbone the paper has is not known to us; its authors published both kinds.  [inferred]
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError


@runtime_checkable
class Backbone(Protocol):
    """A module (clips, 3, T, H, W) -> (clips, channels, T', H / stride, W / stride); T' divides T."""

    channels: int
    stride: int

    def __call__(self, clips: Tensor, /) -> Tensor: ...


class SmallBackbone(nn.Module):
    """Three 3-D convolutions with batch normalization, for generated videos; stride 4, time halved.  [ours]

    Of the input, a cell sees 7 x 7 pixels of three frames: little enough that a box does not see what stands beside it.
    """

    stride = 4
    receptive_field = 7

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.Sequential(
            nn.Conv3d(3, 16, 3, (1, 2, 2), 1), nn.BatchNorm3d(16), nn.ReLU(),
            nn.Conv3d(16, channels, 3, 2, 1), nn.BatchNorm3d(channels), nn.ReLU(),
            nn.Conv3d(channels, channels, 1), nn.BatchNorm3d(channels), nn.ReLU(),
        )  # fmt: skip

    def forward(self, clips: Float[Tensor, "n 3 t h w"]) -> Float[Tensor, "n c t2 h2 w2"]:
        return self.layers(clips)


class PerFrame(nn.Module):
    """Any 2-D network (n, 3, H, W) -> (n, channels, H / stride, W / stride) on each frame by itself: T' = T."""

    def __init__(self, network: nn.Module, channels: int, stride: int) -> None:
        super().__init__()
        self.network, self.channels, self.stride = network, channels, stride

    def forward(self, clips: Float[Tensor, "n 3 t h w"]) -> Float[Tensor, "n c t h2 w2"]:
        maps = self.network(clips.transpose(1, 2).flatten(0, 1))
        if maps.dim() != 4 or maps.shape[1] != self.channels:
            raise InputError(f"the network of a frame must give {self.channels} maps; got shape {tuple(maps.shape)}.")
        return maps.unflatten(0, (len(clips), -1)).transpose(1, 2)


def small_2d(channels: int = 32) -> PerFrame:
    """The three convolutions of `SmallBackbone` without time, on each frame."""
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, channels, 3, 2, 1), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(),
    )  # fmt: skip
    return PerFrame(layers, channels, 4)
