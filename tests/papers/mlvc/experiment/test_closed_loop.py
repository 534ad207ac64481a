"""The small codec: identities of its transform, its loop and its combiners, and the law of averaging."""

import math

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.mlvc.experiment import blocks
from labkit.papers.mlvc.experiment.closed_loop import REFERENCES, code, newest, predicted_motion
from labkit.papers.mlvc.experiment.combiners import (
    Lessons,
    LinearCombiner,
    PixelCombiner,
    fit,
    limited,
    loss_of,
    new_combiner,
)
from labkit.papers.mlvc.experiment.scenes import Clips, Family, scenes
from labkit.workbench.runs import Run

STEP = torch.full((3, 1, 1, 1), 12.0)


def clips(seed: int = 0, frames: int = 5, family: str | Family = "disc") -> Clips:
    return scenes(family, 3, frames, seed)


def test_the_transform_is_orthonormal():
    generator = torch.Generator().manual_seed(0)
    planes = torch.randn(2, 1, 16, 24, generator=generator).double()
    coefficients = blocks.dct(planes)
    torch.testing.assert_close(blocks.inverse_dct(coefficients), planes, rtol=0, atol=1e-6)
    assert float(coefficients.square().sum()) == pytest.approx(float(planes.square().sum()), rel=1e-6)
    flat = blocks.dct(torch.full((1, 1, 8, 8), 10.0))
    assert float(flat[0, 0, 0, 0]) == pytest.approx(80, abs=1e-3)  # 8 times the mean
    assert float(flat[0, 1:].abs().max()) < 1e-4


def test_the_dead_zone():
    u = torch.tensor([-1.66, -0.64, 0.64, 0.66, 1.64, 1.66]).view(1, 6, 1, 1)
    assert blocks.quantize(6 * u, torch.full((1, 1, 1, 1), 6.0)).flatten().tolist() == [-2, 0, 0, 1, 1, 2]


def test_the_price_of_a_coefficient_at_both_ends():
    q = torch.full((1, 1, 1, 1), 8.0)
    large, small = torch.full((1, 1, 1, 1), 8000.0), torch.full((1, 1, 1, 1), 0.08)
    assert float(blocks.rate_distortion(large, q)) == pytest.approx(math.log2(1000) + 0.5 * math.log2(12), abs=1e-4)
    assert float(blocks.rate_distortion(small, q)) == pytest.approx(6 / math.log(2) * 1e-4, rel=1e-2)


def test_nothing_moves_and_there_is_no_noise_so_nothing_is_sent():
    still = clips(family=Family(layers=1, noise=0.0, velocity=0.0, acceleration=0.0))
    fine = torch.full((3, 1, 1, 1), 2.0)
    symbols = code(still, fine).symbols
    assert int(symbols.motion.abs().sum()) == 0
    assert int((symbols.residual[:, 1:] != 0).sum()) <= 0.02 * symbols.residual[:, 1:].numel()


def test_motion_that_goes_on_is_predicted_wholly():
    """v̄ = W(v̂, v̂): from the second P-frame on a plane in uniform motion has nothing to send."""
    plane = clips(family=Family(layers=1, noise=0.0, acceleration=0.0))
    with_it, without = (code(plane, STEP, predict_motion=p).symbols.motion for p in (True, False))
    assert torch.equal(with_it[:, 0], without[:, 0])
    assert int(with_it[:, 1:].abs().sum()) == 0
    assert int(without[:, 1:].abs().sum()) > 0
    flow = torch.tensor([1.25, -0.5]).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    torch.testing.assert_close(predicted_motion(flow), flow)


def test_the_receiver_needs_symbols_only():
    """Decoding by hand from symbols and the first frame gives the sender's frames; catches a peek at the original."""
    from labkit.kernels.flow_warp import warp
    from labkit.papers.mlvc.experiment.blocks import inverse_dct

    coded = code(clips(), STEP)
    shown, flow = coded.decoded[0], torch.zeros(3, 2, 64, 64)
    for t in range(4):
        vectors = coded.symbols.motion[:, t].float() / 4
        flow = predicted_motion(flow) + vectors.repeat_interleave(8, 2).repeat_interleave(8, 3)
        residual = inverse_dct(coded.symbols.residual[:, t].float() * STEP)
        shown = (warp(shown, flow) + residual).round().clamp(0, 255)
        assert float((shown - coded.decoded[t + 1]).abs().max()) <= 1  # a tie of the rounding may fall either way


def test_later_frames_do_not_reach_earlier_symbols():
    whole, changed = clips(), clips()
    changed.frames[3:] = 255 - changed.frames[3:]
    a, b = (code(c, STEP).symbols for c in (whole, changed))
    assert torch.equal(a.residual[:, :2], b.residual[:, :2])
    assert not torch.equal(a.residual[:, 2], b.residual[:, 2])


def test_one_reference_is_the_newest_four_times():
    coded = code(clips(), STEP, n_refs=1, keep=True)
    assert coded.aligned.shape[2] == REFERENCES
    for k in range(1, REFERENCES):
        assert torch.equal(coded.aligned[:, :, k], coded.aligned[:, :, 0])
    four = code(clips(), STEP, keep=True).aligned
    torch.testing.assert_close(four[0, :, 3], four[0, :, 0])  # at t = 1 all are copies, and older flows are 0
    assert not torch.equal(four[3, :, 3], four[3, :, 0])


def test_a_choice_by_block_never_costs_more():
    class Bad:
        def __call__(self, aligned, step):
            return aligned[:, :1] + 100

    plain, chosen = code(clips(), STEP), code(clips(), STEP, Bad(), flagged=True)
    assert int(chosen.symbols.flags.sum()) == 0
    assert torch.equal(chosen.symbols.residual, plain.symbols.residual)


# -- combiners --------------------------------------------------------------------------------------------------------


def test_a_new_network_is_the_plain_warp():
    net = PixelCombiner(4)
    aligned = torch.rand(2, 4, 16, 16) * 255
    torch.testing.assert_close(net(aligned, torch.full((2, 1, 1, 1), 10.0)), aligned[:, :1])
    assert torch.equal(newest(aligned, STEP[:2]), aligned[:, :1])
    assert torch.equal(limited(aligned, 2)[:, 2:], aligned[:, 1:2].expand(-1, 2, -1, -1))


@pytest.mark.parametrize(("k", "gain"), [(2, 1.249), (4, 2.041)])
def test_averaging_k_noisy_references_gains_what_the_law_says(k, gain):
    """Target and references with independent noise: the error of the best predictor is sigma^2 (1 + 1/k).

    10 log10(2 / (1 + 1/k)) dB over one reference, where neighbouring pixels tell nothing: a texture of white noise.
    """
    generator = torch.Generator().manual_seed(0)
    texture = 255 * torch.rand(24, 1, 64, 64, generator=generator)
    aligned = texture + 8 * torch.randn(24, 4, 64, 64, generator=generator)
    target = texture + 8 * torch.randn(24, 1, 64, 64, generator=generator)
    lessons = Lessons(aligned, target, torch.full((24, 1, 1, 1), 10.0))
    error = [float((LinearCombiner.fitted(lessons, n)(aligned, lessons.step) - target).square().mean()) for n in (1, k)]
    assert 10 * math.log10(error[0] / error[1]) == pytest.approx(gain, abs=0.1)  # over 6 seeds within .03
    assert error[1] > 64  # nobody predicts the target's own noise


def test_least_squares_finds_a_known_mixture():
    generator = torch.Generator().manual_seed(1)
    aligned = 255 * torch.rand(2, 4, 32, 32, generator=generator)
    target = 0.75 * aligned[:, :1] + 0.25 * aligned[:, 1:2]
    lessons = Lessons(aligned, target, torch.full((2, 1, 1, 1), 10.0))
    torch.testing.assert_close(LinearCombiner.fitted(lessons, 2)(aligned, lessons.step), target, rtol=0, atol=0.05)


def test_losses():
    zero, one = torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 10.0)
    q = torch.full((1, 1, 1, 1), 10.0)
    assert float(loss_of(zero, zero, q, "rate")) == 0
    assert float(loss_of(zero, one, q, "mse")) == pytest.approx(1)
    # one coefficient of 80 in 64 pixels
    assert float(loss_of(zero, one, q, "rate")) == pytest.approx(0.5 * math.log2(1 + 12 * 64) / 64, rel=1e-4)


@pytest.mark.slow
def test_training_lowers_the_price_and_resumes(tmp_path):
    """Killed after half of the steps it ends as undisturbed, to the last bit."""
    from labkit.papers.mlvc.experiment.config import CONFIGS

    plane = scenes("disc", 4, 5, 7)
    step = torch.full((4, 1, 1, 1), 12.0)
    lessons = Lessons.of(plane, code(plane, step, keep=True), step)
    config = CONFIGS["smoke"]

    def price(net):
        with torch.no_grad():
            return float(loss_of(net(lessons.aligned, lessons.step), lessons.target, lessons.step, "rate"))

    whole = fit(new_combiner(0, 8), lessons, 4, 60, 8, 3e-3, 0, Run.open(tmp_path / "whole", config))
    assert price(whole) < 0.995 * price(new_combiner(0, 8))

    class Killed(BaseException):
        pass

    class Dying(Run):
        def save_if_due(self, step, state):
            if step == 30:
                self.save(step, state)
                raise Killed

    with pytest.raises(Killed):
        fit(new_combiner(0, 8), lessons, 4, 60, 8, 3e-3, 0, Dying.open(tmp_path / "run", config))
    resumed = fit(new_combiner(0, 8), lessons, 4, 60, 8, 3e-3, 0, Run.open(tmp_path / "run", config))
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_it_cannot_code_is_refused():
    with pytest.raises(InputError, match="luma with sides that are multiples of 8; got 3 x 64 x 64"):
        code(scenes("disc", 3, 3, 0, channels=3), STEP)
    with pytest.raises(InputError, match="a positive step for each of the 3 clips"):
        code(clips(), STEP[:2])
    with pytest.raises(InputError, match="n_refs lies between 1 and 4; got 5"):
        code(clips(), STEP, n_refs=5)
    with pytest.raises(InputError, match="keep=True"):
        Lessons.of(clips(), code(clips(), STEP), STEP)
