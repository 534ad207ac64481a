"""What one codec's curve of rate over quality saves against another's."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

from labkit.errors import InputError


def bd_rate(
    anchor_rate: Sequence[float], anchor_quality: Sequence[float], rate: Sequence[float], quality: Sequence[float]
) -> float:
    """Bjontegaard's rate difference: percent of bits that a curve needs more (+) or less (-) at equal quality.

        100 (exp(mean over the common qualities of ln R(q) - ln R_anchor(q)) - 1)

    ln R is interpolated over q by PCHIP through the points of each curve. Curves of several sequences are compared one
    by one, and the results averaged. What two curves do not share in quality counts for neither.

    Returns:
        NaN where the curves have no quality in common.

    Raises:
        InputError: fewer than two points, rates that are not positive, or two points of equal quality.
    """
    curves = [_curve(*pair) for pair in ((anchor_rate, anchor_quality), (rate, quality))]
    low, high = max(c.x[0] for c in curves), min(c.x[-1] for c in curves)
    if high <= low:
        return math.nan
    anchor, ours = (float(curve.integrate(low, high)) / (high - low) for curve in curves)
    return 100 * math.expm1(ours - anchor)


def _curve(rate: Sequence[float], quality: Sequence[float]) -> PchipInterpolator:
    rates, qualities = np.asarray(rate, dtype=float), np.asarray(quality, dtype=float)
    if rates.ndim != 1 or rates.shape != qualities.shape or len(rates) < 2:
        raise InputError(
            f"a curve needs two points or more, as many rates as qualities; got {len(rates)} and {len(qualities)}."
        )
    if not (rates > 0).all() or not np.isfinite([rates, qualities]).all():
        raise InputError("rates must be positive and qualities finite numbers.")
    order = np.argsort(qualities)
    if (np.diff(qualities[order]) <= 0).any():
        raise InputError("two points of a curve have the same quality: it is not a curve over quality.")
    return PchipInterpolator(qualities[order], np.log(rates[order]))
