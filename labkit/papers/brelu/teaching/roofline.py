"""How fast integers could be on this machine: peaks of products and memory, and the work of a layer per byte."""

from typing import NamedTuple

import torch

from labkit.errors import InputError
from labkit.kernels.int8_matmul import int8_matmul
from labkit.workbench.benchmark import compare

SIDE = 512  # of the square matrices: large enough for full speed, small enough for the second-level cache
COPIED = 1 << 25  # bytes, far more than any cache of one core


class Machine(NamedTuple):
    """Billions of operations per second in int8 and in float32 (a product and a sum count as two); GB per second."""

    int8_gops: float
    float_gops: float
    gbytes: float


def measure(rounds: int = 5) -> Machine:
    """The best of `rounds` of each, taken in turns, on one thread."""
    a = torch.randint(-127, 128, (SIDE, SIDE), dtype=torch.int8)
    b = torch.randint(-127, 128, (SIDE, SIDE), dtype=torch.int8)
    x, y = a.float(), b.float()
    source, target = torch.zeros(COPIED, dtype=torch.uint8), torch.empty(COPIED, dtype=torch.uint8)
    calls = {"int8": lambda: int8_matmul(a, b), "float32": lambda: x @ y, "copy": lambda: target.copy_(source)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = compare(calls, torch.device("cpu"), rounds=rounds)
    finally:
        torch.set_num_threads(threads)
    work = 2 * SIDE**3 / 1e6  # with milliseconds: billions per second
    return Machine(work / best["int8"], work / best["float32"], 2 * COPIED / 1e6 / best["copy"])


def layer_intensity(channels: int, out: int, side: int, kernel: int, size: int) -> float:
    """Operations per byte of a convolution whose input, weights and output each move once, `size` bytes an element.

    The integers' output is one byte an element only because clip, multiply and shift are fused behind the sums.
    """
    if min(channels, out, side, kernel, size) < 1:
        raise InputError(f"a layer has positive sizes; got {channels}, {out}, {side}, {kernel}, {size}.")
    operations = 2 * channels * out * kernel**2 * side**2
    moved = size * ((channels + out) * side**2 + channels * out * kernel**2)
    return operations / moved
