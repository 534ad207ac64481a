import pytest
import torch
from torch import nn

from labkit.errors import InputError
from labkit.vision import AlexNet, alexnet


@pytest.fixture(scope="module")
def net():
    """At 63 pixels the classifier is small enough to compute with."""
    torch.manual_seed(0)
    return alexnet(classes=10, image_size=63).eval()


def test_parameter_count_at_full_size():
    """Summed by hand: convolutions, hidden layers, scores with bias, two numbers a channel for BN."""
    with torch.device("meta"):
        net = AlexNet()
    convolutions = 3 * 96 * 11**2 + 96 * 256 * 5**2 + (256 * 384 + 384 * 384 + 384 * 256) * 3**2
    hidden = 256 * 6 * 6 * 4096 + 4096 * 4096
    norms = 2 * (96 + 256 + 384 + 384 + 256 + 4096 + 4096)
    total = sum(p.numel() for p in net.parameters())
    assert total == convolutions + hidden + 4096 * 1000 + 1000 + norms == 62_387_912


@pytest.mark.parametrize(("size", "side"), [(224, 6), (227, 6), (63, 1)])
def test_features_have_the_size_the_classifier_expects(size, side):
    with torch.device("meta"):
        net = AlexNet(image_size=size)
        assert net.features(torch.empty(1, 3, size, size)).shape == (1, 256, side, side)
    assert net.classifier.fc6.in_features == 256 * side * side


def test_scores_and_order(net):
    ran = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name.split(".")[-1]))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ReLU)
    ]
    with torch.no_grad():
        assert net(torch.randn(2, 3, 63, 63)).shape == (2, 10)
    for hook in hooks:
        hook.remove()
    weighted = [f"conv{k}" for k in range(1, 6)] + ["fc6", "fc7"]
    assert ran == [name for k, layer in enumerate(weighted, start=1) for name in (layer, f"relu{k}")] + ["fc8"]


def test_initialisation(net):
    for layer in (m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        fan_in = layer.weight[0].numel()
        error_of_std = (2 / fan_in) ** 0.5 / (2 * layer.weight.numel()) ** 0.5
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, abs=5 * error_of_std)
    assert not net.classifier.fc8.bias.any()


@torch.no_grad()
def test_channels_last_gives_the_same_scores(net):
    x = torch.randn(2, 3, 63, 63)
    scores = net(x)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), scores, rtol=1e-4, atol=1e-4)


def test_too_small():
    with pytest.raises(InputError, match="at least 63x63 pixels; got 62x62"):
        alexnet(image_size=62)
