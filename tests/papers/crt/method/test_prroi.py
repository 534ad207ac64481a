"""PrRoI pooling: constants, linear maps, whole integrals, brute force, gradients in the box."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.crt.method import prroi
from labkit.papers.crt.method.prroi import descriptors, phi, pool_whole, pool_windows
from labkit.papers.crt.teaching import checks

BOXES = torch.tensor([[[2.3, 3.1, 5.6, 6.3], [4.2, 5.4, 3.1, 1.8]]], dtype=torch.float64)


def a_map(channels=2, side=18):
    return torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(params=[pool_whole, pool_windows], ids=["whole", "windows"])
def pool(request):
    """Both forms hold every property."""
    return request.param


def test_phi_is_the_integral_of_the_hat():
    checks.check_phi(phi)


def test_constant_and_linear_maps(pool):
    constant = torch.full((1, 1, 18, 18), 3.0, dtype=torch.float64)
    torch.testing.assert_close(pool(constant, BOXES, 4), torch.full((1, 2, 1, 4, 4), 3.0, dtype=torch.float64))
    columns = (torch.arange(18, dtype=torch.float64) + 0.5).expand(1, 1, 18, 18)  # value = x
    x, w = float(BOXES[0, 0, 0]), float(BOXES[0, 0, 2])
    wanted = x + w * (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    torch.testing.assert_close(pool(columns, BOXES, 4)[0, 0, 0], wanted.expand(4, 4))
    torch.testing.assert_close(
        pool(columns.mT, BOXES, 4)[0, 0, 0, :, 0], 3.1 + 6.3 * (torch.arange(4).double() + 0.5) / 4
    )


def test_bins_times_areas_are_the_whole_box(pool):
    """Also for 1 bin against 5: a bin's weight must be divided by the bin's size, not the box's."""
    whole, parts = pool(a_map(), BOXES, 1)[..., 0, 0], pool(a_map(), BOXES, 5).mean((3, 4))
    torch.testing.assert_close(whole, parts)


def test_a_whole_map_integral(pool):
    """Cells 2..5 whole: the box from 2 to 6 holds them, plus what the interpolant borrows at its two ends."""
    feature = a_map(1)
    box = torch.tensor([[[0.0, 0.0, 18.0, 18.0]]], dtype=torch.float64)
    inner = torch.full((18,), 1.0, dtype=torch.float64)
    inner[[0, -1]] = 0.5 + 0.375  # half of the hat, and what lies beyond the middle of the outermost cell
    wanted = (inner[:, None] * inner * feature[0, 0]).sum() / 18**2
    torch.testing.assert_close(pool(feature, box, 1)[0, 0, 0, 0, 0], wanted)


def test_against_brute_force(pool):
    """A fine sum over the bilinear interpolant, written with hats at the cells' middles."""
    feature, fine = a_map(), 200
    for k in range(2):
        x, y, w, h = BOXES[0, k]
        steps = (torch.arange(4 * fine, dtype=torch.float64) + 0.5) / (4 * fine)

        def hats(at):
            return (1 - (at[:, None] - torch.arange(18) - 0.5).abs()).clamp_min(0)

        dense = torch.einsum("yi,cij,xj->cyx", hats(y + h * steps), feature[0], hats(x + w * steps))
        wanted = dense.reshape(2, 4, fine, 4, fine).mean((2, 4))
        torch.testing.assert_close(pool(feature, BOXES, 4)[0, k], wanted, rtol=0, atol=2e-4)


def test_gradient_in_box_and_map(pool):
    assert torch.autograd.gradcheck(
        lambda b, m: pool(m, b, 3), (BOXES.clone().requires_grad_(), a_map(1, 9).requires_grad_())
    )


def test_each_sequence_has_its_own_map(pool):
    maps = torch.cat([a_map(), 2 * a_map()])
    actual = pool(maps, BOXES.expand(2, -1, -1), 3)
    torch.testing.assert_close(actual[1], 2 * actual[0])


def test_descriptors_have_length_one_and_know_strides():
    maps = (a_map(3, 20).float(), a_map(2, 10).float())
    boxes = torch.tensor([[[20.0, 24.0, 16.0, 12.0]]])
    both = descriptors(maps, (4, 8), boxes, 2)
    assert both.shape == (1, 1, 4 * 5)
    assert float(both.norm()) == pytest.approx(1.0, abs=1e-6)
    single = descriptors(maps[:1], (4,), boxes, 2)
    torch.testing.assert_close(both[..., :12] * 2**0.5, single)
    with pytest.raises(InputError, match="bins"):
        prroi.pool(maps[0], boxes, 0)


def test_both_forms_agree_on_boxes_of_all_sizes_half_outside_and_far_away():
    """Within one call: thinner than a cell, wider than the map, over each edge, nowhere near."""
    boxes = torch.tensor([[[-2.0, 3.0, 6.5, 0.4], [0.3, 0.2, 30.0, 21.0], [15.0, 16.5, 7.0, 4.0],
                           [40.0, -30.0, 3.0, 2.0], [4.0, 5.0, 3.0, 3.0]]], dtype=torch.float64)  # fmt: skip
    maps = a_map(5)
    for bins in (1, 4):
        one = boxes.clone().requires_grad_()
        other = boxes.clone().requires_grad_()
        whole, windows = pool_whole(maps, one, bins), pool_windows(maps, other, bins)
        torch.testing.assert_close(windows, whole, rtol=0, atol=1e-12)
        assert not windows[0, 3].any()
        whole.sin().sum().backward()
        windows.sin().sum().backward()
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-11)


def test_windows_are_taken_where_they_pay(monkeypatch):
    """Many channels and small boxes; never for few channels, large boxes, no box, or a box that is no number."""
    taken = []
    monkeypatch.setattr(prroi, "pool_windows", lambda *given: taken.append("windows") or pool_windows(*given))
    monkeypatch.setattr(prroi, "pool_whole", lambda *given: taken.append("whole") or pool_whole(*given))
    small = torch.tensor([[[3.0, 4.0, 8.0, 8.0]]])
    cases = (((256, 36), small), ((16, 36), small), ((256, 36), 4 * small), ((256, 36), small[:, :0]),
             ((256, 36), small * float("nan")))  # fmt: skip
    for (channels, side), boxes in cases:
        prroi.pool(torch.rand(1, channels, side, side), boxes, 5)
    assert taken == ["windows", "whole", "whole", "whole", "whole"]
