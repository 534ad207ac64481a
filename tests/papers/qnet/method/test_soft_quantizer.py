"""The checks of the sheet, section 4, on the quantiser; then its behaviour as a module."""

import copy
import io
import math

import pytest
import torch
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.soft_quantizer import (
    EXACT,
    Backward,
    SoftQuantizer,
    forward_mode,
    hard_quantize,
    official_backward,
    other_parameters,
    quantizer_parameters,
    quantizers,
    set_temperature,
    soft_quantize,
    wide_bell,
)

DOUBLE = torch.float64
WEIGHT_SETS = ["W1", "W2", "W3pm2", "W3pm4", "W4"]


def quantizer_for(name, beta=1.6, temperature=10.0, **options):
    """A quantiser in float64 with thresholds midway between levels, and alpha that is not 1 / beta."""
    levels = torch.tensor(LEVELS[name])
    quantizer = SoftQuantizer(LEVELS[name], (levels[1:] + levels[:-1]) / 2, beta, alpha=0.7, **options).double()
    quantizer.temperature.fill_(temperature)
    return quantizer


@pytest.mark.parametrize("name", [*WEIGHT_SETS, "A2"])
class TestIdentities:
    def test_soft_becomes_hard(self, name):
        """Check 1: equal wherever |beta x - b| > 20 / T; half a gap at a threshold."""
        quantizer = quantizer_for(name, temperature=1000.0)
        x = torch.linspace(-5, 5, 2003, dtype=DOUBLE)
        away = ((quantizer.beta * x)[:, None] - quantizer.thresholds).abs().min(1).values > 20 / 1000
        soft, hard = quantizer(x[away]), quantizer.eval()(x[away])
        torch.testing.assert_close(soft, hard, rtol=0, atol=1e-8)
        half = quantizer.train()(quantizer.thresholds / quantizer.beta)
        wanted = quantizer.alpha * (quantizer.levels[1:] + quantizer.levels[:-1]) / 2
        torch.testing.assert_close(half, wanted, rtol=0, atol=1e-8)

    def test_range_and_membership(self, name):
        """Check 2: soft strictly inside; hard exactly alpha Y, bit for bit."""
        quantizer = quantizer_for(name, temperature=3.0)
        x = 3 * torch.randn(4000, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
        soft = quantizer(x.clamp(-2, 2)) / quantizer.alpha  # further out even float64 rounds to the level itself
        assert soft.min() > quantizer.levels[0]
        assert soft.max() < quantizer.levels[-1]
        hard = quantizer.eval()(x)
        assert set(hard.tolist()) == set((quantizer.alpha * quantizer.levels).tolist())

    def test_monotone_and_odd(self, name):
        """Check 3, first half."""
        quantizer = quantizer_for(name, temperature=4.0)
        x = torch.linspace(-4, 4, 801, dtype=DOUBLE)
        y = quantizer(x)
        assert (y.diff() > 0).all()
        if name[0] == "W":
            torch.testing.assert_close(y, -y.flip(0), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("temperature", [1.0, 10.0, 100.0])
    def test_area_under_the_slope_does_not_depend_on_temperature(self, name, temperature):
        """Check 3, second half: the integral of dy/dx is alpha sum s."""
        quantizer = quantizer_for(name, temperature=temperature)
        x = torch.linspace(-40, 40, 200_001, dtype=DOUBLE).requires_grad_()
        (slope,) = torch.autograd.grad(quantizer(x).sum(), x)
        area = torch.trapezoid(slope, x).item()
        assert area == pytest.approx((quantizer.alpha * quantizer.levels.diff().sum()).item(), rel=1e-9)

    def test_scales(self, name):
        """Check 6: dL/dalpha = sum(dL/dy y) / alpha; (c beta, c b, T / c) is the same function."""
        quantizer = quantizer_for(name)
        x = torch.randn(50, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
        dy = torch.linspace(-1, 2, 50, dtype=DOUBLE)
        y = quantizer(x)
        (dalpha,) = torch.autograd.grad(y, quantizer.alpha, dy)
        torch.testing.assert_close(dalpha, (dy * y).sum() / quantizer.alpha, rtol=1e-12, atol=1e-12)
        c = 3.7
        same = SoftQuantizer(LEVELS[name], c * quantizer.thresholds, c * quantizer.beta.item(), alpha=0.7).double()
        same.alpha.data.copy_(quantizer.alpha)
        set_temperature(same, 10 / c)
        torch.testing.assert_close(same(x), y, rtol=0, atol=1e-5)  # T is held in float32

    def test_hard_is_the_sum_of_steps(self, name):
        """alpha Y_k against the paper's sum_i s_i A(beta x - b_i) - o."""
        quantizer = quantizer_for(name)
        x = torch.linspace(-4, 4, 999, dtype=DOUBLE)
        steps = ((quantizer.beta * x)[:, None] > quantizer.thresholds).to(DOUBLE)
        offset = quantizer.levels.diff().sum() / 2 if name[0] == "W" else 0.0
        wanted = quantizer.alpha * ((steps * quantizer.levels.diff()).sum(1) - offset)
        torch.testing.assert_close(quantizer.eval()(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [5.0, 100.0])
def test_width_and_height_of_a_bump(temperature):
    """Check 4: full width at half maximum 2 ln(3 + 2 sqrt 2) / (T beta) = 3.525 / (T beta); area alpha s."""
    beta, alpha, gap = 1.6, 0.7, 2.0
    quantizer = quantizer_for("W1", beta, temperature)
    x = torch.linspace(-30, 30, 600_001, dtype=DOUBLE).div(temperature).requires_grad_()
    (slope,) = torch.autograd.grad(quantizer(x).sum(), x)
    above = x.detach()[slope >= slope.max() / 2]
    assert (above[-1] - above[0]).item() == pytest.approx(3.5255 / (temperature * beta), rel=1e-3)
    assert slope.max().item() == pytest.approx(alpha * beta * temperature * gap / 4, rel=1e-6)
    assert torch.trapezoid(slope, x.detach()).item() == pytest.approx(alpha * gap, rel=1e-6)


class TestBackward:
    def slope_at(self, x, name="W2", temperature=10.0, backward=EXACT):
        quantizer = quantizer_for(name, temperature=temperature, backward=backward)
        x = torch.tensor([x], dtype=DOUBLE, requires_grad=True)
        return torch.autograd.grad(quantizer(x).sum(), x)[0].item()

    def test_wide_bell_is_exact_until_the_temperature_passes_it(self):
        for x in (0.0, 0.2, 0.5):
            assert self.slope_at(x, temperature=4.0, backward=wide_bell(5.0)) == self.slope_at(x, temperature=4.0)
            assert self.slope_at(x, temperature=900.0, backward=wide_bell(5.0)) == self.slope_at(x, temperature=5.0)

    def test_official_binary(self):
        """Quirk a: 0.7 1.6 T 2 sigmoid'(beta x)."""
        g = 1 / (1 + math.exp(-1.6 * 0.3))
        wanted = 0.7 * 1.6 * 50 * 2 * g * (1 - g)
        assert self.slope_at(0.3, "W1", 50.0, official_backward(LEVELS["W1"])) == pytest.approx(wanted)

    def test_official_leak(self):
        """Quirk b, on two gaps of 1: never below T 4.54e-5 a sigmoid."""
        leak = self.slope_at(50.0, "W2", 2000.0, official_backward(LEVELS["W2"]))
        assert leak == pytest.approx(2 * 2000 * 0.7 * 1.6 * 4.5396e-5, rel=1e-4)
        assert self.slope_at(50.0, "W2", 2000.0) == 0

    def test_infinite_temperature_is_the_hard_forward_pass(self):
        quantizer = quantizer_for("A2", backward=wide_bell(5.0))
        set_temperature(quantizer, math.inf)
        x = torch.linspace(-1, 4, 100, dtype=DOUBLE)
        assert torch.equal(quantizer(x), copy.deepcopy(quantizer).eval()(x))

    @pytest.mark.parametrize("backward", [EXACT, *(official_backward(LEVELS[name]) for name in ("W1", "W2"))])
    def test_infinite_temperature_needs_a_wide_bell(self, backward):
        with pytest.raises(InputError, match=r"no gradient at an infinite temperature.*wide_bell\(10.0\)"):
            set_temperature(quantizer_for("A2", backward=backward), math.inf)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"bell_temperature": 0.0}, "positive and finite, or None; got 0.0"),
            ({"bell_temperature": math.inf}, "positive and finite, or None; got inf"),
            ({"times_temperature": True}, "give bell_temperature too"),
            ({"clamp": 0.0}, "clamp must be positive"),
        ],
    )
    def test_impossible_options(self, fields, message):
        with pytest.raises(InputError, match=message):
            Backward(**fields)


def network():
    return nn.Sequential(
        quantizer_for("W2").float(), nn.Linear(3, 3), quantizer_for("A2", learn_thresholds=True).float(), nn.ReLU()
    )


class TestModule:
    def test_soft_in_training_hard_in_eval_and_either_by_force(self):
        quantizer = quantizer_for("W2")
        x = torch.linspace(-1, 1, 50, dtype=DOUBLE)
        soft = soft_quantize(x, quantizer.levels, quantizer.thresholds, quantizer.alpha, quantizer.beta, 10.0)
        hard = hard_quantize(x, quantizer.levels, quantizer.thresholds, quantizer.alpha, quantizer.beta)
        assert torch.equal(quantizer.train()(x), soft)
        assert torch.equal(quantizer.eval()(x), hard)
        with forward_mode(quantizer, "soft"):
            assert torch.equal(quantizer(x), soft)
            with forward_mode(quantizer, "hard"):
                assert torch.equal(quantizer.train()(x), hard)
            assert torch.equal(quantizer.eval()(x), soft)
        assert torch.equal(quantizer(x), hard)

    def test_forward_mode_ends_with_an_error_inside(self):
        quantizer = quantizer_for("W2")
        with pytest.raises(RuntimeError, match="inside"), forward_mode(quantizer, "hard"):
            raise RuntimeError("inside")
        assert quantizer.forced_mode is None

    def test_state_survives_a_checkpoint_without_pickled_code(self):
        model = network()
        set_temperature(model, 123.0)
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        restored = network()
        restored.load_state_dict(torch.load(file, weights_only=True))
        assert {q.temperature.item() for q in quantizers(restored).values()} == {123.0}
        x = torch.randn(8, 3)
        assert torch.equal(restored(x), model(x))

    def test_deepcopy_is_independent(self):
        model = network()
        twin = copy.deepcopy(model)
        set_temperature(twin, 77.0)
        assert model[0].temperature.item() == 10
        assert model[0].alpha is not twin[0].alpha

    def test_parameter_groups_cover_everything_once(self):
        model = network()
        scales, others = quantizer_parameters(model), other_parameters(model)
        assert len(scales) == 2 + 3  # alpha, beta; and the learnt thresholds of the second
        assert {id(p) for p in scales + others} == {id(p) for p in model.parameters()}
        assert len(scales) + len(others) == len(list(model.parameters()))

    def test_thresholds_learn_on_request_only(self):
        x = torch.randn(100, generator=torch.Generator().manual_seed(0))
        for learn in (True, False):
            quantizer = quantizer_for("W2", learn_thresholds=learn).float()
            quantizer(x).square().sum().backward()
            assert (quantizer.thresholds.grad is not None) == learn
            assert quantizer.beta.grad is not None

    def test_learnt_thresholds_that_crossed_still_give_members_of_the_set(self):
        """Unequal gaps: if each kept its own threshold, 3 or 2 would come out of {-1, 0, 3}."""
        quantizer = SoftQuantizer((-1.0, 0.0, 3.0), (-0.5, 0.5), learn_thresholds=True).double()
        quantizer.thresholds.data = quantizer.thresholds.data.flip(0)
        x = torch.linspace(-2, 2, 500, dtype=DOUBLE)
        hard = copy.deepcopy(quantizer).eval()(x)
        assert set(hard.tolist()) == {-1, 0, 3}
        set_temperature(quantizer, 1e5)
        torch.testing.assert_close(quantizer(x), hard)  # and soft tends to the same function

    def test_codes_and_scale_are_the_hard_output(self):
        quantizer = quantizer_for("W3pm4")
        x = torch.linspace(-5, 5, 500, dtype=DOUBLE)
        assert torch.equal(quantizer.scale(x) * quantizer.levels[quantizer.codes(x).int()], quantizer.eval()(x))

    def test_layout_survives_and_does_not_matter(self):
        quantizer = quantizer_for("A2").float()
        x = torch.randn(3, 4, 5, 6)
        last = x.contiguous(memory_format=torch.channels_last)
        for module in (quantizer.train(), quantizer.eval()):
            # another order in memory: other elements are at the end of a vector, where exp may round otherwise
            torch.testing.assert_close(module(last), module(x), rtol=1e-6, atol=1e-6)
            assert module(last).stride() == last.stride()
            torch.testing.assert_close(module(x.transpose(0, 2)), module(x).transpose(0, 2), rtol=1e-6, atol=1e-6)

    def test_low_precision_chooses_the_same_level(self):
        """beta x is compared with the thresholds in the precision of beta, not of x."""
        quantizer = quantizer_for("A4").float()
        x = torch.linspace(0, 10, 2000).bfloat16()
        assert torch.equal(quantizer.codes(x), quantizer.codes(x.float()))
        assert quantizer.eval()(x).dtype == quantizer.train()(x).dtype == torch.bfloat16

    def test_fit(self):
        samples = torch.randn(5000, generator=torch.Generator().manual_seed(0))
        quantizer = SoftQuantizer.fit(samples, LEVELS["W2"])
        assert quantizer.alpha.item() == pytest.approx(1 / quantizer.beta.item())
        shares = quantizer.codes(samples).bincount() / 5000
        torch.testing.assert_close(shares, torch.tensor([0.27, 0.46, 0.27]), atol=0.03, rtol=0)  # P(|z| > 0.612) = 0.54

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (((-1.0, 1.0), (0.0, 0.1)), "2 levels need 1 ascending thresholds; got"),
            (((-1.0, 0.0, 1.0), (0.1, 0.0)), "3 levels need 2 ascending thresholds"),
            (((-1.0, 1.0), (0.0,), 0.0), "beta must be positive and finite; got 0.0"),
            (((1.0, -1.0), (0.0,)), "ascending order"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(InputError, match=message):
            SoftQuantizer(*arguments)

    def test_bad_temperature(self):
        with pytest.raises(InputError, match="temperature must be positive; got 0"):
            set_temperature(network(), 0.0)


def test_hard_quantize_takes_plain_numbers():
    x, levels, thresholds = torch.linspace(-2, 2, 9), torch.tensor(LEVELS["W2"]), torch.tensor([-0.5, 0.5])
    as_tensors = hard_quantize(x, levels, thresholds, torch.tensor(0.8), torch.tensor(1.5))
    assert torch.equal(hard_quantize(x, levels, thresholds, 0.8, 1.5), as_tensors)
    assert torch.equal(hard_quantize(x, levels, thresholds, alpha=0.8, beta=torch.tensor(1.5)), as_tensors)
