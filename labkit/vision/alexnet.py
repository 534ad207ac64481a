"""AlexNet (Krizhevsky et al., NeurIPS 2012) as quantisation papers use it: one tower, and batch norm."""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError


class AlexNet(nn.Module):
    """Five convolutions of 96, 256, 384, 384, 256 channels, two hidden layers of 4096 [official code of qnet].

    Every layer but the last is followed by BN and a ReLU module of its own, and has no bias: BN would cancel it [ours].
    Dropout 0.1 before the hidden layers, BN's eps 1e-3 [official code].

    (n, channels, image_size, image_size) -> (n, classes) scores.
    """

    def __init__(self, classes: int = 1000, channels: int = 3, image_size: int = 224) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                [
                    *_convolution(1, channels, 96, kernel=11, stride=4, padding=2),
                    ("pool1", nn.MaxPool2d(3, stride=2)),
                    *_convolution(2, 96, 256, kernel=5, padding=2),
                    ("pool2", nn.MaxPool2d(3, stride=2)),
                    *_convolution(3, 256, 384, kernel=3, padding=1),
                    *_convolution(4, 384, 384, kernel=3, padding=1),
                    *_convolution(5, 384, 256, kernel=3, padding=1),
                    ("pool5", nn.MaxPool2d(3, stride=2)),
                ]
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                [
                    ("drop6", nn.Dropout(0.1)),
                    *_hidden(6, 256 * _final_side(image_size) ** 2, 4096),
                    ("drop7", nn.Dropout(0.1)),
                    *_hidden(7, 4096, 4096),
                    ("fc8", nn.Linear(4096, classes)),
                ]
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")  # [official code]
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.classifier(self.features(x).flatten(1))


def _convolution(
    k: int, channels_in: int, channels_out: int, kernel: int, stride: int = 1, padding: int = 0
) -> list[tuple[str, nn.Module]]:
    return [
        (f"conv{k}", nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)),
        (f"bn{k}", nn.BatchNorm2d(channels_out, eps=1e-3)),
        (f"relu{k}", nn.ReLU()),
    ]


def _hidden(k: int, features_in: int, features_out: int) -> list[tuple[str, nn.Module]]:
    return [
        (f"fc{k}", nn.Linear(features_in, features_out, bias=False)),
        (f"bn{k}", nn.BatchNorm1d(features_out, eps=1e-3)),
        (f"relu{k}", nn.ReLU()),
    ]


def _final_side(image_size: int) -> int:
    """Pixels along a side after the stem's stride of 4 and three max-pools: 6 at 224."""
    side = (image_size + 2 * 2 - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    if side < 1:
        raise InputError(f"AlexNet needs images of at least 63x63 pixels; got {image_size}x{image_size}.")
    return side


def alexnet(classes: int = 1000, channels: int = 3, image_size: int = 224) -> AlexNet:
    """62,387,912 parameters at 1000 classes and 224 pixels."""
    return AlexNet(classes, channels, image_size)
