"""Networks that the repository does not otherwise hold, in the ways in which people write them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..torchvision_block import Block


class TorchvisionResNet(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        self.layers = nn.Sequential(Block(16, 16), Block(16, 32, 2), Block(32, 32))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(32, classes)

    def forward(self, x):
        return self.fc(torch.flatten(self.avgpool(self.layers(self.stem(x))), 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's: expand, depthwise, project without a ReLU, add without a ReLU."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        wide = 3 * channels
        self.conv = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.residual = stride == 1 and channels == out

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            InvertedResidual(8, 12, 1), InvertedResidual(12, 12, 1), InvertedResidual(12, 12, 1),
            InvertedResidual(12, 16, 2), nn.Conv2d(16, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU6(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(48, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


class UNet(nn.Module):
    """Skips by concatenation, also of the input itself; nearest upsampling as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.middle, self.up = nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.Conv2d(32, 8, 3, padding=1)
        self.last = nn.Conv2d(19, 3, 1)

    def forward(self, x):
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        c = torch.cat([b, F.relu(self.middle(b))], dim=1)
        d = F.relu(self.up(F.interpolate(c, scale_factor=2)))
        return self.last(torch.cat((a, d, x), 1))


class SuperResolution(nn.Module):
    """Sub-pixel super-resolution that adds the enlarged input: pictures from 0 to 1 in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding="same", padding_mode="reflect"), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding="same"), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip

    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode="nearest") + self.body(x)


class DenseNet(nn.Module):
    """Batch norm before the convolution, of concatenated maps; average pooling between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(12), nn.Conv2d(12, 4, 3, padding=1, bias=False)
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(16 * 36, 5)

    def forward(self, x):
        x = self.first(x)
        x = torch.cat([x, self.conv1(F.relu(self.norm1(x)))], 1)
        x = torch.cat([x, self.conv2(F.relu(self.norm2(x)))], 1)
        x = self.pool(x)
        return self.head(x.view(x.size(0), -1))


class Odd(nn.Module):
    """Everything with two different sides; a module called twice; batch norm without parameters; even kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, (3, 5), stride=(1, 2), padding=(2, 1), padding_mode="circular")
        self.norm = nn.BatchNorm2d(8, affine=False)
        self.twice = nn.Conv2d(8, 8, 2, padding="same")
        self.pad = nn.ReplicationPad2d((1, 0, 2, 1))
        self.groups = nn.Conv2d(8, 16, 3, dilation=(1, 2), padding=(0, 2), groups=4)
        self.pools = nn.ModuleList([
            nn.MaxPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True), nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        ])  # fmt: skip
        self.wide = nn.Conv2d(16, 6, 1)
        self.relu = nn.ReLU()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(36, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        x = self.relu(self.twice(x))
        x = torch.relu(self.twice(x)) + x
        x = self.pools[0](self.groups(self.pad(x)).relu())
        x = self.pools[1](x)
        return self.head(F.adaptive_avg_pool2d(self.wide(x), (3, 2)))


class Pools(nn.Module):
    """Averages with ceil_mode and padding, adaptive maximum; the output is an average."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.pool = nn.AvgPool2d((3, 2), (2, 3), (1, 1), ceil_mode=True)
        self.out = nn.Conv2d(6, 8, 1)

    def forward(self, x):
        x = self.pool(self.conv(x).relu())
        x = nn.functional.adaptive_max_pool2d(self.out(x).relu(), 2)
        return nn.functional.avg_pool2d(F.pad(x, (1, 1, 0, 1)), 2, 1)


SIZES = {
    TorchvisionResNet: (3, 20, 20), MobileNet: (3, 24, 24), UNet: (3, 12, 16), SuperResolution: (1, 14, 11),
    DenseNet: (3, 12, 12), Odd: (3, 13, 15), Pools: (3, 17, 14),
}  # fmt: skip
NOT_IN_ONNX = (Odd, Pools)


def trained_like(kind: type[nn.Module], count: int = 6) -> tuple[nn.Module, Tensor]:
    """A model whose batch norm has seen data, and images for it; those of super-resolution lie in 0..1."""
    torch.manual_seed(0)
    model, x = kind(), torch.randn(count, *SIZES[kind])
    if kind is SuperResolution:
        x = torch.rand(count, *SIZES[kind])
    with torch.no_grad():
        for _ in range(3):
            model.train()(x)
    return model.eval(), x
