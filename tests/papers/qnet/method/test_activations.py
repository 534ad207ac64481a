import copy

import pytest
import torch
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.experiment.baselines import hwgq_activations, lsq_activations, xnor_activations
from labkit.papers.qnet.method.activations import quantize_activations
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.soft_quantizer import SoftQuantizer, quantizers, set_temperature, wide_bell
from labkit.papers.qnet.method.weights import quantize_weights


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return self.relu2(self.bn(self.conv(self.relu1(x))) + x)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), Block(), nn.Flatten(), nn.Linear(16, 3)
    )


BATCHES = [torch.randn(16, 2, 6, 6, generator=torch.Generator().manual_seed(k)) for k in range(3)]


def outputs_of_relus(model, x):
    outputs = {}
    hooks = [
        module.register_forward_hook(lambda m, i, output, name=name: outputs.__setitem__(name, output))
        for name, module in model.named_modules()
        if name in ("2", "4.relu1", "4.relu2")
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return outputs


def test_behind_every_relu_in_the_set_of_levels():
    model = network()
    placement = quantize_activations(model, LEVELS["A2"], BATCHES)
    assert placement.quantized == ("2", "4.relu1", "4.relu2")
    assert tuple(quantizers(model, "activations")) == placement.quantized
    for name, output in outputs_of_relus(model.eval(), BATCHES[0]).items():
        quantizer = quantizers(model)[name]
        assert set(output.unique().tolist()) <= set((quantizer.alpha * quantizer.levels).tolist())
        assert len(output.unique()) > 1


def test_calibration_sees_the_float_activations_with_hard_weights_in_eval_mode():
    model = network()
    model(BATCHES[0])  # batch norm has statistics
    quantize_weights(model, LEVELS["W1"])
    state = copy.deepcopy(model.state_dict())
    outputs = outputs_of_relus(copy.deepcopy(model).eval(), BATCHES[0])
    model.train()
    quantize_activations(model, LEVELS["A2"], BATCHES[:1])
    assert all(module.training for module in model.modules())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items() if name in state)
    for name, quantizer in quantizers(model, "activations").items():
        fitted = SoftQuantizer.fit(outputs[name], LEVELS["A2"], init="trimmed")
        torch.testing.assert_close(quantizer.beta, fitted.beta)
        torch.testing.assert_close(quantizer.thresholds, fitted.thresholds)


def test_the_seed_chooses_the_subset_and_is_used():
    """More values than MAX_SAMPLES in the first ReLU: another seed, another subset; the same seed, the same result."""
    x = torch.randn(200, 2, 9, 9, generator=torch.Generator().manual_seed(0))

    def beta(seed):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
        quantize_activations(model, LEVELS["A2"], [x], seed=seed)
        return model[1][1].beta.item()

    assert beta(0) == beta(0) != beta(1)


def test_max_pooling_commutes_with_the_quantiser():
    """Why a quantiser before the stem's pooling equals the official one behind it: soft, hard, and the gradient."""
    quantizer = SoftQuantizer.fit(BATCHES[0].relu(), LEVELS["A2"], init="trimmed")
    set_temperature(quantizer, 9.0)
    for module in (quantizer.train(), quantizer.eval()):
        x = BATCHES[1].clone().requires_grad_()
        one, other = nn.MaxPool2d(2)(module(x)), module(nn.MaxPool2d(2)(x))
        torch.testing.assert_close(one, other)
        if module.training:
            torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (one, other)))


def test_xnor_takes_the_place_of_the_relu():
    model = network()
    quantize_activations(model, xnor_activations, BATCHES)
    outputs = outputs_of_relus(model.eval(), BATCHES[0])
    assert all((output < 0).any() for output in outputs.values())


def test_a_trained_state_loads_after_calibration_with_anything():
    trained = network()
    quantize_activations(trained, LEVELS["A2"], BATCHES)
    set_temperature(trained, 33.0)
    fresh = network()
    quantize_activations(fresh, LEVELS["A2"], [torch.randn(4, 2, 6, 6)])
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.eval()(BATCHES[0]), trained.eval()(BATCHES[0]))
    assert torch.equal(fresh.train()(BATCHES[0]), trained.train()(BATCHES[0]))


@pytest.mark.parametrize("method", [LEVELS["A2"], lsq_activations(2), hwgq_activations(2), xnor_activations])
def test_gradients_reach_the_layer_before(method):
    model = network()
    quantize_activations(model, method, BATCHES, backward=wide_bell(5.0))
    model(BATCHES[0]).square().sum().backward()
    assert model[0].weight.grad.abs().sum() > 0
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.relu, self.idle = nn.Linear(2, 2), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return self.relu(self.fc(self.relu(x)))


class TestErrors:
    def test_a_relu_used_twice_or_never(self):
        model = Twice()
        with pytest.raises(InputError, match=r"the model itself: its .* one ReLU several times; .* quantize\(model"):
            quantize_activations(model, LEVELS["A2"], [torch.randn(8, 2)])
        assert quantizers(model) == {}
        model.relu = nn.Sequential(nn.Identity())
        with pytest.raises(InputError, match="ReLU 'idle' ran 0 times in 1 passes"):
            quantize_activations(model, LEVELS["A2"], [torch.randn(8, 2)])

    def test_one_relu_registered_under_two_names(self):
        relu = nn.ReLU()
        with pytest.raises(InputError, match="one ReLU several times"):
            quantize_activations(nn.Sequential(nn.Linear(2, 2), relu, relu), LEVELS["A1"], [torch.randn(8, 2)])

    def test_no_relu(self):
        with pytest.raises(InputError, match="the model has no ReLU to put a quantiser behind"):
            quantize_activations(nn.Linear(2, 2), LEVELS["A2"], [torch.randn(8, 2)])

    def test_no_batch(self):
        with pytest.raises(InputError, match="sample_batches is empty"):
            quantize_activations(network(), LEVELS["A2"], [])

    def test_twice(self):
        model = network()
        quantize_activations(model, LEVELS["A2"], BATCHES)
        with pytest.raises(InputError, match=r"quantised already \(2, 4.relu1.*start from a network with ReLUs only"):
            quantize_activations(model, LEVELS["A2"], BATCHES)

    def test_a_dead_relu_is_named(self):
        model = network()
        nn.init.constant_(model[1].bias, -1e3)
        with pytest.raises(InputError, match=r"'2' cannot be quantised: the samples are all zero.*ReLU dead"):
            quantize_activations(model, LEVELS["A2"], BATCHES)
