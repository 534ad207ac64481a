"""The networks of the room: VDSR and VRCNN as a `Network`; classifiers as modules, to be traced once trained."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.brelu.method.bounded_relu import BoundedReLU
from labkit.papers.brelu.method.graph import Node
from labkit.papers.brelu.method.network import Network
from labkit.papers.brelu.method.weights import Layer, layers
from labkit.vision import resnet18, resnet20, resnet50, resnet152
from labkit.vision.resnet import BasicBlock, Projection


def vdsr(depth: int = 20, width: int = 64) -> Network:
    """Kim et al., CVPR 2016: `depth` 3x3 convolutions, ReLU between; gives the residual to the bicubic image.

    665,921 parameters as published (20 layers of 64); the lesson's 8 layers of 16 have 14,225.
    """
    if depth < 2 or width < 1:
        raise InputError(f"VDSR needs 2 layers and 1 channel or more; got {depth} and {width}.")
    channels = [1] + [width] * (depth - 1) + [1]
    nodes: list[Node] = []
    modules: dict[str, Layer | BoundedReLU] = {}
    last = "input"
    for i in range(1, depth + 1):
        modules[f"conv{i}"] = _he(nn.Conv2d(channels[i - 1], channels[i], 3, padding=1))
        nodes.append(Node(f"conv{i}", "layer", (last,)))
        if i < depth:
            modules[f"relu{i}"] = BoundedReLU()
            nodes.append(Node(f"relu{i}", "bounded_relu", (f"conv{i}",)))
            last = f"relu{i}"
    return Network(nodes, modules)


def vrcnn(width: int = 64) -> Network:
    """Dai et al., MMM 2017: two layers of two concatenated branches each; gives the residual to the decoded image.

    conv1 5x5 -> width; conv2 3x3 -> width/2 | 5x5 -> width/4; conv3 3x3 -> width/4 | 1x1 -> width/2; conv4 3x3 -> 1.
    54,673 parameters at width 64, 14,217 at width 32.
    """
    if width < 4 or width % 4:
        raise InputError(f"VRCNN's width must be a multiple of 4; got {width}.")
    half, quarter = width // 2, width // 4
    modules: dict[str, Layer | BoundedReLU] = {}
    nodes: list[Node] = []

    def branch(name: str, source: str, channels_in: int, channels: int, kernel: int) -> str:
        modules[f"conv{name}"] = _he(nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2))
        modules[f"relu{name}"] = BoundedReLU()
        nodes.extend([Node(f"conv{name}", "layer", (source,)), Node(f"relu{name}", "bounded_relu", (f"conv{name}",))])
        return f"relu{name}"

    first = branch("1", "input", 1, width, 5)
    nodes.append(Node("concat2", "concat", (branch("2_1", first, width, half, 3),
                                            branch("2_2", first, width, quarter, 5))))  # fmt: skip
    nodes.append(Node("concat3", "concat", (branch("3_1", "concat2", half + quarter, quarter, 3),
                                            branch("3_2", "concat2", half + quarter, half, 1))))  # fmt: skip
    modules["conv4"] = _he(nn.Conv2d(half + quarter, 1, 3, padding=1))
    nodes.append(Node("conv4", "layer", ("concat3",)))
    return Network(nodes, modules)


def _he(conv: nn.Conv2d) -> Layer:
    """He initialisation; the layer that gives the residual starts small: the first picture is the input's."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.out_channels == 1:
        with torch.no_grad():
            conv.weight *= 0.1
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return Layer(conv)


class SmallResNet(nn.Module):
    """The lesson's residual network: stem of 16 and max-pool, blocks 16, 32 (stride 2), 32. 38,058 parameters folded.

    (n, channels, h, w) -> (n, classes) scores; h and w of 4 or more.
    """

    def __init__(self, classes: int = 10, channels: int = 1, pool: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.layer1 = nn.Sequential(BasicBlock(16, 16, 1, nn.Identity()))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2, Projection(16, 32, 2)))
        self.layer3 = nn.Sequential(BasicBlock(32, 32, 1, nn.Identity()))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


CLASSIFIERS = ("small", "resnet20", "resnet18", "resnet50", "resnet152")


def classifier(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    """A freshly initialised classifier with batch norm, to be trained and then turned into a `Network`.

    Raises InputError for a name not in `CLASSIFIERS`, or images too small for it.
    """
    if name not in CLASSIFIERS:
        raise InputError(f"there is no classifier '{name}'; there are {', '.join(CLASSIFIERS)}.")
    smallest = 32 if name in ("resnet18", "resnet50", "resnet152") else 4
    if image_size < smallest:
        raise InputError(f"'{name}' needs images of {smallest}x{smallest} pixels or more; got {image_size}.")
    if name == "small":
        return SmallResNet(classes, channels, pool=image_size >= 16)
    build = {"resnet20": resnet20, "resnet18": resnet18, "resnet50": resnet50, "resnet152": resnet152}[name]
    return build(classes, channels)


class MobileNet(nn.Module):
    """MobileNetV2 (Sandler et al., CVPR 2018) in small: 16,890 parameters folded for 10 classes of grey images.

    Blocks expand, convolve each channel by itself, and project without a ReLU; they are added without one too.
    (n, channels, h, w) -> (n, classes) scores.
    """

    def __init__(self, classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv_norm(channels, 16, 3, stride=2), nn.ReLU6(),
            InvertedResidual(16, 24, 1), InvertedResidual(24, 24, 1), InvertedResidual(24, 32, 2),
            InvertedResidual(32, 32, 1), *_conv_norm(32, 96, 1), nn.ReLU6(),
        )  # fmt: skip
        self.classifier = nn.Linear(96, classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.classifier(self.features(x).mean((2, 3)))


class InvertedResidual(nn.Module):
    """1x1 to twice the channels, 3x3 per channel, 1x1 back; plus the input where shapes allow."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.branch = nn.Sequential(
            *_conv_norm(channels, wide, 1), nn.ReLU6(),
            *_conv_norm(wide, wide, 3, stride, groups=wide), nn.ReLU6(), *_conv_norm(wide, out, 1),
        )  # fmt: skip
        self.residual = stride == 1 and channels == out

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h2 w2"]:
        return x + self.branch(x) if self.residual else self.branch(x)


def _conv_norm(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(out)


def parameter_count(network: nn.Module) -> int:
    """Numbers that a deployed network stores: folded weights and biases."""
    return sum(value.numel() for layer in layers(network).values() for value in layer.folded())
