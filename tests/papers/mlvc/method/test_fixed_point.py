"""Exact arithmetic: integers that no order of summation changes, close to the float networks they were made from."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.errors import InputError
from labkit.kernels.flow_warp import chained_warp
from labkit.papers.mlvc.method import fixed_point
from labkit.papers.mlvc.method.fixed_point import ExactConv, ExactIgdn, ExactUp2, ExactWarp, integer_root, receiver
from labkit.papers.mlvc.method.gdn import Gdn
from labkit.papers.mlvc.method.references import References

STEP = 2.0**-12


def doubles(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LAYERS = {
    "3x3": lambda: nn.Conv2d(5, 7, 3, padding=1),
    "stride": lambda: nn.Conv2d(5, 7, 5, stride=2, padding=2, bias=False),
    "dilated": lambda: nn.Conv2d(5, 7, 3, padding=4, dilation=4),
    "transposed": lambda: nn.ConvTranspose2d(5, 7, 5, stride=2, padding=2, output_padding=1),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_convolution_is_the_float_one_but_for_its_steps(kind):
    """Each input is off by half a step at most, each weight by half of 2^-16."""
    torch.manual_seed(0)
    layer = LAYERS[kind]().double()
    x = doubles(2, 5, 12, 10)
    per_output = layer.weight.abs().sum().item() * STEP / 2 + 200 * 2.0**-17 * x.abs().max().item()
    assert (ExactConv(layer, kind)(x) - layer(x)).abs().max() < per_output
    assert (ExactConv(layer, kind)(x) - layer(x)).abs().max() > 0  # it is rounded


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("strip", [1, 200, 1500])
def test_any_strips_give_the_same_bits(kind, strip, monkeypatch):
    """Sums are exact, so strips, reversed channels and another memory format change nothing at all."""
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    exact, x = ExactConv(layer, kind), doubles(1, 5, 13, 9, size=30.0)
    whole = exact(x)
    assert torch.equal(exact(x.contiguous(memory_format=torch.channels_last)), whole)
    monkeypatch.setattr(fixed_point, "STRIP", strip)
    assert torch.equal(exact(x), whole)
    order = torch.arange(4, -1, -1)
    with torch.no_grad():
        layer.weight.copy_(layer.weight[order] if kind == "transposed" else layer.weight[:, order])
    assert torch.equal(ExactConv(layer, kind)(x[:, order]), whole)


def test_floats_would_not_give_the_same_bits():
    """The test above could be passed by luck only if float sums were order-free, too: they are not."""
    x, w = doubles(1, 500, 8, 8).float(), doubles(3, 500, 3, 3, seed=1).float()
    order = torch.arange(499, -1, -1)
    assert not torch.equal(F.conv2d(x, w), F.conv2d(x[:, order], w[:, order]))


def test_extreme_inputs_stay_integers():
    """Inputs at the limit and weights just allowed: the largest sum there can be is still exact."""
    layer = nn.Conv2d(64, 1, 3, bias=False)
    nn.init.constant_(layer.weight, 4095.0 / (64 * 9))
    x = torch.full((1, 64, 3, 3), 1e9, dtype=torch.float64)
    exact = ExactConv(layer, "w")
    in_python = sum(int(w) for w in exact.weight.flatten().tolist()) * 2**24
    assert int(exact(x).item() * 2**28) == in_python
    assert in_python < 2**52
    nn.init.constant_(layer.weight, 4100.0 / (64 * 9))
    with pytest.raises(InputError, match="weights of w are too large"):
        ExactConv(layer, "w")
    nn.init.constant_(layer.weight, float("nan"))
    with pytest.raises(InputError, match="too large"):
        ExactConv(layer, "w")


def test_integer_roots():
    n = torch.tensor([0, 1, 2, 3, 4, 8, 9, 2**51, 2**52 - 1, (2**26 - 1) ** 2, (2**26 - 1) ** 2 - 1]).double()
    assert integer_root(n).tolist() == [math.isqrt(int(value)) for value in n.tolist()]


def test_igdn():
    """Also against integers of Python, on a few numbers."""
    torch.manual_seed(0)
    layer = Gdn(3, inverse=True)
    with torch.no_grad():
        layer.gamma_root.add_(0.2 * torch.rand(3, 3))
    x = doubles(1, 3, 4, 4, size=5.0)
    torch.testing.assert_close(ExactIgdn(layer, "g")(x), layer.double()(x), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        layer.gamma_root.fill_(100.0)
    with pytest.raises(InputError, match="gamma of g is too large"):
        ExactIgdn(layer, "g")
    with pytest.raises(InputError, match="only IGDN"):
        ExactIgdn(Gdn(3), "g")


def test_the_warp_in_steps():
    """On images in whole steps and flows in 1/64 pixel the float warp is exact but for its last digits."""
    images = (doubles(2, 4, 3, 12, 10) / STEP).round() * STEP
    flows = (doubles(2, 4, 2, 12, 10, seed=1, size=3.0) * 64).round() / 64
    warped, chain = ExactWarp()(images, flows)
    wanted, first = chained_warp(images[:, :1], flows[:, :1])
    torch.testing.assert_close(warped[:, :1], wanted, rtol=0, atol=1e-10)
    assert torch.equal(chain[:, 0], flows[:, 0])
    for k in range(4):  # each reference at its own place in the chain, which is rounded at every step
        one, _ = chained_warp(images[:, k : k + 1], chain[:, k : k + 1])
        torch.testing.assert_close(warped[:, k : k + 1], one, rtol=0, atol=1e-10)
    exact_steps = warped * 2**24
    assert torch.equal(exact_steps, exact_steps.round())
    smooth = flows[:, :, :, :1, :1].expand_as(flows)
    torch.testing.assert_close(ExactWarp()(images, smooth)[1], smooth.cumsum(1), rtol=0, atol=0)
    assert first.shape == (2, 1, 2, 12, 10)


def test_enlarging():
    x = (doubles(2, 3, 5, 4) / STEP).round() * STEP
    wanted = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(ExactUp2()(x), wanted)


def test_a_receiver_does_what_the_network_does(codec):
    """But for steps of 2^-12; and it has no sender's half, so it cannot search for motion."""
    network = codec.coders[2].network
    twin = receiver(network)
    frames = torch.rand(3, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    references = References.start(frames[0]).push(frames[1], torch.rand(1, 2, 64, 64) * 3)
    exact = References(references.frames.double(), references.flows.double())
    m = torch.randint(-3, 4, (1, len(network.motion_coding.prior.median), 4, 4)).float()
    y = torch.randint(-3, 4, (1, network.residual_coding.analysis[-1].out_channels, 4, 4)).float()
    z = torch.randint(-3, 4, (1, len(network.hyperprior.prior.median), 1, 1)).float()
    with torch.no_grad():
        results = []
        for one, both, kind in ((network, references, torch.float32), (twin, exact, torch.float64)):
            flow = one.refine_motion(one.decode_motion(m.to(kind), one.predict_motion(both)), both)
            compensation = one.compensate(flow, both)
            shown = one.reconstruct(y.to(kind), compensation)
            results.append(
                (flow.double(), one.scales(z.to(kind)).double(), compensation.prediction.double(), shown.double())
            )
    for name, wanted, got in zip(("flow", "sigma", "prediction", "frame"), *results, strict=True):
        size = max(1.0, wanted.abs().max().item())
        assert (got - wanted).abs().median() < 0.01 * size, name
        assert got.dtype == torch.float64
    assert not hasattr(twin, "motion_estimation")
    assert not hasattr(twin.residual_coding, "analysis")
    assert not [name for name, _ in twin.named_parameters()]
