"""Residual networks (He et al., CVPR 2016): three of the ImageNet family, and ResNet-20 for 32x32 images.

Every ReLU is a module of its own, and modules are registered in the order they compute: quantisers are put behind
ReLUs, and "the first" and "the last weighted layer" are what `named_modules()` says. Parameters carry torchvision's
names, so that its published weights load with `load_state_dict`.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """y = relu(F(x) + shortcut(x)), F two 3x3 convolutions; the first one strides."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int, downsample: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample
        self.relu2 = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.downsample(x))


class Bottleneck(nn.Module):
    """y = relu(F(x) + shortcut(x)), F = 1x1 down to `width`, 3x3, 1x1 up to 4 * `width`.

    The 3x3 strides, as in torchvision's published weights ("v1.5"), where the paper lets the first 1x1 stride.
    """

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int, downsample: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = downsample
        self.relu3 = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu3(y + self.downsample(x))


class Projection(nn.Sequential):
    """Shortcut "option B": a strided 1x1 convolution and BN."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


class PadChannels(nn.Module):
    """Shortcut "option A", without parameters: every `stride`-th pixel, and zeros for the missing channels.

    Half of the zero channels come before the others, half after, as in the weights the [peer code] starts from.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before = stride, (channels_out - channels_in) // 2
        self.after = channels_out - channels_in - self.before

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class ResNet(nn.Module):
    """The ImageNet layout: 7x7 stem and max-pool, four stages, 64, 128, 256, 512 (times the expansion) channels.

    (n, channels, h, w) -> (n, classes) scores; h and w of 32 or more.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int, int], classes: int, channels: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        outs = [width * block.expansion for width in (64, 128, 256, 512)]
        self.layer1 = _stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = _stage(block, outs[0], 128, depths[1], stride=2)
        self.layer3 = _stage(block, outs[1], 256, depths[2], stride=2)
        self.layer4 = _stage(block, outs[2], 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(outs[3], classes)
        _initialize(self)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class CifarResNet(nn.Module):
    """The CIFAR layout of section 4.2: 3x3 stem, three stages of `depth` basic blocks with 16, 32, 64 channels.

    Shortcuts are option A, as in the paper's CIFAR experiments. (n, channels, h, w) -> (n, classes) scores.
    """

    def __init__(self, depth: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(BasicBlock, 16, 16, depth, stride=1)
        self.layer2 = _stage(BasicBlock, 16, 32, depth, stride=2, shortcut=PadChannels)
        self.layer3 = _stage(BasicBlock, 32, 64, depth, stride=2, shortcut=PadChannels)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)
        _initialize(self)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    channels_in: int,
    width: int,
    depth: int,
    stride: int,
    shortcut: type[Projection] | type[PadChannels] = Projection,
) -> nn.Sequential:
    """`depth` blocks; the first one may stride and change the channels, the others' shortcut is the identity."""
    channels = width * block.expansion
    same = stride == 1 and channels_in == channels
    first = block(channels_in, width, stride, nn.Identity() if same else shortcut(channels_in, channels, stride))
    return nn.Sequential(first, *(block(channels, width, 1, nn.Identity()) for _ in range(depth - 1)))


def _initialize(model: nn.Module) -> None:
    """He initialisation, N(0, 2 / fan_out): gradients keep their size through ReLUs. BN starts as the identity."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet18(classes: int = 1000, channels: int = 3) -> ResNet:
    """11,689,512 parameters at 1000 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes, channels)


def resnet50(classes: int = 1000, channels: int = 3) -> ResNet:
    """25,557,032 parameters at 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes, channels)


def resnet152(classes: int = 1000, channels: int = 3) -> ResNet:
    """60,192,808 parameters at 1000 classes."""
    return ResNet(Bottleneck, (3, 8, 36, 3), classes, channels)


def resnet20(classes: int = 10, channels: int = 3) -> CifarResNet:
    """269,722 parameters at 10 classes (option B would have 272,474)."""
    return CifarResNet(3, classes, channels)
