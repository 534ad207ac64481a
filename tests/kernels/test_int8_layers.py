"""8-bit convolutions and products by oneDNN against int64; where they are not exact `is_fast` must say so."""

import pytest
import torch
import torch.nn.functional as F

from labkit.kernels import int8_layers
from labkit.kernels.int8_layers import int8_conv2d_scaled, int8_linear_scaled

pytestmark = pytest.mark.skipif(not int8_layers.is_fast(), reason="this processor is not quicker on 8-bit integers")


def draw(low, high, *shape, dtype):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [((1, 1), (0, 0), (1, 1)), ((2, 1), (1, 3), (1, 2))])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution(groups, stride, padding, dilation, layout):
    codes = draw(0, 256, 2, 6, 9, 11, dtype=torch.uint8).contiguous(memory_format=layout)
    weight = draw(-128, 128, 12, 6 // groups, 3, 2, dtype=torch.int8)
    scale = torch.linspace(0.01, 0.9, 12)
    got = int8_conv2d_scaled(codes, weight, scale, stride, padding, dilation, groups)
    sums = F.conv2d(codes.long(), weight.long(), None, stride, padding, dilation, groups)
    assert torch.equal(got, sums.float() * scale.view(-1, 1, 1))


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 33, 7), (64, 288, 10)])
def test_product(shape):
    rows, inner, columns = shape
    codes = draw(0, 256, rows, inner, dtype=torch.uint8)
    weight = draw(-128, 128, columns, inner, dtype=torch.int8)
    scale = torch.linspace(0.01, 0.9, columns)
    wanted = (codes.long() @ weight.long().t()).float() * scale
    assert torch.equal(int8_linear_scaled(codes, weight, scale), wanted)
