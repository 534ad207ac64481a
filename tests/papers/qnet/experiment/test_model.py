"""The lesson's networks against the arithmetic of the runs they come from, and what `build_model` answers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.experiment.model import MODELS, build_model, cnn8, cnn28


def batch_norm(x, bn):
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=1e-5)


def cnn28_by_hand(net, x):
    """stride-2 conv, BN, ReLU | conv, BN, pool, ReLU | conv, BN, pool, ReLU | FC, BN, ReLU | FC."""
    x = F.relu(batch_norm(F.conv2d(x, net.conv1.weight, net.conv1.bias, stride=2, padding=1), net.bn1))
    x = F.relu(F.max_pool2d(batch_norm(F.conv2d(x, net.conv2.weight, padding=1), net.bn2), 2))
    x = F.relu(F.max_pool2d(batch_norm(F.conv2d(x, net.conv3.weight, padding=1), net.bn3), 2))
    x = F.relu(batch_norm(F.linear(x.flatten(1), net.fc1.weight), net.bn4))
    return F.linear(x, net.fc2.weight, net.fc2.bias)


def cnn8_by_hand(net, x):
    """conv, BN, pool, ReLU | conv, BN, pool, ReLU | conv, BN, ReLU | FC, BN, ReLU | FC."""
    x = F.relu(F.max_pool2d(batch_norm(F.conv2d(x, net.conv1.weight, net.conv1.bias, padding=1), net.bn1), 2))
    x = F.relu(F.max_pool2d(batch_norm(F.conv2d(x, net.conv2.weight, padding=1), net.bn2), 2))
    x = F.relu(batch_norm(F.conv2d(x, net.conv3.weight, padding=1), net.bn3))
    x = F.relu(batch_norm(F.linear(x.flatten(1), net.fc1.weight), net.bn4))
    return F.linear(x, net.fc2.weight, net.fc2.bias)


@torch.no_grad()
@pytest.mark.parametrize(
    ("build", "by_hand", "size", "count"), [(cnn28, cnn28_by_hand, 28, 33_354), (cnn8, cnn8_by_hand, 8, 23_114)]
)
def test_lesson_network_is_its_definition(build, by_hand, size, count):
    torch.manual_seed(0)
    net = build()
    net(torch.randn(64, 1, size, size))  # moves the running statistics away from 0 and 1
    net.eval()
    x = torch.randn(5, 1, size, size)
    torch.testing.assert_close(net(x), by_hand(net, x), rtol=0, atol=1e-5)
    assert sum(p.numel() for p in net.parameters()) == count


def test_biases_stand_only_where_no_bn_follows_and_in_the_first_layer():
    for net in (cnn28(), cnn8()):
        assert [n for n, m in net.named_modules() if getattr(m, "bias", None) is not None and "bn" not in n] == [
            "conv1",
            "fc2",
        ]


def test_the_same_seed_gives_the_weights_of_the_recorded_runs():
    """Layers are made in the order of the runs the lesson was measured with, so their seeds mean the same here."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3, bias=False), nn.Conv2d(32, 32, 3, bias=False)]
    layers += [nn.Linear(288, 64, bias=False), nn.Linear(64, 10)]
    torch.manual_seed(3)
    net = build_model("cnn", classes=10, image_size=28, channels=1)
    for layer, module in zip(layers, (net.conv1, net.conv2, net.conv3, net.fc1, net.fc2), strict=True):
        assert torch.equal(layer.weight, module.weight)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [("cnn", 28, 1), ("cnn", 8, 3), ("resnet20", 28, 1), ("resnet18", 32, 3), ("resnet50", 32, 3), ("alexnet", 64, 3)],
)
def test_build_model(name, size, channels):
    net = build_model(name, classes=7, image_size=size, channels=channels).eval()
    assert net(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_every_listed_model_can_be_built():
    for name in MODELS:
        with torch.device("meta"):
            assert isinstance(build_model(name, 10, 28 if name == "cnn" else 224, 3), nn.Module)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("resnet19", 10, 32, 3), "there is no model 'resnet19'; did you mean resnet18"),
        (("vgg", 10, 32, 3), "did you mean cnn or resnet20 or"),
        (("cnn", 10, 32, 3), "'cnn' takes images of 28x28 .* got 32x32. For 32x32 choose 'resnet20'"),
        (("resnet18", 10, 28, 1), "'resnet18' needs images of 32x32 pixels or more; got 28"),
        (("resnet20", 1, 32, 3), "needs 2 classes and 1 channel or more; got 1 and 3"),
        (("alexnet", 10, 32, 3), "at least 63x63"),
    ],
)
def test_build_model_answers_bad_requests(arguments, answer):
    with pytest.raises(InputError, match=answer):
        build_model(*arguments)
