"""The weight quantiser: known grids, batch norm folded, and the straight-through shadow."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.errors import InputError
from labkit.papers.brelu.method.weights import (
    Layer,
    layers,
    quantize_layers,
    quantize_straight_through,
    weight_codes,
    weight_step,
)


def trained_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor, low in ((norm.weight, -1.0), (norm.bias, -1.0), (norm.running_mean, -1.0), (norm.running_var, 0.3)):
            tensor.copy_(torch.rand(channels, generator=generator) * 2 + low)
    return norm


@pytest.fixture
def layer() -> Layer:
    """In float64: a weight so near to a half that another machine rounds it the other way is then improbable."""
    torch.manual_seed(0)
    return Layer(nn.Conv2d(3, 6, 3, stride=2, padding=1), trained_norm(6)).eval().double()


def test_step_loses_neither_end():
    assert weight_step(torch.tensor([-1.0, 0.5])) == 1 / 128
    assert weight_step(torch.tensor([-1.0, 1.27])) == pytest.approx(0.01)
    assert weight_codes(torch.tensor([-1.28, 1.27, 0.004, 9.0]), 0.01).tolist() == [-128, 127, 0, 127]
    assert weight_step(torch.tensor([-1.0, 0.7]), bits=4) == 1 / 8


def test_folding_is_exact(layer):
    """Check 7: convolution and batch norm, negative gammas among them, equal the folded layer."""
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.norm(layer.conv(x)), rtol=0, atol=1e-12)


def test_one_step_on_folded_weights_is_one_per_channel_through_batch_norm(layer):
    """Q_s(W k) = k Q_(s/k)(W): s_c = s sqrt(var + eps) / gamma_c."""
    quantize_layers(layer)
    weight, _ = layer.used()
    k = layer.norm.weight / torch.sqrt(layer.norm.running_var + layer.norm.eps)
    per_channel = (float(layer.step) / k)[:, None, None, None]
    by_channel = torch.round(layer.conv.weight / per_channel).clamp(-128, 127) * per_channel
    flipped = (k < 0)[:, None, None, None]
    mirrored = torch.round(-layer.conv.weight / per_channel.abs()).clamp(-128, 127) * -per_channel.abs()
    torch.testing.assert_close(weight, k[:, None, None, None] * torch.where(flipped, mirrored, by_channel))


def test_batch_norm_is_frozen_but_its_bias_learns(layer):
    before = copy.deepcopy(layer.norm.state_dict())
    layer.train()
    layer(torch.randn(4, 3, 8, 8, dtype=torch.float64)).sum().backward()
    assert not layer.norm.training
    assert layer.norm.weight.grad is None
    assert layer.norm.bias.grad is not None
    for name, value in layer.norm.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_straight_through_is_the_papers_shadow_loop():
    """Step from Wq to Wn, then Wf += Wn - Wq: with SGD and momentum the same weights, step by step."""
    generator = torch.Generator().manual_seed(0)
    x, target, start = (torch.randn(n, generator=generator, dtype=torch.float64) for n in ((20, 5), 20, 5))
    start, step = start * 0.1, 0.004  # float64, so that no weight comes so near to a half that rounding decides
    ours = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([ours], lr=0.05, momentum=0.9)
    shadow, velocity = start.clone(), torch.zeros_like(start)
    for _ in range(10):
        optimizer.zero_grad()
        F.mse_loss(x @ quantize_straight_through(ours, step), target).backward()
        optimizer.step()
        quantized = (torch.round(shadow / step).clamp(-128, 127) * step).requires_grad_()
        (gradient,) = torch.autograd.grad(F.mse_loss(x @ quantized, target), quantized)
        velocity = 0.9 * velocity + gradient
        new = quantized.detach() - 0.05 * velocity
        shadow = shadow + new - quantized.detach()
        torch.testing.assert_close(ours.detach(), shadow, rtol=0, atol=1e-12)


def test_per_channel_steps_are_finer(layer):
    exact = layer.folded()[0].detach()
    errors = []
    for per_channel in (False, True):
        quantize_layers(layer, 4, per_channel)
        errors.append(float((layer.used()[0].detach() - exact).square().mean()))
    assert errors[1] < errors[0]


def test_only_layers_are_found(layer):
    assert list(layers(nn.Sequential(nn.ReLU(), layer))) == ["1"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weight_step(torch.zeros(3)), "all zero or not finite"),
        (lambda: weight_step(torch.ones(3), bits=9), "2 to 8 bits; got 9"),
        (lambda: Layer(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), "`trace` pads with a node"),
        (lambda: Layer(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), "no running statistics"),
        (lambda: Layer(nn.Conv2d(1, 1, 1)).codes(), "no step yet: call `quantize_layers`"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
