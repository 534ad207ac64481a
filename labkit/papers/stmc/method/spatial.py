"""SMC, the spatial multi-cue module: one image in, a feature for each cue out; a pose branch says where to look.

image -> A -> B -> full-frame feature                            VGG-11 and a ninth convolution
              B -> heat maps -> J, the key points                soft-argmax
         A cut around J -> hand feature (both hands), face feature
                       J -> pose feature
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.kernels.crop_windows import crop_windows
from labkit.kernels.soft_argmax import soft_argmax
from labkit.papers.stmc.method.architecture import Architecture, Cue


@dataclass
class Spatial:
    """What SMC says about each frame.

    cues: (frames, d) of each cue, in the order of the architecture. points: J, (row, column) from 0 to 1; None without
    a pose branch.
    """

    cues: list[Tensor]
    points: Float[Tensor, "frames points 2"] | None


class SpatialMultiCue(nn.Module):
    """The spatial module.  [author net]"""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        source = a.last(a.trunk)
        self.trunk = convolutions(3, a.trunk, a)
        has_middle = "full" in a.cues or a.pose_branch
        self.middle = convolutions(source, a.middle, a) if has_middle else nn.Identity()
        self.top = convolutions(a.last(a.middle), a.top, a) if "full" in a.cues else None
        self.dropout = nn.Dropout(a.dropout)
        self.pose = PoseBranch(a) if a.pose_branch else None
        self.hand = convolutions(source, a.hand, a) if "hand" in a.cues else None  # shared by both hands
        self.face = convolutions(source, a.face, a) if "face" in a.cues else None
        self.pose_net = pose_net(a) if "pose" in a.cues else None
        if a.batch_norm:
            self.apply(_initialize)

    def forward(
        self, frames: Float[Tensor, "frames 3 height width"], at: Float[Tensor, "frames points 2"] | None = None
    ) -> Spatial:
        """Features of single frames; time plays no part yet.

        Args:
            frames: RGB from 0 to 1, or normalised.
            at: where crops are taken in place of the pose branch's J, for controls: (row, column), 0 to 1.

        Raises:
            InputError: images of another size than the architecture's.
        """
        a = self.architecture
        if frames.shape[-2:] != (a.size, a.size):
            raise InputError(f"frames must be {a.size} x {a.size} pixels here; got {tuple(frames.shape[-2:])}.")
        source = self.trunk(frames.contiguous(memory_format=torch.channels_last))  # half the time on a CPU
        middle = self.middle(source)
        points = self.pose(middle) if self.pose is not None else None
        where = points if at is None or points is None else at
        features = {cue: self._feature(cue, source, middle, points if cue == "pose" else where) for cue in a.cues}
        return Spatial(list(features.values()), points)

    def _feature(self, cue: Cue, source: Tensor, middle: Tensor, at: Tensor | None) -> Tensor:
        if cue == "full":
            assert self.top is not None
            return self.dropout(self.top(middle).mean((2, 3)))
        assert at is not None, "the architecture asks for a pose branch where a cue needs it"
        if cue == "pose":
            assert self.pose_net is not None
            return self.pose_net(at.detach().flatten(1))  # [author net]
        a = self.architecture
        points, side = ([a.face_point], a.face_window) if cue == "face" else (list(a.hand_points), a.hand_window)
        net = self.face if cue == "face" else self.hand
        assert net is not None
        windows = (crop if a.crops == "whole" else soft_crop)(source, at[:, points], side)
        return net(windows.flatten(0, 1)).mean((2, 3)).view(len(source), -1)

    def heat_maps(self, frames: Float[Tensor, "frames 3 height width"]) -> Float[Tensor, "frames points h w"]:
        """The pose branch's maps before their softmax.

        Raises:
            InputError: there is no pose branch.
        """
        if self.pose is None:
            raise InputError("this network has no pose branch, hence no key points.")
        return self.pose.maps(self.middle(self.trunk(frames)))


# -- pose -------------------------------------------------------------------------------------------------------------


class PoseBranch(nn.Module):
    """Deconvolutions (kernel 4, stride 2, padding 1) with ReLU, a 1 x 1 convolution to heat maps, soft-argmax."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a, channels = architecture, architecture.last(architecture.middle)
        layers: list[nn.Module] = []
        for _ in range(a.deconvolutions):
            hidden = a.scaled(a.deconvolution_channels)
            layers += [nn.ConvTranspose2d(channels, hidden, 4, 2, 1), nn.ReLU(inplace=True)]
            channels = hidden
        self.maps = nn.Sequential(*layers, nn.Conv2d(channels, a.points, 1))

    def forward(self, middle: Float[Tensor, "frames channels h w"]) -> Float[Tensor, "frames points 2"]:
        """J_k = (sum p h, sum p w) in the order (row, column); key points of the released labels are (column, row)."""
        maps = self.maps(middle)
        return soft_argmax(maps.float() if maps.element_size() < 4 else maps)  # half a cell is lost in bfloat16


def pose_net(architecture: Architecture) -> nn.Sequential:
    """2 K coordinates -> 128 -> 256, ReLU after each."""
    first, second = map(architecture.scaled, architecture.pose)
    return nn.Sequential(nn.Linear(2 * architecture.points, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU())


# -- crops ------------------------------------------------------------------------------------------------------------


def corners(at: Float[Tensor, "frames windows 2"], map_side: int, side: int) -> Int64[Tensor, "frames windows 2"]:
    """First row and column of windows around cell round((side of the map - 1) J), moved inside the map.

    A window of 16 takes rows h - 7 to h + 8, one of 24 rows h - 11 to h + 12.  [author net]
    """
    centre = (at.detach() * (map_side - 1)).round().long()
    return (centre - (side // 2 - 1)).clamp(0, map_side - side)


def crop(
    maps: Float[Tensor, "frames channels h w"], at: Float[Tensor, "frames windows 2"], side: int
) -> Float[Tensor, "frames windows channels side side"]:
    """Windows of whole cells around J. No gradient flows into J from here.  [author net]"""
    return crop_windows(maps, corners(at, maps.shape[-1], side), side)


def soft_crop(
    maps: Float[Tensor, "frames channels h w"], at: Float[Tensor, "frames windows 2"], side: int
) -> Float[Tensor, "frames windows channels side side"]:
    """An ablation: windows between the cells by bilinear interpolation, with a gradient into J.  [ours]

    The same cells as `crop` where J falls on a cell.
    """
    last = maps.shape[-1] - 1
    first = (at * last - (side // 2 - 1)).clamp(0, last + 1 - side)
    steps = torch.arange(side, device=maps.device, dtype=first.dtype)
    rows, columns = (2 * (first[..., axis, None] + steps) / last - 1 for axis in (0, 1))
    grid = torch.stack(torch.broadcast_tensors(columns[..., None, :], rows[..., :, None]), -1)
    count = at.shape[1]
    windows = nn.functional.grid_sample(
        maps.to(grid.dtype), grid.flatten(1, 2).view(len(maps), count * side, side, 2), align_corners=True
    )
    return windows.view(len(maps), maps.shape[1], count, side, side).transpose(1, 2).to(maps.dtype)


# -- rows of convolutions ---------------------------------------------------------------------------------------------


def convolutions(channels: int, row: str, architecture: Architecture) -> nn.Sequential:
    """3 x 3 convolutions with ReLU and poolings, as `row` says; with `batch_norm` a normalisation before each ReLU.

    Its statistics are those of all frames of a batch; nothing is padded here.  [ours]
    """
    layers: list[tuple[str, nn.Module]] = []
    for k, word in enumerate(row.split()):
        if word == "M":
            layers.append((f"pool{k}", nn.MaxPool2d(2)))
            continue
        out, stride = architecture.scaled(int(word.partition("/")[0])), 2 if word.endswith("/2") else 1
        layers.append((f"conv{k}", nn.Conv2d(channels, out, 3, stride, 1)))
        if architecture.batch_norm:
            layers.append((f"norm{k}", nn.BatchNorm2d(out)))
        layers.append((f"relu{k}", nn.ReLU(inplace=True)))
        channels = out
    return nn.Sequential(OrderedDict(layers))


def _initialize(module: nn.Module) -> None:
    """Variance-preserving weights [ours]; without normalisation the start is VGG's trained weights."""
    if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
