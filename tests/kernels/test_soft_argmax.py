"""Soft-argmax: its known values, its gradient, and its Triton body."""

import pytest
import torch

from labkit.errors import InputError
from labkit.kernels.soft_argmax import reference, soft_argmax


def test_a_peak_is_found_where_it_is():
    maps = torch.full((1, 3, 56, 56), -1e4, dtype=torch.float64)
    for k, (row, column) in enumerate(((0, 0), (13, 40), (55, 55))):
        maps[0, k, row, column] = 1e4
    wanted = torch.tensor([[0.0, 0.0], [13 / 55, 40 / 55], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(soft_argmax(maps)[0], wanted)


def test_a_flat_map_points_to_its_middle_and_a_shift_by_a_cell_adds_one_step():
    torch.testing.assert_close(soft_argmax(torch.zeros(1, 8, 12)), torch.tensor([[0.5, 0.5]]))
    maps = torch.full((1, 56, 56), -50.0, dtype=torch.float64)
    maps[0, 20:25, 30:33] = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = soft_argmax(maps.roll(1, 2)) - soft_argmax(maps)
    torch.testing.assert_close(step, torch.tensor([[0.0, 1 / 55]], dtype=torch.float64), atol=1e-12, rtol=0)


def test_its_gradient_is_that_of_finite_differences():
    maps = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(soft_argmax, (maps,))


def test_a_map_of_one_row_has_row_zero():
    at = soft_argmax(torch.randn(3, 1, 7))
    assert at[:, 0].abs().max() == 0
    with pytest.raises(InputError, match="cells"):
        soft_argmax(torch.zeros(2, 0, 3))


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter."""
    from labkit.kernels.soft_argmax.triton import soft_argmax_backward_triton, soft_argmax_triton

    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 56, 56), (1, 1, 9), (2, 33, 41), (0, 4, 4)):
        maps = 4 * torch.randn(shape, generator=generator)
        gradient = torch.randn(len(maps), 2, generator=generator)
        (at, log_sum), (wanted, wanted_sum) = soft_argmax_triton(maps), reference.soft_argmax_reference(maps)
        torch.testing.assert_close(at, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(log_sum, wanted_sum, rtol=1e-5, atol=1e-5)
        actual = soft_argmax_backward_triton(maps, log_sum, at, gradient)
        expected = reference.soft_argmax_backward_reference(maps, wanted_sum, wanted, gradient)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)
