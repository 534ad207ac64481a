"""What a search image looks like to the tracker: maps of channels on a grid of cells, with or without training.

A feature extractor gives one map for stage 1 and any number of maps for stage 2; with a single map both stages share
it.  The strides say how many crop pixels a cell is wide, so that everything else can speak of crop pixels.
"""

import math
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit import tensor_files
from labkit.errors import InputError
from labkit.vision import resnet18, resnet50

Crops = Float[Tensor, "batch 3 size size"]


class Maps(NamedTuple):
    """The features of a batch of search images."""

    first: Float[Tensor, "batch channels cells cells"]
    """For stage 1."""
    second: tuple[Float[Tensor, "batch _ _ _"], ...]
    """For stage 2 and box refinement."""


@runtime_checkable
class Features(Protocol):
    """Crops in [0, 1] -> maps.  `stride` belongs to the first map, `strides` to the second ones."""

    channels: int
    stride: int
    strides: tuple[int, ...]

    def __call__(self, crops: Crops) -> Maps: ...


def check_size(size: int, stride: int) -> None:
    if size % stride:
        raise InputError(f"the crop's size must be a multiple of the stride {stride}; got {size}")


# -- without training -------------------------------------------------------------------------------------------------

BINS = 9
GREY = (0.299, 0.587, 0.114)
LIGHTNESS_CENTRES = (30.0, 90.0, 150.0, 210.0)
HAND_MADE = BINS + 3 + len(LIGHTNESS_CENTRES)


def hand_made(crops: Crops, stride: int) -> Float[Tensor, "batch 16 cells cells"]:
    """Nine orientations of gradients, three colour channels (Lab), four soft bins of lightness.

    Nothing is trained. [ours]
    """
    check_size(crops.shape[-1], stride)
    return torch.cat([orientations(crops, stride), colours(F.avg_pool2d(crops, stride))], 1)


def orientations(crops: Crops, stride: int) -> Float[Tensor, "batch 9 cells cells"]:
    """Histogram of unsigned gradient directions per cell, divided by the energy of its 3 x 3 neighbours, clipped at
    0.6.

    Cells narrower than 4 pixels hold too few gradients for a histogram: they are smoothed by (1, 2, 1) / 4.
    """
    batch, _, size, _ = crops.shape
    cells = size // stride
    grey = (crops * crops.new_tensor(GREY)[:, None, None]).sum(1)
    padded = F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = torch.hypot(right, down) / stride**2
    position = torch.remainder(torch.atan2(down, right), math.pi) * (BINS / math.pi)
    lower = position.floor()
    share, lower = position - lower, lower.long() % BINS
    at = torch.arange(size, device=crops.device) // stride
    cell = (torch.arange(batch, device=crops.device)[:, None, None] * cells + at[:, None]) * cells + at
    histogram = torch.zeros(batch * cells * cells * BINS, device=crops.device)
    histogram.index_add_(0, (cell * BINS + lower).flatten(), (strength * (1 - share)).flatten())
    histogram.index_add_(0, (cell * BINS + (lower + 1) % BINS).flatten(), (strength * share).flatten())
    histograms = histogram.reshape(batch, cells, cells, BINS).permute(0, 3, 1, 2)
    if stride < 4:
        kernel = torch.tensor([1.0, 2.0, 1.0], device=crops.device)
        kernel = (kernel[:, None] * kernel / 16).expand(BINS, 1, 3, 3)
        histograms = F.conv2d(F.pad(histograms, (1, 1, 1, 1), mode="replicate"), kernel, groups=BINS)
    energy = F.pad(histograms.square().sum(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return (histograms / (F.avg_pool2d(energy, 3, 1).sqrt() + 0.02)).clamp_max(0.6)


def colours(rgb: Float[Tensor, "batch 3 cells cells"]) -> Float[Tensor, "batch 7 cells cells"]:
    """CIE Lab, scaled to about [-1, 1], and soft membership in four bins of lightness."""
    lab = rgb_to_lab(rgb)
    lightness = lab[:, :1] * 2.55
    scaled = torch.cat([(lightness - 128) / 128, lab[:, 1:] / 40], 1)
    centres = rgb.new_tensor(LIGHTNESS_CENTRES)[:, None, None]
    soft = (1 - (lightness - centres).abs() / 50).clamp_min(0)
    return torch.cat([scaled, 0.7 * soft], 1)


_XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)


def rgb_to_lab(rgb: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
    """sRGB in [0, 1] to CIE L* (0..100), a*, b*; white point D65."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp_min(0) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("ij,bjhw->bihw", rgb.new_tensor(_XYZ), linear)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


class HandMade:
    """`hand_made` at stride 4 for stage 1; for stage 2 the same map, or one at another stride.  No training."""

    channels, stride = HAND_MADE, 4

    def __init__(self, second: int = 4) -> None:
        self.strides: tuple[int, ...] = (second,)

    def __call__(self, crops: Crops) -> Maps:
        first = hand_made(crops, self.stride)
        return Maps(first, (first if self.strides == (self.stride,) else hand_made(crops, *self.strides),))


# -- a small network, trained by itself on motion -------------------------------------------------------


class SmallNet(nn.Module):
    """Three convolutions at stride 4, 32 channels.  Every output cell is L2-normalized, as ridge likes it. [ours]"""

    def __init__(self) -> None:
        super().__init__()
        width = 32
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False),  # batch normalization has a bias
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, crops: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 32 cells cells"]:
        return F.normalize(self.body(crops - 0.5), dim=1)


class Learned:
    """A trained `SmallNet` beside the hand-made map for stage 2; stage 1 has the hand-made one alone."""

    channels, stride = HAND_MADE, 4
    strides: tuple[int, ...] = (4, 4)

    def __init__(self, net: SmallNet) -> None:
        self.net = net.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, crops: Crops) -> Maps:
        first = hand_made(crops, self.stride)
        return Maps(first, (self.net(crops), first))


# -- ResNet, with weights that the user has ---------------------------------------------------------------------------

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ResNetFeatures:
    """layer3 (stride 16) for stage 1, layer2 (stride 8) and layer3 for stage 2 [peer code: ATOM, DCFST].

    Args:
        depth: 18 or 50.
        weights: file of ImageNet weights in torchvision's names (.pth or .safetensors); None: random, for tests only.
    """

    def __init__(self, depth: int = 18, weights: str | Path | None = None, device: str | torch.device = "cpu") -> None:
        if depth not in (18, 50):
            raise InputError(f"depth must be 18 or 50; got {depth}")
        net = resnet18() if depth == 18 else resnet50()
        if weights is not None:
            _load(net, Path(weights))
        self.net = net.eval().requires_grad_(False).to(device)
        self.channels, self.stride, self.strides = (256 if depth == 18 else 1024), 16, (8, 16)

    @torch.no_grad()
    def __call__(self, crops: Crops) -> Maps:
        check_size(crops.shape[-1], 16)
        net = self.net
        x = (crops - crops.new_tensor(IMAGENET_MEAN)[:, None, None]) / crops.new_tensor(IMAGENET_STD)[:, None, None]
        x = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
        second = net.layer2(x)
        third = net.layer3(second)
        return Maps(normalized_power(third), (second, third))


def _load(net: nn.Module, path: Path) -> None:
    """Weights of the user's into `net`.

    Raises InputError: no such file, damaged, of another network, or numbers that are not finite.
    """
    if not path.is_file():
        raise InputError(
            f"there is no weight file {path}; give ImageNet weights of torchvision's layout, or leave it out"
        )
    try:
        weights = tensor_files.read_tensors(path) if path.suffix == ".safetensors" else tensor_files.read_torch(path)
    except tensor_files.TensorFileError as error:
        raise InputError(f"{path} is damaged, or holds no weights ({_first_line(error)}); get it anew") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{path} holds something else than tensors by name; give a network's state dict")
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: '{name}' holds numbers that are not finite; get it anew")
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:  # names or shapes
        raise InputError(f"{path} holds another network's weights, or not torchvision's names ({error})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def normalized_power(maps: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
    """Mean square over channels and places becomes 1 [peer code: ATOM, `normalize_power=2`]."""
    return maps / (maps.square().mean((1, 2, 3), keepdim=True) + 1e-10).sqrt()
