import copy
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.experiment.baselines import binary_weights
from labkit.papers.qnet.method.activations import quantize_activations
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.soft_quantizer import (
    SoftQuantizer,
    quantizer_parameters,
    quantizers,
    set_temperature,
    wide_bell,
)
from labkit.papers.qnet.method.weights import (
    OfficialClipping,
    Placement,
    float_weight,
    quantize_weights,
)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, x):
        return self.conv(x) + self.shortcut(x)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Residual(), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 16, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


X = torch.randn(10, 2, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(10) % 3


def test_first_and_last_stay_float():
    model = network()
    placement = quantize_weights(model, LEVELS["W2"])
    assert placement == Placement(quantized=("3.conv", "3.shortcut", "7"), excluded=("0", "9"))
    assert tuple(quantizers(model, "weights")) == placement.quantized
    assert quantizers(model, "activations") == {}
    model.eval()
    for name in placement.quantized:
        assert len(model.get_submodule(name).weight.unique()) <= 3
    for name in placement.excluded:
        assert len(model.get_submodule(name).weight.unique()) > 10


def test_soft_output_nears_the_float_weights_scale():
    """alpha beta = 1 at the start: a quantised weight lives on the scale of the float one."""
    model = network()
    before = model[7].weight.detach().clone()
    quantize_weights(model, LEVELS["W3pm4"])
    hard = model.eval()[7].weight
    assert (hard - before).square().mean() < 0.1 * before.square().mean()


def official_step(model, quantizer_of, images, labels):
    """The official scheme: floats aside, quantised weights written into the layers, both passes, floats back, and then
    dL/dy turned into dL/dx, dL/dalpha, dL/dbeta by hand. Written here with numpy-like formulas only."""
    saved = {name: model.get_submodule(name).weight.data.clone() for name in quantizer_of}
    for name, (levels, b, alpha, beta, T) in quantizer_of.items():
        g = torch.sigmoid(T * (beta * saved[name][..., None] - b))
        model.get_submodule(name).weight.data.copy_(alpha * ((g * levels.diff()).sum(-1) + levels[0]))
    F.cross_entropy(model(images), labels).backward()
    gradients = {}
    for name, (levels, b, alpha, beta, T) in quantizer_of.items():
        x, dy = saved[name], model.get_submodule(name).weight.grad
        g = torch.sigmoid(T * (beta * x[..., None] - b))
        y = alpha * ((g * levels.diff()).sum(-1) + levels[0])
        bump = T * (levels.diff() * g * (1 - g)).sum(-1)
        gradients[name] = (dy * alpha * beta * bump, (dy * y).sum() / alpha, (dy * alpha * x * bump).sum())
        model.get_submodule(name).weight.data.copy_(x)
    return gradients


@pytest.mark.parametrize("levels", [LEVELS["W1"], LEVELS["W2"], LEVELS["W3pm4"]])
def test_parametrisation_equals_the_official_save_and_restore(levels):
    """Sheet check 11: the same dL/dw, dL/dalpha and dL/dbeta, and the same gradients elsewhere."""
    model, images = network().double(), X.double()
    reference = copy.deepcopy(model)
    quantize_weights(model, levels)
    set_temperature(model, 7.0)
    facts = {
        name: (q.levels.double(), q.thresholds.double(), q.alpha.item(), q.beta.item(), 7.0)
        for name, q in quantizers(model).items()
    }
    F.cross_entropy(model(images), LABELS).backward()
    wanted = official_step(reference, facts, images, LABELS)
    for name, quantizer in quantizers(model).items():
        got = (float_weight(model, name).grad, quantizer.alpha.grad, quantizer.beta.grad)
        for a, b in zip(got, wanted[name], strict=True):
            torch.testing.assert_close(a.double(), b.double(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(model[0].weight.grad, reference[0].weight.grad, rtol=1e-6, atol=1e-9)


def test_state_round_trip_keeps_temperature_and_floats():
    model = network()
    quantize_weights(model, LEVELS["W2"])
    set_temperature(model, 42.0, "weights")
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    restored = network(seed=1)
    quantize_weights(restored, LEVELS["W2"])
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored.train()(X), model.train()(X))
    assert restored.get_submodule("3.conv").parametrizations.weight[0].temperature == 42


@pytest.mark.slow
def test_training_moves_weights_and_scales():
    model = network()
    quantize_weights(model, LEVELS["W2"], backward=wide_bell(5.0), learn_thresholds=True)
    assert len(quantizer_parameters(model)) == 9
    own = [*quantizer_parameters(model), *(float_weight(model, name) for name in quantizers(model))]
    before = [p.detach().clone() for p in own]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(30):
        set_temperature(model, 2.0 * (step + 1))
        loss = F.cross_entropy(model(X), LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]  # over 40 seeds the ratio is 0.03 on average, 0.33 at most
    assert all(not torch.equal(a, b) for a, b in zip(before, own, strict=True))


def test_layers_at_index_one_keep_their_names():
    """The name of an activation quantiser ends in .1, where it stands behind its ReLU; that of a layer may as well."""
    block = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)))
    model = nn.Sequential(nn.Conv2d(2, 4, 1), block, nn.Conv2d(4, 2, 1))
    placement = quantize_weights(model, LEVELS["W2"])
    quantize_activations(model, LEVELS["A2"], [X])
    assert placement.quantized == ("1.1", "1.2.1")
    assert tuple(quantizers(model, "weights")) == placement.quantized
    assert tuple(quantizers(model, "activations")) == ("1.0",)
    model(X).sum().backward()
    OfficialClipping(model)
    assert all(float_weight(model, name).grad is not None for name in placement.quantized)


def test_set_temperature_tells_weights_from_activations():
    model = nn.Sequential(nn.Linear(2, 2), SoftQuantizer((0.0, 1.0), (0.5,)), nn.Linear(2, 2), nn.Linear(2, 2))
    quantize_weights(model, LEVELS["W1"])
    model[1].role = "activations"
    set_temperature(model, 50.0, "weights")
    set_temperature(model, 9.0, "activations")
    assert [q.temperature.item() for q in quantizers(model).values()] == [9.0, 50.0]
    assert list(quantizers(model)) == ["1", "2"]


class TestOfficialClipping:
    """Quirk e, against the official order of things: clip dL/d(quantised weight), then multiply by dy/dx."""

    @pytest.mark.parametrize("max_norm", [0.05, 1e6])
    def test_equals_clipping_before_the_quantiser(self, max_norm):
        model, images = network().double(), X.double()
        reference = copy.deepcopy(model)
        quantize_weights(model, LEVELS["W2"])
        set_temperature(model, 20.0)
        clipping = OfficialClipping(model)
        F.cross_entropy(model(images), LABELS).backward()
        norm = clipping.clip(max_norm)
        with pytest.raises(InputError, match="before each clip"):
            clipping.clip(max_norm)  # the norms of one backward pass serve once
        with torch.no_grad():  # the official way: quantised weights are the layers' own, and are clipped with the rest
            for name in quantizers(model):
                reference.get_submodule(name).weight.copy_(model.get_submodule(name).weight)
        F.cross_entropy(reference(images), LABELS).backward()
        wanted_norm = nn.utils.clip_grad_norm_(reference.parameters(), max_norm)
        torch.testing.assert_close(norm, wanted_norm)
        torch.testing.assert_close(model[0].weight.grad, reference[0].weight.grad, rtol=1e-5, atol=1e-12)
        for name, quantizer in quantizers(model).items():
            x = float_weight(model, name).detach().requires_grad_()
            dy = reference.get_submodule(name).weight.grad
            dx, dalpha = torch.autograd.grad(quantizer(x), [x, quantizer.alpha], dy)
            torch.testing.assert_close(float_weight(model, name).grad, dx, rtol=1e-5, atol=1e-12)
            torch.testing.assert_close(quantizer.alpha.grad, dalpha, rtol=1e-5, atol=1e-12)

    def test_a_layer_used_twice_counts_with_the_sum_of_its_gradients(self):
        """... as its weight does, which is one tensor in the official scheme."""

        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.shared, self.last = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 3)

            def forward(self, x):
                return self.last(self.shared(self.shared(self.first(x))))

        model, x = Twice().double(), torch.randn(8, 3).double()
        reference = copy.deepcopy(model)
        quantize_weights(model, LEVELS["W2"])
        clipping = OfficialClipping(model)
        with torch.no_grad():
            reference.shared.weight.copy_(model.shared.weight)
        model(x).square().sum().backward()
        model.get_submodule("shared.parametrizations.weight.0")(torch.ones(5, 5).double()).sum().backward()  # by itself
        reference(x).square().sum().backward()
        got = clipping.clip(1e9)
        wanted = torch.stack([p.grad.square().sum() for p in reference.parameters()]).sum().sqrt()
        torch.testing.assert_close(got, wanted)

    def test_a_backward_pass_that_was_not_clipped_is_forgotten_with_its_gradients(self):
        model = network()
        quantize_weights(model, LEVELS["W2"])
        clipping = OfficialClipping(model)
        norms = []
        for repeats in (1, 3):
            for _ in range(repeats):
                model.zero_grad()
                F.cross_entropy(model.eval()(X), LABELS).backward()
            norms.append(clipping.clip(1e9))
        assert norms[0] == norms[1]

    def test_needs_quantised_weights_and_a_backward_pass(self):
        with pytest.raises(InputError, match="call quantize_weights first"):
            OfficialClipping(network())
        model = network()
        quantize_weights(model, LEVELS["W1"])
        clipping = OfficialClipping(model)
        with pytest.raises(InputError, match=r"call loss.backward\(\) before each clip"):
            clipping.clip(1.0)
        with pytest.raises(InputError, match="max_norm must be positive; got 0"):
            clipping.clip(0.0)
        clipping.remove()
        F.cross_entropy(model(X), LABELS).backward()
        with pytest.raises(InputError, match="before each clip"):
            clipping.clip(1.0)


def compare_under_distributed_data_parallel(store: str) -> None:
    """Runs in a process of its own, and ends it.

    The end of a group waits, under Python's lock, for threads of gloo that may be waiting for that lock.
    """
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(store, 1), rank=0, world_size=1)
    model = network()
    quantize_weights(model, LEVELS["W2"], learn_thresholds=True)
    plain = copy.deepcopy(model)
    clipping = OfficialClipping(model)
    wrapped = nn.parallel.DistributedDataParallel(model)
    set_temperature(wrapped, 5.0)
    set_temperature(plain, 5.0)
    for net in (wrapped, plain):
        F.cross_entropy(net(X), LABELS).backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    clipping.clip(1e-3)
    print("same", flush=True)
    os._exit(0)


@pytest.mark.slow
def test_under_distributed_data_parallel(tmp_path):
    """One process is enough to see the wrapper's demands: every parameter gets a gradient, buffers can be broadcast."""
    script = f"import test_weights as t; t.compare_under_distributed_data_parallel({str(tmp_path / 'store')!r})"
    call = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=900
    )
    assert (call.returncode, call.stdout) == (0, "same\n"), call.stderr


class TestErrors:
    def test_nothing_left(self):
        with pytest.raises(InputError, match=r"the model has 2 convolutions .*none is left to quantise"):
            quantize_weights(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), LEVELS["W1"])

    def test_twice(self):
        model = network()
        quantize_weights(model, LEVELS["W1"])
        with pytest.raises(InputError, match=r"quantised already \(3.conv, .*start from a float network"):
            quantize_weights(model, binary_weights)

    @pytest.mark.parametrize("name", ["3.conv", "3.shortcut", "7"])
    def test_a_layer_that_cannot_be_fitted_is_named_and_none_is_quantised(self, name):
        model = network()
        nn.init.zeros_(model.get_submodule(name).weight)
        modules = dict(model.named_modules())
        with pytest.raises(InputError, match=rf"'{name}' cannot be quantised: the samples are all zero"):
            quantize_weights(model, LEVELS["W2"])
        assert quantizers(model) == {}
        assert dict(model.named_modules()) == modules

    def test_arguments(self):
        call = getattr(quantizers, "__wrapped__", quantizers)  # the hook that checks types would answer first
        with pytest.raises(InputError, match="which must be one of all, weights, activations; got"):
            call(network(), "both")
