"""Seeds from keys: the one way in which a generator gets a state of its own."""

import numpy as np


def derive(*keys: int) -> int:
    """A seed of 63 bits from `keys`, for example (seed of the run, replica, purpose).

    Sums such as `1000 * seed + replica` meet where one run has many replicas; NumPy's SeedSequence mixes all bits of
    all keys, so that neighbouring keys give unrelated streams.

    Args:
        keys: whole numbers of at least 0, a derived seed among them if need be; their order and number matter.

    Raises:
        ValueError: a key is negative.
    """
    # the pool is padded with zeros, so that (1,) and (1, 0) would be one without their number
    high, low = np.random.SeedSequence(keys, spawn_key=(len(keys),)).generate_state(2)
    return (int(high) << 32 | int(low)) >> 1
