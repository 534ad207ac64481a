"""Checks that hold for the room's own code and reject what is wrong with it; cases of the lost packet by hand."""

import math

import pytest
import torch

from labkit.kernels.flow_warp import chained_warp
from labkit.papers.mlvc.teaching import checks, exercises, scenes


def test_the_rooms_own_chain_passes_the_readers_check():
    def own(flows):
        return chained_warp(torch.zeros(1, 4, 1, *flows.shape[-2:]), flows)[1]

    checks.check_chain(own)
    checks.check_gain(exercises.gain)
    checks.check_enlarged(exercises.enlarge)


@pytest.mark.parametrize("wrong", [exercises.summed, exercises.last_flow_only, lambda flows: flows])
def test_wrong_chains_are_rejected(wrong):
    with pytest.raises(AssertionError, match="misses the right place"):
        checks.check_chain(wrong)


def test_wasted_bits_are_zero_for_the_right_scale_only():
    assert checks.wasted_bits(3.0, 3.0) == pytest.approx(0, abs=1e-12)
    assert checks.wasted_bits(3.0, 4.0) > 0.01
    assert checks.wasted_bits(4.0, 3.0) > 0.01
    # by Kullback-Leibler of the continuous Gaussians, where the step is small against the scale
    for sigma, believed in ((8.0, 12.0), (12.0, 8.0)):
        assert exercises.extra_bits(sigma, believed) == pytest.approx(checks.wasted_bits(sigma, believed), abs=2e-3)


def test_the_order_exercise_is_what_noise_costs():
    """By simulation: the entropy of both differences of a noisy constant flow."""
    generator = torch.Generator().manual_seed(0)
    v = 8 * torch.randn(3, 400_000, generator=generator)
    first, second = (v[0] - v[1]).round(), (v[0] - 2 * v[1] + v[2]).round()
    assert scenes.entropy(second) - scenes.entropy(first) == pytest.approx(exercises.EXTRA_BITS, abs=0.02)


def test_entropy_of_known_symbols():
    assert scenes.entropy(torch.tensor([0, 1, 2, 3])) == pytest.approx(2)
    assert scenes.entropy(torch.zeros(9)) == 0


@pytest.mark.slow
def test_every_protocol_moves_the_curve():
    """x265 against itself; versions differ, a third of the effect is the margin."""
    assert exercises.moved_by("gop-12") == pytest.approx(0, abs=1e-9)
    for name in ("gop-100", "crop", "rescale"):
        assert exercises.moved_by(name) > exercises.BAR, name
    assert math.isfinite(exercises.moved_by("rescale"))
