"""The chained warp: identities, OpenCV's remap, closed forms of chains, gradients, and its Triton body."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.flow_warp import chained_warp, chained_warp_reference, warp


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def constant(x: float, y: float, height: int, width: int) -> Tensor:
    return torch.tensor([x, y], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, height, width)


def centred(height: int, width: int) -> Tensor:
    """p - c as (2, height, width), x first."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x - (width - 1) / 2, y - (height - 1) / 2]).double()


def test_zero_flow_changes_nothing():
    """Coordinates pass through [-1, 1] and back: a sample may sit a rounding error off its pixel."""
    image = noise(2, 3, 7, 9)
    torch.testing.assert_close(warp(image, torch.zeros(2, 2, 7, 9).double()), image, rtol=0, atol=1e-12)


def test_whole_pixels_shift_and_the_border_is_repeated():
    image = noise(1, 1, 5, 6)
    moved = warp(image, constant(2, -1, 5, 6))
    index_x, index_y = (torch.arange(6) + 2).clamp(max=5), (torch.arange(5) - 1).clamp(min=0)
    torch.testing.assert_close(moved, image[:, :, index_y][..., index_x], rtol=0, atol=1e-12)


def test_a_ramp_moves_exactly_by_fractions():
    """Which also tells channel 0 from channel 1: the ramp is steeper along x."""
    x, y = centred(6, 8)
    ramp = (3 * x + 0.5 * y)[None, None]
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    moved = warp(ramp, constant(0.25, -0.75, 6, 8))
    torch.testing.assert_close(moved[inside], (ramp + 3 * 0.25 - 0.5 * 0.75)[inside])


def test_opencv_agrees():
    """Its interpolation has steps of 1/32 pixel: off by 1/64 of the steepest gradient on each side at most."""
    cv2 = pytest.importorskip("cv2", reason="needs the extra 'peers'")
    image, flow = noise(1, 1, 20, 24), 8 * noise(1, 2, 20, 24, seed=1) - 4
    x, y = np.meshgrid(np.arange(24), np.arange(20))
    theirs = cv2.remap(
        image[0, 0].numpy().astype(np.float32), (x + flow[0, 0].numpy()).astype(np.float32),
        (y + flow[0, 1].numpy()).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    assert np.abs(warp(image, flow)[0, 0].numpy() - theirs).max() < 2 / 64


def test_constant_motion_adds_up():
    flows = constant(1.25, -0.5, 8, 9)[:, None].expand(1, 4, 2, 8, 9)
    _, chain = chained_warp(noise(1, 4, 1, 8, 9), flows)
    for k in range(4):
        torch.testing.assert_close(chain[:, k], (k + 1) * flows[:, 0])


def test_a_chain_of_rotations_is_their_power():
    """Bilinear sampling is exact on linear fields: f_k = (R^k - I)(p - c) where no path left the frame."""
    height = width = 33
    angle = 0.03
    rotation = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    p = centred(height, width)

    def field(matrix: Tensor) -> Tensor:
        return torch.einsum("ij,jhw->ihw", matrix - torch.eye(2).double(), p)

    flows = field(rotation)[None, None].expand(1, 4, 2, height, width)
    _, chain = chained_warp(noise(1, 4, 1, height, width), flows)
    inside = (slice(4, -4), slice(4, -4))
    for k in range(4):
        wanted = field(torch.linalg.matrix_power(rotation, k + 1))
        torch.testing.assert_close(chain[0, k][(slice(None), *inside)], wanted[(slice(None), *inside)])


def test_each_reference_is_interpolated_once():
    """What was warped twice by half a pixel is blurred; what is warped once by a whole pixel is not."""
    image = noise(1, 2, 1, 6, 8)
    flows = constant(0.5, 0, 6, 8)[:, None].expand(1, 2, 2, 6, 8)
    warped, _ = chained_warp(image, flows)
    torch.testing.assert_close(warped[0, 1, 0, :, :-1], image[0, 1, 0, :, 1:])
    twice = warp(warp(image[:, 1], flows[:, 0]), flows[:, 0])
    assert (twice - warped[:, 1]).abs().max() > 0.05


def test_gradients_are_those_of_finite_differences():
    """Away from whole pixels, where the slope jumps, and from the border, where it is 0."""
    images = noise(1, 2, 2, 5, 6, seed=2).requires_grad_()
    flows = (0.2 + 0.3 * noise(1, 2, 2, 5, 6, seed=3)).requires_grad_()
    inside = (slice(None), slice(None), slice(None), slice(0, 3), slice(0, 4))

    def inner(images: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        warped, chain = chained_warp(images, flows)
        return warped[inside], chain[inside]

    assert torch.autograd.gradcheck(inner, (images, flows))


@pytest.mark.parametrize(
    ("images", "flows", "words"),
    [
        (torch.zeros(1, 2, 3, 4, 5), torch.zeros(1, 2, 3, 4, 5), "flows (batch, refs, 2"),
        (torch.zeros(1, 0, 3, 4, 5), torch.zeros(1, 0, 2, 4, 5), "one reference at least"),
        (torch.zeros(1, 2, 3, 4, 5), torch.zeros(1, 3, 2, 4, 5), "must agree"),
        (torch.zeros(1, 2, 3, 4, 5).half(), torch.zeros(1, 2, 2, 4, 5), "convert both to float32"),
    ],
)
def test_bad_input_is_refused(images, flows, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        chained_warp(images, flows)
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter. Flows leave the frame on all sides."""
    from labkit.kernels.flow_warp.triton import chained_warp_triton

    for batch, refs, channels, height, width in ((2, 4, 3, 9, 17), (1, 1, 18, 1, 5), (1, 2, 1, 16, 16)):
        images = noise(batch, refs, channels, height, width)
        flows = 12 * noise(batch, refs, 2, height, width, seed=1) - 6
        for got, wanted in zip(chained_warp_triton(images, flows), chained_warp_reference(images, flows), strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)
        small = flows / 12  # a chain multiplies rounding errors by the slope of its flows
        got, _ = chained_warp_triton(images.float(), small.float())
        wanted, _ = chained_warp_reference(images, small)
        assert (got - wanted).abs().max() < 1e-4
