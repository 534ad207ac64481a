"""Windows out of maps: against slicing, their gradient where they overlap, and the Triton body."""

import pytest
import torch

from labkit.errors import InputError
from labkit.kernels.crop_windows import crop_windows, reference


def maps_and_corners(frames=3, channels=2, height=9, width=7, windows=2, side=4):
    generator = torch.Generator().manual_seed(frames + side)
    maps = torch.randn(frames, channels, height, width, generator=generator, dtype=torch.float64)
    rows = torch.randint(height - side + 1, (frames, windows), generator=generator)
    columns = torch.randint(width - side + 1, (frames, windows), generator=generator)
    return maps, torch.stack([rows, columns], -1)


def test_a_window_is_a_slice():
    maps, corners = maps_and_corners()
    out = crop_windows(maps, corners, 4)
    for f in range(3):
        for k in range(2):
            r, c = corners[f, k].tolist()
            assert torch.equal(out[f, k], maps[f, :, r : r + 4, c : c + 4])


def test_gradients_of_overlapping_windows_add_up():
    maps, corners = maps_and_corners()
    corners[:, 1] = corners[:, 0]  # the same cells twice
    maps.requires_grad_()
    assert torch.autograd.gradcheck(lambda m: crop_windows(m, corners, 4), (maps,))
    crop_windows(maps, corners, 4).sum().backward()
    assert maps.grad.max() == 2


@pytest.mark.parametrize(
    ("side", "corner", "words"), [(10, 0, "side must be"), (4, -1, "leaves its map"), (4, 6, "clamp the corners")]
)
def test_bad_input_is_refused(side, corner, words):
    with pytest.raises(InputError, match=words):
        crop_windows(torch.zeros(1, 1, 9, 9), torch.full((1, 1, 2), corner), side)


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter."""
    from labkit.kernels.crop_windows.triton import crop_windows_backward_triton, crop_windows_triton

    for sizes in ((3, 5, 20, 20, 2, 6), (1, 3, 9, 7, 3, 4), (2, 40, 12, 12, 1, 12)):
        maps, corners = maps_and_corners(*sizes)
        maps, side = maps.float(), sizes[-1]
        out = reference.crop_windows_reference(maps, corners, side)
        torch.testing.assert_close(crop_windows_triton(maps, corners, side), out, rtol=0, atol=0)
        gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        actual = crop_windows_backward_triton(gradient, corners, *maps.shape[2:])
        wanted = reference.crop_windows_backward_reference(gradient, corners, *maps.shape[2:])
        torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=1e-6)
