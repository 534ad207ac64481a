"""Overlap of tubelets: known values, symmetry, and through its Triton body."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.tubelet_iou import reference, tubelet_iou


def some(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random boxes within 40 x 40, (*shape, 4)."""
    generator = torch.Generator().manual_seed(seed)
    corner, extent = torch.rand(2, *shape, 2, generator=generator, dtype=dtype)
    return torch.cat([corner * 30, corner * 30 + extent * 10 + 1], -1)


def test_boxes_have_the_overlap_of_areas():
    boxes = torch.tensor([[0.0, 0, 20, 20], [5, 0, 25, 20], [100, 0, 120, 20]])[:, None]
    overlaps = tubelet_iou(boxes, boxes)
    torch.testing.assert_close(overlaps, torch.tensor([[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]]))


def test_tubelets_have_the_mean_over_frames():
    a, b = some(6, 3), some(4, 3, seed=1)
    each = torch.stack([tubelet_iou(a[:, t : t + 1], b[:, t : t + 1]) for t in range(3)])
    torch.testing.assert_close(tubelet_iou(a, b), each.mean(0))
    torch.testing.assert_close(tubelet_iou(a, b), tubelet_iou(b, a).T)
    torch.testing.assert_close(tubelet_iou(a, a).diagonal(), torch.ones(6, dtype=torch.float64))


def test_batches_stretch_and_empty_ones_stay_empty():
    a, b = some(1, 5, 2), some(3, 4, 2)
    overlaps = tubelet_iou(a, b)
    for k in range(3):
        torch.testing.assert_close(overlaps[k], tubelet_iou(a[0], b[k]))
    assert tubelet_iou(a, b[:, :0]).shape == (3, 5, 0)


def test_boxes_without_area_overlap_nothing():
    point = torch.zeros(1, 1, 4)
    assert tubelet_iou(point, point).item() == 0
    turned = torch.tensor([[[10.0, 10.0, 0.0, 0.0]]])
    assert tubelet_iou(turned, torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])).item() == 0


def test_bfloat16_is_computed_wide():
    a = some(5, 1).bfloat16()
    assert tubelet_iou(a, a).dtype == torch.float32


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ((3, 4), (3, 4), "Boxes are tubelets of one frame"),
        ((3, 2, 4), (3, 5, 4), "equal length"),
        ((2, 3, 1, 4), (3, 3, 1, 4), "do not fit"),
    ],
)
def test_bad_input_is_refused(a, b, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        tubelet_iou(torch.zeros(a), torch.zeros(b))
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter."""
    from labkit.kernels.tubelet_iou.triton import tubelet_iou_triton

    for batch, m, n, frames, dtype in ((1, 1, 1, 1, torch.float32), (2, 37, 5, 3, torch.float64)):
        a, b = some(batch, m, frames, dtype=dtype), some(batch, n, frames, seed=1, dtype=dtype)
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        got, wanted = tubelet_iou_triton(a, b), reference.tubelet_iou_reference(a, b)
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
