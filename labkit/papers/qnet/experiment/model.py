"""The networks of the qnet room. Every ReLU is a module of its own: activation quantisers are put behind them.

Which layers are quantised is read off the module order: all weighted layers but the first and the last [official code].
"""

import difflib
from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from labkit.errors import InputError
from labkit.vision import alexnet, resnet18, resnet20, resnet50, resnet152


def cnn28(classes: int = 10, channels: int = 1) -> nn.Sequential:
    """The lesson's network for 28x28 images, 33,354 parameters: (n, channels, 28, 28) -> (n, classes) scores.

    A layer that BN follows has no bias, except the first convolution, as in the runs the lesson is built on [ours].
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 16, 3, stride=2, padding=1),  # 28 -> 14
            bn1=nn.BatchNorm2d(16),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, padding=1, bias=False),
            bn2=nn.BatchNorm2d(32),
            pool2=nn.MaxPool2d(2),  # 14 -> 7
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(32, 32, 3, padding=1, bias=False),
            bn3=nn.BatchNorm2d(32),
            pool3=nn.MaxPool2d(2),  # 7 -> 3
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(32 * 3 * 3, 64, bias=False),
            bn4=nn.BatchNorm1d(64),
            relu4=nn.ReLU(),
            fc2=nn.Linear(64, classes),
        )
    )


def cnn8(classes: int = 10, channels: int = 1) -> nn.Sequential:
    """The same for 8x8 digits, 23,114 parameters: no stride, pooling after the first two convolutions."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 16, 3, padding=1),
            bn1=nn.BatchNorm2d(16),
            pool1=nn.MaxPool2d(2),  # 8 -> 4
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, padding=1, bias=False),
            bn2=nn.BatchNorm2d(32),
            pool2=nn.MaxPool2d(2),  # 4 -> 2
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(32, 32, 3, padding=1, bias=False),
            bn3=nn.BatchNorm2d(32),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(32 * 2 * 2, 64, bias=False),
            bn4=nn.BatchNorm1d(64),
            relu4=nn.ReLU(),
            fc2=nn.Linear(64, classes),
        )
    )


def cnn(classes: int, channels: int, image_size: int) -> nn.Sequential:
    """The lesson's network for the image size at hand.

    Raises InputError for sizes other than 28 and 8.
    """
    sizes = {28: cnn28, 8: cnn8}
    if image_size not in sizes:
        raise InputError(
            f"the model 'cnn' takes images of 28x28 (Fashion-MNIST) or 8x8 pixels (digits); "
            f"got {image_size}x{image_size}. For 32x32 choose 'resnet20', for 224x224 'resnet18'."
        )
    return sizes[image_size](classes, channels)


Build = Callable[..., nn.Module]
_FULLY_CONVOLUTIONAL: dict[
    str, tuple[Build, int]
] = {  # name -> builder, smallest image that leaves a pixel after all strides
    "resnet20": (resnet20, 4),
    "resnet18": (resnet18, 32),
    "resnet50": (resnet50, 32),
    "resnet152": (resnet152, 32),
}
MODELS = ("cnn", *_FULLY_CONVOLUTIONAL, "alexnet")


def build_model(name: str, classes: int, image_size: int, channels: int) -> nn.Module:
    """A freshly initialised network: (n, channels, image_size, image_size) -> (n, classes) scores.

    Raises InputError for a name not in `MODELS`, or an image the network cannot take.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS) or MODELS
        raise InputError(f"there is no model '{name}'; did you mean {' or '.join(near)}?")
    if classes < 2 or channels < 1:
        raise InputError(f"a model needs 2 classes and 1 channel or more; got {classes} and {channels}.")
    if name == "cnn":
        return cnn(classes, channels, image_size)
    if name == "alexnet":
        return alexnet(classes, channels, image_size)
    build, smallest = _FULLY_CONVOLUTIONAL[name]
    if image_size < smallest:
        raise InputError(f"the model '{name}' needs images of {smallest}x{smallest} pixels or more; got {image_size}.")
    return build(classes, channels)
