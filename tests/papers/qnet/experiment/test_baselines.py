import math

import pytest
import torch
from scipy import integrate, stats
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.experiment.baselines import (
    binary_weights,
    dorefa_activations,
    dorefa_weights,
    half_gaussian_levels,
    hwgq_activations,
    lsq_activations,
    lsq_weights,
    ternary_weights,
    xnor_activations,
)
from labkit.papers.qnet.method.batch_norm import reestimate_batch_norm
from labkit.papers.qnet.method.levels import LEVELS, bits_needed
from labkit.papers.qnet.method.soft_quantizer import quantizers
from labkit.papers.qnet.method.weights import quantize_weights

W = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.2
A = (torch.randn(40, 6, 5, 5, generator=torch.Generator().manual_seed(1)) + 0.1).relu()
WEIGHTS = {
    "BWN": (binary_weights, 1), "TWN": (ternary_weights, 2),
    **{f"DoReFa-{k}": (dorefa_weights(k), k) for k in (1, 2, 3)},
    **{f"LSQ-{k}": (lsq_weights(k), k) for k in (2, 3, 4)},
}  # fmt: skip
ACTIVATIONS = {
    "XNOR": (xnor_activations, 1),
    **{f"{name}-{k}": (method(k), k) for k in (1, 2, 3)
       for name, method in (("DoReFa", dorefa_activations), ("LSQ", lsq_activations), ("HWGQ", hwgq_activations))},
}  # fmt: skip
ALL = {**{n: (W, *m) for n, m in WEIGHTS.items()}, **{n + " activations": (A, *m) for n, m in ACTIVATIONS.items()}}


@pytest.mark.parametrize("name", ALL)
def test_every_rival_keeps_the_contract(name):
    """y = scale * levels[codes] to the bit, in train and eval; within its bits; a finite gradient that is not zero."""
    x, method, bits = ALL[name]
    quantizer = method(x)
    inputs = x.clone().requires_grad_()
    y = quantizer(inputs)
    assert torch.equal(y, quantizer.scale(x) * quantizer.levels[quantizer.codes(x).int()])
    assert torch.equal(quantizer.eval()(x), y)
    assert bits_needed(quantizer.levels.tolist()) == bits
    assert len(quantizer.codes(x).unique()) > len(quantizer.levels) / 2
    (gradient,) = torch.autograd.grad(y.square().sum(), inputs)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_bwn_is_the_best_scaled_sign_of_each_filter():
    """mean |w| minimises |w - a sign(w)|^2 over a."""
    y = binary_weights(W)(W)
    for filter_, quantized in zip(W, y, strict=True):
        error = (filter_ - quantized).square().sum()
        for factor in (0.95, 1.05):
            assert (filter_ - factor * quantized).square().sum() > error


@pytest.mark.slow
def test_bwn_untrained_with_batch_norm_equals_w1():
    """A free identity of the sheet: a filter's scale is the next batch norm's business, so BWN + BN = W1 + BN."""
    torch.manual_seed(0)
    batches = [torch.randn(32, 3, 8, 8) for _ in range(3)]
    outputs = []
    for method in (LEVELS["W1"], binary_weights):
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-12), nn.ReLU(),
            nn.Conv2d(8, 2, 1),
        )  # fmt: skip
        quantize_weights(model, method)
        reestimate_batch_norm(model, batches)
        outputs.append(model.eval()(batches[0]))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)


def test_twn_threshold_and_scale():
    y = ternary_weights(W)(W)
    kept = W.abs() > 0.7 * W.abs().mean()
    assert torch.equal(y != 0, kept)
    torch.testing.assert_close(y[kept].abs(), W[kept].abs().mean().expand(int(kept.sum())))
    assert torch.equal(y.sign(), W.sign() * kept)


def test_twn_gradient_is_the_identity():
    x = W.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(ternary_weights(W)(x).sum(), x)[0], torch.ones_like(W))


class TestLSQ:
    def test_first_step_of_the_paper_for_weights(self):
        assert lsq_weights(2)(W).step.item() == pytest.approx(2 * W.abs().mean().item() / 1)
        assert lsq_weights(4)(W).step.item() == pytest.approx(2 * W.abs().mean().item() / math.sqrt(7))

    def test_gradient_scale_of_activations_counts_one_example(self):
        quantizer = lsq_activations(2)(A)
        one = torch.autograd.grad(quantizer(A[:1]).sum(), quantizer.step)[0]
        ten = torch.autograd.grad(quantizer(A[:1].repeat(10, 1, 1, 1)).sum(), quantizer.step)[0]
        torch.testing.assert_close(ten, 10 * one, rtol=1e-4, atol=1e-4)

    def test_one_bit_weights_have_no_lsq(self):
        with pytest.raises(InputError, match="LSQ of weights takes 2 to 8 bits; got 1; for 1-bit weights use binary"):
            lsq_weights(1)


def test_dorefa_activations_pass_gradient_within_the_clip():
    quantizer = dorefa_activations(2, clip=1.0)(A)
    x = torch.tensor([-0.5, 0.2, 0.6, 1.5], requires_grad=True)
    y = quantizer(x)
    torch.testing.assert_close(y, torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]))
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 1, 1, 0]


class TestHWGQ:
    @pytest.mark.parametrize(("count", "levels"), [(1, [0.7979]), (2, [0.4528, 1.5104]), (3, [0.3177, 1.0, 1.8936])])
    def test_levels_are_the_upper_half_of_maxs_table(self, count, levels):
        """Max (1960): 2, 4 and 6 levels of N(0, 1)."""
        got, thresholds = half_gaussian_levels(count)
        assert got == pytest.approx(levels, abs=2e-4)
        assert thresholds[0] == 0

    def test_each_level_is_the_mean_of_its_interval(self):
        levels, thresholds = half_gaussian_levels(7)
        for level, low, high in zip(levels, thresholds, [*thresholds[1:], math.inf], strict=True):
            mass = integrate.quad(stats.norm.pdf, low, high)[0]
            assert level == pytest.approx(integrate.quad(lambda z: z * stats.norm.pdf(z), low, high)[0] / mass)

    def test_sigma_is_estimated_and_the_gradient_is_a_clipped_relu(self):
        samples = 0.5 * torch.randn(50_000, generator=torch.Generator().manual_seed(0))
        quantizer = hwgq_activations(2)(samples.relu())
        assert quantizer.sigma.item() == pytest.approx(0.5, rel=0.02)
        x = torch.tensor([-1.0, 0.1, 0.9, 1.1], requires_grad=True)  # the highest level is 0.95
        assert torch.autograd.grad(quantizer(x).sum(), x)[0].tolist() == [0, 1, 1, 0]


def test_xnor_gradient_window():
    x = torch.tensor([[-1.5, -0.5, 0.5, 1.5]], requires_grad=True)
    y = xnor_activations(x)(x)
    assert y.tolist() == [[-1, -1, 1, 1]]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("method", [m for m, _ in WEIGHTS.values()])
def test_in_the_harness(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    assert quantize_weights(model, method).quantized == ("1",)
    model(torch.randn(5, 4)).sum().backward()
    assert quantizers(model, "weights")["1"].codes(model[1].parametrizations.weight.original).shape == (8, 8)


@pytest.mark.parametrize(("make", "bits"), [(dorefa_weights, 0), (hwgq_activations, 5), (lsq_activations, 9)])
def test_impossible_bits(make, bits):
    with pytest.raises(InputError, match=f"takes . to . bits; got {bits}"):
        make(bits)


def test_a_dead_layer():
    for method in (hwgq_activations(1), lsq_activations(1), dorefa_activations(1)):
        with pytest.raises(InputError, match=r"Is .*ReLU dead"):
            method(torch.zeros(10))
