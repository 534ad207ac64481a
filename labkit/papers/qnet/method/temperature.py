"""Temperature schedules: functions from the fraction of training done, in (0, 1], to the temperature T > 0.

The loop asks `schedule((step + 1) / steps)` before each step. The paper's idea in two halves: at a low T
every weight learns; at a high T the network that is trained is the one that is deployed.
"""

import math
from collections.abc import Callable

from labkit.errors import InputError

Schedule = Callable[[float], float]


def constant(temperature: float) -> Schedule:
    """T throughout. Infinity is the hard forward pass, for quantisers with a wide bell."""
    _positive(temperature=temperature)
    return lambda fraction: (_fraction(fraction), temperature)[1]


def linear(final: float) -> Schedule:
    """T = final * fraction, from nearly 0.  [paper]"""
    _positive(final=final)
    return lambda fraction: final * _fraction(fraction)


def staircase(final: float, stages: int, highest: float = 2000.0) -> Schedule:
    """T = T0 * stage for stage 1, 2, ..., `stages`, with T0 = final / stages, but never above `highest`.

    With epochs as stages this is the authors' schedule of weights, 2000 included.  [official code]
    """
    _positive(final=final, stages=float(stages), highest=highest)

    def temperature(fraction: float) -> float:
        stage = math.ceil(_fraction(fraction) * stages - 1e-9)  # 0.3 * 10 is above 3
        return min(final * stage / stages, highest)

    return temperature


def _fraction(fraction: float) -> float:
    if not 0 < fraction <= 1:
        raise InputError(
            f"a schedule takes the fraction of training done, above 0 and up to 1; got {fraction}. "
            "Use schedule((step + 1) / steps)"
        )
    return fraction


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"{name} must be positive; got {value}")
