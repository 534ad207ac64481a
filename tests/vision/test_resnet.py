"""ResNets: counts and names of the published ones, a block recomputed from its definition, He's initialisation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.vision import resnet18, resnet20, resnet50, resnet152
from labkit.vision.resnet import BasicBlock, Bottleneck, PadChannels, Projection


@pytest.fixture(scope="module")
def nets():
    """One of each, without memory for its weights where nothing is computed."""
    with torch.device("meta"):
        return {build.__name__: build() for build in (resnet18, resnet50, resnet152, resnet20)}


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("resnet152", 60_192_808), ("resnet20", 269_722)],
)
def test_parameter_counts(nets, name, count):
    assert sum(p.numel() for p in nets[name].parameters()) == count


@pytest.mark.parametrize(
    ("name", "depths", "convolutions"),
    [("resnet18", (2, 2, 2, 2), 2), ("resnet50", (3, 4, 6, 3), 3), ("resnet152", (3, 8, 36, 3), 3)],
)
def test_state_dict_has_torchvisions_names(nets, name, depths, convolutions):
    def norm(prefix):
        return {f"{prefix}.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}

    expected = {"conv1.weight", "fc.weight", "fc.bias"} | norm("bn1")
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            for k in range(1, convolutions + 1):
                expected |= {f"{prefix}.conv{k}.weight"} | norm(f"{prefix}.bn{k}")
            if block == 0 and (stage > 1 or convolutions == 3):
                expected |= {f"{prefix}.downsample.0.weight"} | norm(f"{prefix}.downsample.1")
    assert set(nets[name].state_dict()) == expected


@pytest.mark.parametrize(
    ("name", "relus"),
    [("resnet18", 1 + 8 * 2), ("resnet50", 1 + 16 * 3), ("resnet152", 1 + 50 * 3), ("resnet20", 1 + 9 * 2)],
)
def test_every_relu_is_a_module_of_its_own(nets, name, relus):
    assert sum(isinstance(module, nn.ReLU) for module in nets[name].modules()) == relus  # modules() skips repeats


@pytest.mark.parametrize(("build", "size", "classes"), [(resnet18, 64, 7), (resnet50, 32, 5), (resnet20, 32, 10)])
def test_shapes_and_registration_order_is_execution_order(build, size, classes):
    net = build(classes=classes, channels=1).eval()
    ran = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ReLU):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        assert net(torch.randn(2, 1, size, size)).shape == (2, classes)
    assert ran == [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.ReLU)]


def norm(x, bn):
    """Batch norm in evaluation, from its definition."""
    shape = (1, -1, 1, 1)
    x = (x - bn.running_mean.view(shape)) / (bn.running_var.view(shape) + 1e-5).sqrt()
    return x * bn.weight.view(shape) + bn.bias.view(shape)


def randomise(block):
    """Statistics and affine parameters away from 0 and 1, where mistakes would not show."""
    generator = torch.Generator().manual_seed(0)
    for tensor in [*block.parameters(), *block.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.1, 1.0, generator=generator)
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.sub_(0.55)
    return block.double().eval()


@torch.no_grad()
def test_basic_block_is_its_definition():
    block = randomise(BasicBlock(4, 6, 2, Projection(4, 6, 2)))
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    y = F.conv2d(x, block.conv1.weight, stride=2, padding=1)
    y = F.conv2d(norm(y, block.bn1).clamp(min=0), block.conv2.weight, padding=1)
    shortcut = norm(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    torch.testing.assert_close(block(x), (norm(y, block.bn2) + shortcut).clamp(min=0), rtol=0, atol=1e-12)


@torch.no_grad()
def test_bottleneck_is_its_definition_and_strides_in_the_3x3():
    block = randomise(Bottleneck(16, 4, 2, Projection(16, 16, 2)))
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    y = norm(F.conv2d(x, block.conv1.weight), block.bn1).clamp(min=0)
    y = norm(F.conv2d(y, block.conv2.weight, stride=2, padding=1), block.bn2).clamp(min=0)
    y = norm(F.conv2d(y, block.conv3.weight), block.bn3)
    shortcut = norm(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    torch.testing.assert_close(block(x), (y + shortcut).clamp(min=0), rtol=0, atol=1e-12)


def test_option_a_shortcut_keeps_every_second_pixel_and_adds_zeros():
    x = torch.randn(2, 4, 6, 6)
    y = PadChannels(4, 8, 2)(x)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


def test_convolutions_start_with_hes_variance():
    torch.manual_seed(0)
    for conv in (m for m in resnet18().modules() if isinstance(m, nn.Conv2d)):
        fan_out = conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1]
        error_of_std = (2 / fan_out) ** 0.5 / (2 * conv.weight.numel()) ** 0.5
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, abs=5 * error_of_std)


@torch.no_grad()
@pytest.mark.parametrize("build", [resnet18, resnet20])
def test_channels_last_gives_the_same_scores(build):
    torch.manual_seed(0)
    net, x = build(classes=10).eval(), torch.randn(2, 3, 32, 32)
    scores = net(x)
    last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, scores, rtol=1e-4, atol=1e-4)
