"""The networks, and many of them in one: a stack that trains all at once."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.vision.resnet import resnet18


class Centered(nn.Module):
    """x - middle: pixels come in [0, 1]."""

    def __init__(self, middle: float) -> None:
        super().__init__()
        self.middle = middle

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x - self.middle


def mlp(shape: Sequence[int], hidden: int, outputs: int, middle: float = 0.5, xavier: bool = False) -> nn.Sequential:
    """Two hidden layers with ReLU. xavier: Glorot's uniform weights and zero biases [official code of IRM]."""
    inputs = int(torch.Size(shape).numel())
    network = nn.Sequential(
        Centered(middle), nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs),
    )  # fmt: skip
    if xavier:
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    return network


def cnn(shape: Sequence[int], hidden: int, outputs: int) -> nn.Sequential:
    """Two strided convolutions and a mean over the image: small enough for a CPU; no batch statistics."""
    return nn.Sequential(
        Centered(0.5), nn.Conv2d(shape[0], hidden, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(hidden, 2 * hidden, 3, stride=2, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2 * hidden * _halved(shape[1], 3) * _halved(shape[2], 3), outputs),
    )  # fmt: skip


def _halved(size: int, times: int) -> int:
    for stride in range(times):
        size = (size + 1) // 2 if stride < 2 else size // 2
    return size


def mnist_cnn(shape: Sequence[int], outputs: int) -> nn.Sequential:
    """3x3 convolutions with 64, 128 (stride 2), 128, 128 channels, each ReLU then GroupNorm(8), mean pool, linear.

    [peer code: DomainBed's network for 28x28 images]
    """
    layers: list[nn.Module] = []
    before = shape[0]
    for channels, stride in ((64, 1), (128, 2), (128, 1), (128, 1)):
        layers += [nn.Conv2d(before, channels, 3, stride, padding=1), nn.ReLU(), nn.GroupNorm(8, channels)]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, outputs))


def resnet18_small(channels: int, outputs: int) -> nn.Module:
    """ResNet-18 with a 3x3 stem and no first pooling, for 32x32 images."""
    network = resnet18(outputs, channels)
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()  # type: ignore[assignment]
    return nn.Sequential(Centered(0.5), network)


def fitting_network(shape: Sequence[int]) -> str:
    """The name of the network of DomainBed's protocol for images of `shape` (channels, height, width).

    The digits' network sees patches of 13x13 pixels, which is most of an image up to 32x32; larger ones get a ResNet-18
    [ours]. The [peer code] takes a Wide ResNet for 32x32 and a ResNet-50 trained on ImageNet for 224x224.
    """
    return "mnist-cnn" if max(shape[1:]) <= 32 else "resnet18-large"


def build_network(
    name: str, shape: Sequence[int], hidden: int, outputs: int, middle: float = 0.5, xavier: bool = False
) -> nn.Module:
    """The network `name` for images of `shape` (channels, height, width).

    Raises:
        InputError: there is no such network.
    """
    if name == "mlp":
        return mlp(shape, hidden, outputs, middle, xavier)
    if name == "cnn":
        return cnn(shape, hidden, outputs)
    if name == "mnist-cnn":
        return mnist_cnn(shape, outputs)
    if name == "resnet18":
        return resnet18_small(shape[0], outputs)
    if name == "resnet18-large":
        return nn.Sequential(Centered(0.5), resnet18(outputs, shape[0]))
    raise InputError(f"there is no network '{name}'; there are mlp, cnn, mnist-cnn, resnet18, resnet18-large.")


class Stack(nn.Module):
    """Many networks of one shape as one: parameters carry a first axis, forward is vmapped over it.

    Adam, SGD and L2 act on each number alone, and a sum of losses has each network's own gradient: training the stack
    *is* training its networks.

    Raises:
        InputError: the networks have buffers (batch norm); train those one by one.
    """

    skeleton: nn.Module

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, buffers = torch.func.stack_module_state(list(networks))
        if buffers:
            raise InputError(f"networks with buffers ({', '.join(buffers)}) cannot be stacked; set stacked to false.")
        self.members = len(networks)
        self.names = list(parameters)
        self.values = nn.ParameterList([nn.Parameter(value.detach().clone()) for value in parameters.values()])
        # the skeleton holds no numbers; kept out of the modules, so that only `values` is saved and optimised
        self.__dict__["skeleton"] = copy.deepcopy(networks[0]).to("meta")

    def forward(
        self, images: Float[Tensor, "networks batch channels height width"], rows: slice = slice(None)
    ) -> Float[Tensor, "networks batch classes"]:
        """Network k of `rows` on images[k]."""
        chosen = dict(zip(self.names, (value[rows] for value in self.values), strict=True))

        def one(parameters: dict[str, Tensor], batch: Tensor) -> Tensor:
            return torch.func.functional_call(self.skeleton, parameters, (batch,))

        return torch.func.vmap(one)(chosen, images)

    def weights_of(self, member: int) -> dict[str, Tensor]:
        """The state dict of one of the networks."""
        return {name: value[member].detach() for name, value in zip(self.names, self.values, strict=True)}

    def squared_norms(self) -> Float[Tensor, " networks"]:
        """Sum of the squares of all parameters, for each network."""
        return torch.stack([value.square().flatten(1).sum(1) for value in self.values]).sum(0)


class Single(nn.Module):
    """Any one network behind the stack's face."""

    members = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Float[Tensor, "one batch channels height width"], rows: slice = slice(None)
    ) -> Float[Tensor, "one batch classes"]:
        return self.network(images[0])[None]

    def weights_of(self, member: int) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def squared_norms(self) -> Float[Tensor, " one"]:
        return torch.stack([p.square().sum() for p in self.network.parameters()]).sum()[None]
