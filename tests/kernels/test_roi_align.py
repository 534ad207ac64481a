"""RoIAlign: maps with known answers, sampled one point at a time, its gradient, and through its Triton body."""

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.roi_align import reference, roi_align

BOXES = torch.tensor(
    [
        [2.0, 3.0, 9.0, 8.0],
        [-4.0, -3.0, 4.0, 5.0],
        [8.0, 8.0, 40.0, 30.0],
        [5.2, 5.2, 5.2, 5.2],
        [-30.0, 0.0, -9.0, 4.0],
    ],
    dtype=torch.float64,
)
"""Inside, over the corner, far over the other corner, without area, outside."""


def maps(batch: int = 2, channels: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, channels, 9, 12, generator=torch.Generator().manual_seed(0), dtype=dtype)


def one_point_at_a_time(image: Tensor, box: Tensor, bins: int, scale: float, sampling: int) -> Tensor:
    """The definition: torch's own bilinear sampling at every point, points outside of the map left out.

    `grid_sample` with border padding clips to the first and last cell, as RoIAlign does up to one cell outside.
    """
    (channels, height, width), (x1, y1, x2, y2) = image.shape, (box * scale).tolist()
    steps = (torch.arange(bins * sampling, dtype=torch.float64) + 0.5) / (bins * sampling)
    x, y = x1 - 0.5 + (x2 - x1) * steps, y1 - 0.5 + (y2 - y1) * steps
    inside = ((y >= -1) & (y <= height))[:, None] & ((x >= -1) & (x <= width))[None]
    grid = torch.stack(torch.meshgrid(2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1, indexing="xy"), -1)
    points = F.grid_sample(image[None], grid[None], padding_mode="border", align_corners=True)[0] * inside
    return points.reshape(channels, bins, sampling, bins, sampling).mean((2, 4))


@pytest.mark.parametrize(("bins", "scale", "sampling"), [(7, 1.0, 2), (3, 0.5, 1), (2, 1.7, 3)])
def test_it_is_the_mean_of_bilinear_samples(bins, scale, sampling):
    """Sheet check 1, with torch's own sampler in torchvision's place."""
    images = maps()
    boxes = torch.stack([BOXES, BOXES.flip(0) + 0.3])
    pooled = roi_align(images, boxes, bins, scale=scale, sampling=sampling)
    for b in range(2):
        for k in range(len(BOXES)):
            wanted = one_point_at_a_time(images[b], boxes[b, k], bins, scale, sampling)
            torch.testing.assert_close(pooled[b, k], wanted, rtol=0, atol=1e-12)


def test_linear_maps_are_reproduced_at_the_bins_centers():
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(12.0), indexing="ij")
    image = (2 * x - 3 * y + 1).double()[None, None] + torch.zeros(1, 1, 9, 12, dtype=torch.float64)
    box = torch.tensor([[[2.0, 1.5, 8.0, 7.5]]], dtype=torch.float64)
    pooled = roi_align(image, box, 3)[0, 0, 0]
    centers = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    wanted = 2 * (2.0 + centers - 0.5)[None] - 3 * (1.5 + centers - 0.5)[:, None] + 1
    torch.testing.assert_close(pooled, wanted, rtol=0, atol=1e-12)
    constant = roi_align(torch.full_like(image, 4.0), box, 5)
    torch.testing.assert_close(constant, torch.full_like(constant, 4.0))


def test_gradcheck():
    images = maps(1, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: roi_align(m, BOXES[None], 2, scale=0.9), images)


def test_coordinates_stay_exact_under_autocast():
    """In bfloat16 the edges 300 and 301 would be one number, and every bin of the box the same cell."""
    image = torch.arange(400.0).expand(1, 1, 4, 400).contiguous()
    box = torch.tensor([[[300.0, 1.0, 304.0, 3.0]]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = roi_align(image, box, 4)
    exact = roi_align(image, box, 4)
    assert (rounded.float() - exact).abs().max() <= 2.0  # one step of bfloat16 at 300
    assert reference.axis_weights(torch.tensor([300.0]), torch.tensor([304.0]), 4, 400).dtype == torch.float32


def test_nothing_in_nothing_out():
    images = maps().requires_grad_()
    pooled = roi_align(images, BOXES[None, :0].expand(2, 0, 4), 7)
    assert pooled.shape == (2, 0, 3, 7, 7)
    pooled.sum().backward()
    assert images.grad is not None
    assert roi_align(images[:0], BOXES[None, :0].expand(0, 0, 4), 7).shape == (0, 0, 3, 7, 7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, b: roi_align(m, b[0], 7), "one row of boxes a map"),
        (lambda m, b: roi_align(m[:1], b, 7), "one row of boxes a map"),
        (lambda m, b: roi_align(m, b, 0), "at least 1"),
        (lambda m, b: roi_align(m, b, 7, scale=0.0), "scale above 0"),
        (lambda m, b: roi_align(m[:, :, :0], b, 7), "without cells"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        call(maps(), BOXES.expand(2, 5, 4))
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter."""
    from labkit.kernels.roi_align.triton import roi_align_triton, roi_align_triton_backward

    images = maps(dtype=torch.float32).requires_grad_()
    boxes = torch.stack([BOXES, BOXES + 0.4]).float()
    wanted = reference.roi_align_reference(images, boxes, 3, 0.9, 2)
    got = roi_align_triton(images.detach(), boxes, 3, 0.9, 2)
    torch.testing.assert_close(got, wanted.detach(), rtol=1e-5, atol=1e-5)
    gradient = torch.linspace(-1, 1, wanted.numel()).view(wanted.shape)
    (asked,) = torch.autograd.grad(wanted, images, gradient)
    backward = roi_align_triton_backward(gradient, boxes, images.shape, 0.9, 2)
    torch.testing.assert_close(backward, asked, rtol=1e-4, atol=1e-5)
