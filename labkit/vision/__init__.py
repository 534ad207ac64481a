"""Networks that more than one room uses. Every activation is a module of its own, which a method can replace."""

from labkit.vision.alexnet import AlexNet, alexnet
from labkit.vision.resnet import CifarResNet, ResNet, resnet18, resnet20, resnet50, resnet152

__all__ = ["AlexNet", "CifarResNet", "ResNet", "alexnet", "resnet18", "resnet20", "resnet50", "resnet152"]
