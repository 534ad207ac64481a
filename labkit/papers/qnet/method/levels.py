"""Level sets Y: the values a quantised weight or activation may take, before the scale alpha.

A level set is a plain tuple of ascending numbers, so anybody can try a new one: `quantize_weights(model, (-1, 0, 2))`.
"""

import itertools
import math
from collections.abc import Sequence

from labkit.errors import InputError


def uniform_weight_levels(bits: int) -> tuple[float, ...]:
    """{1 - 2^(k-1), ..., 2^(k-1) - 1}: symmetric, with zero; for one bit {-1, +1}.  [peer code]"""
    if bits < 1:
        raise InputError(f"a weight needs at least one bit; got {bits}")
    highest = 2 ** (bits - 1) - 1
    return (-1.0, 1.0) if bits == 1 else tuple(float(level) for level in range(-highest, highest + 1))


def activation_levels(bits: int) -> tuple[float, ...]:
    """{0, 1, ..., 2^k - 1}.  [official code]"""
    if bits < 1:
        raise InputError(f"an activation needs at least one bit; got {bits}")
    return tuple(float(level) for level in range(2**bits))


LEVELS: dict[str, tuple[float, ...]] = {
    "W1": (-1.0, 1.0),
    "W2": (-1.0, 0.0, 1.0),
    "W3pm2": (-2.0, -1.0, 0.0, 1.0, 2.0),
    "W3pm4": (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0),  # powers of two: a product is a shift
    **{f"W{bits}": uniform_weight_levels(bits) for bits in range(3, 9)},
    **{f"A{bits}": activation_levels(bits) for bits in range(1, 9)},
}
"""The sets of the paper's tables by name (W3pm4: 3 bits, up to plus or minus 4), and uniform ones up to 8 bits.

The [official code] writes W1 as two half steps, {-1, 0, 1} with both thresholds at 0: the same function.
"""


def level_set(name: str) -> tuple[float, ...]:
    """The level set called `name`. Raises InputError, with the names there are, for an unknown one."""
    if name not in LEVELS:
        raise InputError(f"there is no level set '{name}'; there are {', '.join(LEVELS)}; or give numbers")
    return LEVELS[name]


MOST_LEVELS = 256  # a level's index, its code, is one byte


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """`levels` as a tuple of floats, if they are 2 to 256 finite numbers in ascending order; InputError if not."""
    values = tuple(float(level) for level in levels)
    if len(values) > MOST_LEVELS:
        raise InputError(f"a code is one byte and tells {MOST_LEVELS} levels apart; got {len(values)} levels")
    ascending = all(low < high for low, high in itertools.pairwise(values))
    if len(values) < 2 or not ascending or not all(map(math.isfinite, values)):
        raise InputError(f"levels must be two or more finite numbers in ascending order; got {values}")
    return values


def bits_needed(levels: Sequence[float]) -> int:
    """Bits that tell the levels apart: 1 for W1, 2 for W2, 3 for W3pm2 and W3pm4."""
    return max(1, math.ceil(math.log2(len(levels))))


def is_binary(levels: Sequence[float]) -> bool:
    """Whether the set is {-a, +a}, whose threshold is 0 by definition and not by k-means."""
    return len(levels) == 2 and levels[0] == -levels[1]
