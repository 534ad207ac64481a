"""Scales in integers: a real factor as `mul / 2^shift`, small enough that nothing leaves int32.

An integer tensor u stands for the real tensor u / r; r is its ratio. After a convolution r = r_in / s. The bounded ReLU
maps u in 0..u_max to codes 0..levels, (u mul + 2^(shift-1)) >> shift, and the ratio becomes r mul / 2^shift.

Other engines (ONNX, cuDNN, TensorRT) requantise by one float32 factor and round halves to even. That gives the same
bits where a factor s exists for which every code begins at the same sum; `float_factor` looks for it, and `mul_shift`
prefers pairs that have one [ours].
"""

import math
from typing import Literal

import numpy as np

from labkit.errors import InputError
from labkit.kernels.int8_conv import Requantizer

INT32 = 1 << 31
LARGEST = 1 << 24  # of the u_max that `mul_shift` takes


def mul_shift(
    u_max: int, levels: int = 127, mode: Literal["robust", "paper"] = "robust", signed: bool = False
) -> tuple[int, int]:
    """(mul, shift) with floor(u_max mul / 2^shift + 1/2) = levels, and u mul + 2^(shift-1) < 2^31 for u = 0..u_max.

    robust [ours]: of the shifts 24, 23, ..., 0 the first with mul = round(levels 2^shift / u_max) < 2^15 that reaches
    `levels` and has a `float_factor`; the first that reaches where none has. One that reaches exists for every u_max
    from 1 to 2^24: where 2^15 does not bind, shift is 24 and mul >= levels, so the error u_max / 2 of rounding mul is
    at most 2^23, half a code.

    paper [official code]: the first shift i = 1..27 with mul = round((levels + 1/2) 2^i / u_max) whose ceiling lies
    within half a code of `levels`. Aiming half a code too high, the search relies on mul being rounded down; for some
    u_max it never succeeds (64, 128, 256...) or ends in factors that leave int32. Those are refused here.

    signed: the factor is to serve sums from -u_max on, where ties would have to go the other way.

    Raises:
        InputError: u_max out of range, levels above 127, or the paper's search fails.
    """
    if not 1 <= u_max <= LARGEST:
        raise InputError(f"u_max must lie between 1 and 2^24; got {u_max}. A bound far too small or large does this.")
    if not 1 <= levels <= 127:
        raise InputError(f"levels must lie between 1 and 127, the codes of int8; got {levels}.")
    if mode == "robust":
        pairs = ((_divide(levels << shift, u_max), shift) for shift in range(24, -1, -1))
        reaching = [pair for pair in pairs if 0 < pair[0] < 1 << 15 and _reaches(u_max, *pair, levels)]
        return next((pair for pair in reaching if float_factor(snapped(*pair, levels, signed), levels)), reaching[0])
    if mode != "paper":
        raise InputError(f"mode must be 'robust' or 'paper'; got {mode!r}.")
    for shift in range(1, 28):
        if (2 * levels + 1) << shift > 2 * u_max:
            mul = round((levels + 0.5) * 2**shift / u_max)
            if abs(u_max * mul / 2**shift - levels) < 0.5:
                if u_max * mul + (1 << (shift - 1)) >= INT32:
                    break
                return mul, shift
    raise InputError(f"the paper's search finds no safe (mul, shift) for u_max = {u_max}. Use mode='robust'.")


def mul_shift_ratio(q: float, tolerance: float = 0.01) -> tuple[int, int]:
    """(mul, shift) with 2^shift / mul within `tolerance` of q: the first shift in 0..27 that does.  [official code]

    Multiplying by mul and shifting then divides a ratio by about q.

    Raises:
        InputError: q is not positive, or so large or small that no such pair exists.
    """
    if not 0 < q < float("inf"):
        raise InputError(f"a quotient of two ratios is positive; got {q}.")
    for shift in range(28):
        if 2**shift > q:
            mul = round(2**shift / q)
            if mul < 1 << 24 and abs(2**shift / mul - q) < tolerance * q:
                return mul, shift
    raise InputError(
        f"no (mul, shift) comes within {tolerance:.0%} of the quotient {q:g}: the two scales are too far apart."
    )


def requantizer_for(bound: float, ratio: float, levels: int = 127, signed: bool = False) -> Requantizer:
    """The bounded ReLU with real bound B on sums of ratio r, snapped so that code `levels` is exactly its ceiling.

    u_max = round(B r);  (mul, shift) = mul_shift(u_max);  then u_max = round(levels 2^shift / mul)  [official code]

    signed: for values of both signs, codes -levels..levels  [ours].
    """
    mul, shift = mul_shift(round(bound * ratio), levels, signed=signed)
    return snapped(mul, shift, levels, signed)


def requantizer_to(target: float, ratio: float, levels: int = 127, signed: bool = False) -> Requantizer:
    """The requantiser that takes sums of ratio `ratio` to codes of a ratio at or just above `target`.

    The least mul / 2^shift that is not below target / ratio, mul < 2^15; where one within 1 % has a `float_factor`,
    that one.

    Raises:
        InputError: the two ratios are so far apart that no requantiser lies between them.
    """
    reaching = []
    for shift in range(24, -1, -1):
        mul = math.ceil(target / ratio * 2**shift)
        if 0 < mul < 1 << 15 and _divide(levels << shift, mul) > 0:
            requantizer = snapped(mul, shift, levels, signed)
            if _reaches(requantizer.u_max, mul, shift, levels):
                reaching.append(requantizer)
    if not reaching or reaching[0].mul / 2 ** reaching[0].shift > 1.1 * target / ratio:
        raise InputError(f"no (mul, shift) takes integers of ratio {ratio:g} to codes of ratio {target:g}.")
    near = (one for one in reaching if one.mul / 2**one.shift < 1.01 * target / ratio)
    return next((one for one in near if float_factor(one, levels)), reaching[0])


def float_factor(requantizer: Requantizer, levels: int = 127) -> float | None:
    """The float32 s for which round(float32(u) s), halves to even, is the code of every sum u; None if none is found.

    Both sides are staircases in u. They are equal where each code begins at the same sum, so only the sums at which a
    code begins, and those just below them, are compared.
    """
    _, mul, shift, u_min = requantizer
    codes = np.arange(1 if u_min == 0 else 1 - levels, levels + 1)
    begins = -(-((codes << shift) - (1 << shift) // 2) // mul)  # the least u with (u mul + half) >> shift >= code
    at, below = begins.astype(np.float32), (begins - 1).astype(np.float32)
    exact = np.float32(mul / 2**shift)
    for s in (exact, np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact, np.float32(0))):
        if (np.rint(at * s) >= codes).all() and (np.rint(below * s) < codes).all():
            return float(s)
    return None


def snapped(mul: int, shift: int, levels: int, signed: bool = False) -> Requantizer:
    """The requantiser whose clip lies where the codes end: u_max = round(levels 2^shift / mul)."""
    u_max = _divide(levels << shift, mul)
    return Requantizer(u_max, mul, shift, -u_max if signed else 0)


def snapped_bound(requantizer: Requantizer, ratio: float, levels: int = 127) -> float:
    """B := levels 2^shift / (mul r): the real bound that the integers really have."""
    return levels * 2**requantizer.shift / (requantizer.mul * ratio)


def _reaches(u_max: int, mul: int, shift: int, levels: int) -> bool:
    """Do u_max, and the snapped u_max, get code `levels` without leaving int32?"""
    ends = (u_max, _divide(levels << shift, mul))
    half = (1 << shift) // 2
    return all((u * mul + half) >> shift == levels and u * mul + half < INT32 for u in ends)


def _divide(numerator: int, denominator: int) -> int:
    """numerator / denominator rounded to the nearest, half up."""
    return (2 * numerator + denominator) // (2 * denominator)
