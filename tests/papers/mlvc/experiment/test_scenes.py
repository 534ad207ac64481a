"""Scenes whose flow must be exact: everything else in the room is measured on them."""

from dataclasses import replace

import pytest
import torch

from labkit.errors import InputError
from labkit.kernels.flow_warp import warp
from labkit.papers.mlvc.experiment.scenes import FAMILIES, Family, scenes, uncovered

STILL = Family(layers=1, noise=0.0, velocity=0.0, acceleration=0.0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_seen_was_seen_one_frame_before_where_the_flow_points(name, channels):
    """Catches: a flow of the wrong sign or layer, x and y swapped, the time step of the acceleration."""
    family = replace(FAMILIES[name], noise=0.0)
    clips = scenes(family, 4, 5, seed=3, channels=channels)
    hidden = uncovered(clips)[1:, :, None]
    inside = torch.zeros(64, 64)
    inside[8:-8, 8:-8] = 1
    for t in range(1, 5):
        error = (warp(clips.frames[t - 1], clips.flows[t]) - clips.frames[t]).abs()
        counted = inside * (1 - hidden[t - 1])
        moved = (clips.frames[t - 1] - clips.frames[t]).abs()
        ours, still = ((e * counted).sum() / counted.expand_as(e).sum() for e in (error, moved))
        assert ours < 0.6 * still  # over 20 seeds .43 at most: fine texture, blurred by interpolation


def test_flow_is_the_difference_of_positions():
    family = Family(layers=1, noise=0.0, velocity=1.5, acceleration=0.0)
    flows = scenes(family, 3, 4, seed=0).flows
    torch.testing.assert_close(flows[1], flows[3])  # constant velocity
    assert float(flows.abs().max()) <= 1.5
    accelerated = scenes(replace(family, acceleration=0.5), 3, 4, seed=0).flows
    second = accelerated[3] - 2 * accelerated[2] + accelerated[1]  # of -(v t + a t^2): 0 for flows linear in t
    torch.testing.assert_close(second, torch.zeros_like(second), rtol=0, atol=1e-5)
    assert float((accelerated[3] - accelerated[1]).abs().max()) > 0.1


def test_a_still_scene_repeats_and_noise_is_as_asked():
    frames = scenes(STILL, 2, 3, seed=1).frames
    assert torch.equal(frames[0], frames[2])
    noisy = scenes(replace(STILL, noise=4.0), 2, 3, seed=1).frames
    assert float((noisy[0] - noisy[1]).std()) == pytest.approx(4 * 2**0.5, rel=0.05)  # 8192 values: deviation .8 %
    assert float(noisy.min()) >= 0
    assert torch.equal(noisy, noisy.round())


def test_uncovered_is_where_a_layer_moved_away():
    assert float(uncovered(scenes("plain", 2, 4, seed=0)).sum()) == 0
    clips = scenes("fence", 4, 6, seed=0)
    share = uncovered(clips)[1:].mean()
    assert 0.05 < float(share) < 0.5  # over 20 seeds .10 to .20
    assert float(uncovered(clips)[0].sum()) == 0


def test_seeds_and_repetition():
    a, b, c = (scenes("disc", 2, 3, seed=s).frames for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    twice = scenes("disc", 2, 3, seed=1).repeated(2)
    assert len(twice) == 4
    assert torch.equal(twice.frames[:, 2:], a)
    assert torch.equal(twice.part(slice(0, 2)).frames, a)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(InputError, match="no family of scenes 'dics'; there are disc, plain"):
        scenes("dics", 1, 2, 0)
    with pytest.raises(InputError, match="count and frames of 1 or more"):
        scenes("disc", 0, 2, 0)
    with pytest.raises(InputError, match="1, 2 or 3 layers; got 4"):
        scenes(Family(layers=4), 1, 2, 0)
