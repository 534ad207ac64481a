"""The networks of the room, each as a `Network`: VDSR, VRCNN, and ResNets turned into one."""

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.brelu.method.bounded_relu import BoundedReLU
from labkit.papers.brelu.method.network import Network, Node
from labkit.papers.brelu.method.weights import Layer, layers
from labkit.vision import resnet18, resnet20, resnet50, resnet152
from labkit.vision.resnet import BasicBlock, CifarResNet, PadChannels, Projection, ResNet


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


def from_resnet(model: nn.Module) -> Network:
    """A ResNet as a `Network` with its own copy of the weights; batch norm is frozen and folded where it is used.

    The stem is convolution, max-pool, bounded ReLU [official code]: the same numbers as ReLU before max-pool, a quarter
    of the work. The last block's ReLU has no bound; the pooled value has one. Scores come out as (n, classes, 1, 1).
    """
    if not isinstance(model, SmallResNet | ResNet | CifarResNet):
        raise InputError(f"from_resnet takes the ResNets of labkit; got a {type(model).__name__}.")
    model = copy.deepcopy(model)
    build = _Builder()
    build.layer("conv1", "input", model.conv1, model.bn1)
    last = "conv1"
    pool = getattr(model, "maxpool", None)
    if isinstance(pool, nn.MaxPool2d):
        build.nodes.append(Node("maxpool", "max_pool", (last,), _pool_options(pool)))
        last = "maxpool"
    last = build.relu("relu", last)
    stages = [stage for name, stage in model.named_children() if isinstance(stage, nn.Sequential)]
    for s, stage in enumerate(stages, 1):
        for b, block in enumerate(stage):
            last = build.block(f"layer{s}_{b}", last, block)
    build.nodes.append(Node("avgpool", "global_average", (last,)))
    last = build.relu("pooled", "avgpool")
    head = nn.Conv2d(model.fc.in_features, model.fc.out_features, 1)
    with torch.no_grad():
        head.weight.copy_(model.fc.weight[:, :, None, None])
        head.bias.copy_(model.fc.bias)  # type: ignore[union-attr]
    build.layer("fc", last, head.to(model.fc.weight.device))
    return Network(build.nodes, build.modules)


class _Builder:
    """Collects nodes while `from_resnet` walks through a model."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.modules: dict[str, Layer | BoundedReLU] = {}

    def layer(self, name: str, source: str, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> str:
        self.modules[name] = Layer(conv, norm)
        self.nodes.append(Node(name, "layer", (source,)))
        return name

    def relu(self, name: str, source: str) -> str:
        self.modules[name] = BoundedReLU()
        self.nodes.append(Node(name, "bounded_relu", (source,)))
        return name

    def block(self, name: str, source: str, block: nn.Module) -> str:
        """The shortcut, convolutions with ReLUs between, the addition, a ReLU."""
        shortcut, way = source, block.downsample
        if isinstance(way, Projection):
            shortcut = self.layer(f"{name}_downsample", source, way[0], way[1])  # type: ignore[arg-type]
        elif isinstance(way, PadChannels):
            shortcut = f"{name}_pad"
            self.nodes.append(Node(shortcut, "pad_channels", (source,), (way.stride, way.before, way.after)))
        convs = [child for child in ("conv1", "conv2", "conv3") if hasattr(block, child)]
        last = source
        for i, conv in enumerate(convs, 1):
            last = self.layer(f"{name}_{conv}", last, getattr(block, conv), getattr(block, f"bn{i}"))
            if i < len(convs):
                last = self.relu(f"{name}_relu{i}", last)
        self.nodes.append(Node(f"{name}_add", "add", (last, shortcut)))
        return self.relu(f"{name}_relu{len(convs)}", f"{name}_add")


def _pool_options(pool: nn.MaxPool2d) -> tuple[int, ...]:
    return tuple(int(value) for value in (pool.kernel_size, pool.stride, pool.padding))  # type: ignore[arg-type]


def parameter_count(network: nn.Module) -> int:
    """Numbers that a deployed network stores: folded weights and biases."""
    return sum(math.prod(layer.conv.weight.shape) + layer.conv.out_channels for layer in layers(network).values())
