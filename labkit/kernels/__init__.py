"""Kernels: Triton on a GPU, PyTorch on a CPU, one function for both.

A kernel is a folder: the function in `__init__.py`, its types and PyTorch body in `reference.py`, its Triton body in
`triton.py`. Tests and benchmarks compare the bodies.
"""

from labkit.kernels.int8_conv import int8_conv2d, int8_conv2d_reference
from labkit.kernels.soft_quantize import soft_quantize, soft_quantize_reference

__all__ = ["int8_conv2d", "int8_conv2d_reference", "soft_quantize", "soft_quantize_reference"]
