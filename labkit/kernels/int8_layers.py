"""Convolutions and matrix products of 8-bit integers on a CPU, by oneDNN: y = scale sum(codes weight), in float32.

Products are added up in 32 bits, exactly; sums below 2^24 are whole float32 numbers, so that `scale` rounds once and y
is the same on every machine. The operators are those that PyTorch's compiler uses and no public interface, so they are
tried once per process: where they are missing, inexact, or slow for want of VNNI, `is_fast` says no.
"""

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float32, Int8, UInt8
from torch import Tensor

LARGEST_SUM = 1 << 24  # up to here every whole number is a float32


def int8_conv2d_scaled(
    codes: UInt8[Tensor, "n c h w"],
    weight: Int8[Tensor, "c2 c_per_group kh kw"],
    scale: Float32[Tensor, " c2"],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Float32[Tensor, "n c2 h2 w2"]:
    """scale times the convolution of `codes`, padded with zeros, by `weight`. y is channels-last in memory."""
    codes = codes.contiguous(memory_format=torch.channels_last)
    geometry = (list(stride), list(padding), list(dilation), groups)
    packed = torch.ops.onednn.qconv_prepack(weight, scale, 1.0, 0, *geometry, list(codes.shape))
    zero_points = torch.zeros(len(weight), dtype=torch.int8)
    inputs = (codes, 1.0, 0, packed, scale, zero_points, None)
    y: Tensor = torch.ops.onednn.qconv2d_pointwise(*inputs, *geometry, 1.0, 0, torch.float32, "none", [], "")
    return y


def int8_linear_scaled(
    codes: UInt8[Tensor, "n c"], weight: Int8[Tensor, "c2 c"], scale: Float32[Tensor, " c2"]
) -> Float32[Tensor, "n c2"]:
    """scale times codes @ weight.T, as a convolution of images of one pixel."""
    as_images, one = codes[:, :, None, None], (1, 1)
    y = int8_conv2d_scaled(as_images, weight[:, :, None, None], scale, one, (0, 0), one, 1)
    return y[:, :, 0, 0]


@functools.cache
def is_fast() -> bool:
    """Whether this process's CPU multiplies 8-bit integers quicker than floats, and these operators are exact on it.

    Chosen by capability and not by timing, so that a process takes one path whatever else the machine does.
    """
    try:
        return torch.cpu._is_vnni_supported() and _is_exact()
    except (AttributeError, RuntimeError, NotImplementedError):  # another torch, another processor
        return False


def _is_exact() -> bool:
    """Against int64, on operands of the largest magnitude in both signs, and a scale that rounds."""
    codes = torch.where(torch.arange(2 * 66 * 5 * 5) % 3 > 0, 255, 254).to(torch.uint8).view(2, 66, 5, 5)
    weight = torch.where(torch.arange(8 * 33 * 9) % 5 > 0, 127, -128).to(torch.int8).view(8, 33, 3, 3)
    scale = torch.linspace(0.1, 0.7, 8)
    y = int8_conv2d_scaled(codes, weight, scale, (2, 1), (1, 0), (1, 2), 2)
    sums = torch.nn.functional.conv2d(codes.long(), weight.long(), None, (2, 1), (1, 0), (1, 2), 2)
    rows, matrix = codes.flatten(1)[:, :300], weight.flatten(1)[:, :297].repeat(1, 2)[:, :300]
    z = int8_linear_scaled(rows, matrix.contiguous(), scale)
    products = rows.long() @ matrix.long().t()
    return torch.equal(y, sums.float() * scale.view(-1, 1, 1)) and torch.equal(z, products.float() * scale)
