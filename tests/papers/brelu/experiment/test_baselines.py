"""The rivals: known values of their quantisers, and what each is allowed to do."""

import pytest
import torch

from labkit.papers.brelu.experiment import baselines
from labkit.papers.brelu.experiment.model import vdsr
from labkit.papers.brelu.method.bounded_relu import bounded_relus
from labkit.papers.brelu.method.network import calibrate, set_bounds
from labkit.papers.brelu.method.weights import layers


@pytest.fixture
def setting():
    torch.manual_seed(0)
    network, x = vdsr(4, 8).eval(), torch.randn(4, 1, 16, 16) * 0.3
    return network, calibrate(network, [x]), x


def test_asymmetric_weights_hold_zero_and_256_codes():
    weight = torch.linspace(-0.3, 1.0, 5001)
    quantized = baselines.asymmetric(weight)
    assert len(quantized.unique()) <= 256
    assert 0.0 in quantized
    assert float((quantized - weight).abs().max()) <= 0.5001 * 1.3 / 255 + 1.3 / 255
    lopsided = baselines.asymmetric(torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(lopsided, torch.tensor([0.5, 1.0]), rtol=0, atol=1 / 255)


def test_dorefa_weights_span_those_of_the_float_network():
    """Two bits: four evenly spaced values up to the largest weight; gradients are the tanh's."""
    weight = torch.linspace(-2, 2, 401, requires_grad=True)
    quantized = baselines.dorefa_in_range(weight, 2)
    torch.testing.assert_close(quantized.detach().unique(), torch.tensor([-2.0, -2 / 3, 2 / 3, 2.0]))
    (slope,) = torch.autograd.grad(quantized.sum(), weight)
    assert float(slope[200]) == pytest.approx(2.0 / float(torch.tanh(torch.tensor(2.0))), rel=1e-4)


def test_lsq_activations_count_the_features_of_one_example():
    """g = 1 / sqrt(N Q_P): a batch twice as long, of the same examples, gives twice the gradient of the step."""
    x = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 2
    gradients = []
    for batch in (x, torch.cat([x, x])):
        relu = baselines.LearnedStepReLU(1.5, 15)
        relu(batch).sum().backward()
        gradients.append(float(relu.step.grad))
    assert gradients[1] == pytest.approx(2 * gradients[0], rel=1e-5)


def test_each_rival_runs_and_leaves_the_original_alone(setting):
    network, statistics, x = setting
    wanted = network(x).detach()
    rivals = {
        "gemmlowp": (baselines.gemmlowp(network, statistics), 0.1),
        "tensorrt": (baselines.tensorrt(network, statistics), 1.0),
        "dorefa": (baselines.dorefa(network, statistics, 15, 8), 1.5),
        "lsq": (baselines.lsq(network, statistics, 15), 1.5),
    }
    for name, (rival, tolerance) in rivals.items():
        error = float((rival(x).detach() - wanted).abs().max() / wanted.abs().max())
        assert 0 < error < tolerance, name
    torch.testing.assert_close(network(x).detach(), wanted)
    assert all(layer.step == 0 for layer in layers(network).values())


def test_bounds_that_learn_get_a_gradient(setting):
    network, statistics, x = setting
    set_bounds(network, statistics, "p95")
    learnt = baselines.learn_bounds(network)
    assert len(learnt) == 3
    network(x).square().sum().backward()
    assert all(bound.grad is not None and float(bound.grad) != 0 for bound in learnt)
    assert len(bounded_relus(network)) == 3
