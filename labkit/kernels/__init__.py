"""Kernels: Triton on a GPU, PyTorch on a CPU, one function for both.

Each stands in a file of its name, beside the plain-PyTorch reference that its tests and benchmarks compare it with.
"""

from labkit.kernels.int8_conv import int8_conv2d, int8_conv2d_reference
from labkit.kernels.soft_quantize import soft_quantize, soft_quantize_reference

__all__ = ["int8_conv2d", "int8_conv2d_reference", "soft_quantize", "soft_quantize_reference"]
