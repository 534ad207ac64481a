"""Into the crop and back; half a pixel nowhere; a turn and a mirror about the centre; large views without aliasing."""

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.crt.method.crop import View, crop


def view_of(x, y, side, size=160):
    return View(torch.tensor([[x, y]]), torch.tensor([side]), size)


def test_there_and_back_is_exact():
    generator = torch.Generator().manual_seed(0)
    view = View(
        torch.rand(5, 2, generator=generator).double() * 500, torch.rand(5, generator=generator).double() * 300 + 5, 160
    )
    points = torch.rand(5, 20, 2, generator=generator).double() * 700 - 100
    assert float((view.to_frame(view.to_crop(points)) - points).abs().max()) < 1e-9


def test_a_view_at_full_scale_is_the_picture_itself():
    """One crop pixel per frame pixel, whole coordinates: no interpolation, so any half-pixel error would show."""
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    actual = crop([frame], view_of(40.0, 30.0, 32.0, 32))[0]
    wanted = torch.from_numpy(frame[14:46, 24:56]).permute(2, 0, 1) / 255
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [24.0, 57.5, 130.0])
def test_a_linear_picture_says_where_each_pixel_comes_from(side):
    """Grey = x: the crop's pixel p holds the coordinate that `to_frame` names."""
    frame = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 180, 0).repeat(3, 2)
    view = view_of(99.3, 85.2, side, 32)
    actual = crop([frame], view)[0, 0] * 255
    at = torch.stack([torch.arange(32) + 0.5, torch.full((32,), 16.0)], 1)
    wanted = view.to_frame(at[None])[0, :, 0] - 0.5  # pixel i covers [i, i + 1): its value stands at i + 1/2
    torch.testing.assert_close(actual[16], wanted.float(), rtol=0, atol=0.02 if side < 64 else 0.6)


def test_outside_the_border_repeats():
    frame = np.full((40, 40, 3), 200, dtype=np.uint8)
    frame[:, :20] = 50
    actual = crop([frame], view_of(0.0, 20.0, 30.0, 30))[0] * 255
    torch.testing.assert_close(actual, torch.full_like(actual, 50.0), rtol=0, atol=0.01)
    assert crop([frame], view_of(-500.0, -500.0, 10.0, 16)).shape == (1, 3, 16, 16)


def test_mirror_and_turn():
    frame = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    view = view_of(32.0, 32.0, 32.0, 32)
    plain = crop([frame], view)
    torch.testing.assert_close(crop([frame], view, mirror=True), plain.flip(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(crop([frame], view, angle=90.0), plain.rot90(1, (2, 3)), rtol=0, atol=1e-4)


def test_a_large_view_is_averaged_not_picked():
    """A one-pixel chessboard seen from afar is grey; picking pixels would give black or white."""
    frame = ((np.indices((400, 400)).sum(0) % 2) * 255).astype(np.uint8)[..., None].repeat(3, 2)
    actual = crop([frame], view_of(200.0, 200.0, 320.0, 32))
    assert float((actual - 0.5).abs().max()) < 0.05


def test_frames_of_different_sizes_and_a_wrong_count():
    frames = [np.zeros((50, 60, 3), np.uint8), np.full((90, 30, 3), 255, np.uint8)]
    view = View(torch.tensor([[10.0, 10.0], [20.0, 20.0]]), torch.tensor([16.0, 16.0]), 8)
    actual = crop(frames, view)
    assert float(actual[0].max()) == 0.0
    assert float(actual[1].min()) == pytest.approx(1.0)
    with pytest.raises(InputError, match="one frame per view"):
        crop(frames[:1], view)
