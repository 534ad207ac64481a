"""Factors as mul / 2^shift: the authors' own numbers, a proof by exhaustion, and where their search fails."""

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.kernels.int8_conv import check_requantizer
from labkit.papers.brelu.method.multiply_shift import (
    float_factor,
    mul_shift,
    mul_shift_ratio,
    requantizer_for,
    requantizer_to,
    snapped,
    snapped_bound,
)
from labkit.papers.brelu.teaching import checks

RELEASED = [  # (u_max, mul, shift) in the authors' parameter files
    (7566, 275, 14), (46239, 45, 14), (21675, 3, 9), (57824, 2303, 20), (61425, 271, 17), (48959, 85, 15),
]  # fmt: skip
PAPER = [  # what the official search returns for u_max
    (7566, 69, 12), (46239, 45, 14), (21675, 3, 9), (57824, 9, 12), (61425, 17, 13), (47836, 87, 15),
]  # fmt: skip


@pytest.mark.parametrize(("u_max", "mul", "shift"), RELEASED)
def test_released_triples_are_snapped(u_max, mul, shift):
    """u_max = round(127 * 2^shift / mul)."""
    assert snapped(mul, shift, 127) == (u_max, mul, shift, 0)
    check_requantizer(snapped(mul, shift, 127))


@pytest.mark.parametrize(("u_max", "mul", "shift"), PAPER)
def test_the_papers_search(u_max, mul, shift):
    assert mul_shift(u_max, mode="paper") == (mul, shift)


@pytest.mark.slow
def test_robust_reaches_its_levels_for_every_u_max_up_to_2_24_and_never_leaves_int32():
    """By exhaustion, with arrays of our own; the function takes the first pair, or a later one with a float factor."""
    chunk = 1 << 21
    for start in range(1, (1 << 24) + 1, chunk):
        u = np.arange(start, min(start + chunk, (1 << 24) + 1), dtype=np.int64)
        mul, shift = np.zeros_like(u), np.full_like(u, -1)
        for s in range(24, -1, -1):
            m = (2 * (127 << s) + u) // (2 * u)
            u_snapped = (2 * (127 << s) + np.maximum(m, 1)) // (2 * np.maximum(m, 1))
            fits = (m > 0) & (m < 1 << 15)
            for end in (u, u_snapped):
                largest = end * m + ((1 << s) >> 1)
                fits &= (largest < 1 << 31) & (largest >> s == 127)
            new = fits & (shift < 0)
            mul[new], shift[new] = m[new], s
            if (shift >= 0).all():
                break
        assert (shift >= 0).all()
        assert (u * mul + (1 << shift) // 2 < 1 << 31).all()
        for i in np.random.default_rng(start).integers(len(u), size=200):
            got_mul, got_shift = mul_shift(int(u[i]))
            assert got_shift <= shift[i]
            assert (int(u[i]) * got_mul + (1 << got_shift) // 2) >> got_shift == 127
            if (got_mul, got_shift) != (mul[i], shift[i]):
                assert float_factor(snapped(got_mul, got_shift, 127)) is not None
                assert float_factor(snapped(int(mul[i]), int(shift[i]), 127)) is None


def test_check_passes_for_ours_and_not_for_the_papers():
    checks.check_mul_shift(lambda u_max: mul_shift(u_max))
    with pytest.raises(InputError, match="finds no safe"):
        checks.check_mul_shift(lambda u_max: mul_shift(u_max, mode="paper"))


@pytest.mark.parametrize("u_max", [64, 128, 256])
def test_where_the_papers_search_fails_it_is_refused(u_max):
    with pytest.raises(InputError, match="Use mode='robust'"):
        mul_shift(u_max, mode="paper")
    assert mul_shift(u_max)[0] > 0


def test_the_papers_search_never_leaves_int32_where_it_is_allowed():
    refused = 0
    for u_max in range(2, 20_000):
        try:
            mul, shift = mul_shift(u_max, mode="paper")
        except InputError:
            refused += 1
            continue
        assert u_max * mul + (1 << (shift - 1)) < 2**31
    assert 0 < refused < 600


@pytest.mark.parametrize("levels", [1, 3, 15, 31, 127])
def test_other_levels(levels):
    for u_max in (1, 7, 100, 46_239, 2**24):
        mul, shift = mul_shift(u_max, levels)
        assert (u_max * mul + (1 << shift) // 2) >> shift == levels


def test_requantizer_and_bound_agree():
    """B := levels 2^shift / (mul r): code `levels` at exactly the snapped bound, at most half a percent away."""
    triple = requantizer_for(0.83, 9_731.5)
    bound = snapped_bound(triple, 9_731.5)
    assert triple.u_max == round(bound * 9_731.5)
    assert bound == pytest.approx(0.83, rel=5e-3)
    assert snapped(triple.mul, triple.shift, 127) == triple


@pytest.mark.parametrize("levels", [127, 15])
@pytest.mark.parametrize("signed", [False, True])
def test_a_float_factor_gives_every_sum_its_code(levels, signed):
    """By exhaustion over all sums, with numpy's float32 and its halves to even: what ONNX's QLinearConv does."""
    random = np.random.default_rng(levels)
    for u_max in (1, 2, 63, 64, 127, 128, 254, 255, 46_239, *random.integers(1, 1 << 17, size=20)):
        requantizer = snapped(*mul_shift(int(u_max), levels, signed=signed), levels, signed)
        factor = float_factor(requantizer, levels)
        if signed and factor is None:
            continue  # ties would have to go both ways; such a layer is exported as sums
        assert factor is not None  # of 20,000 random u_max below 2^17 every one has one
        u = np.arange(2 * requantizer.u_min - 5, 2 * requantizer.u_max + 5, dtype=np.int64)
        clipped = u.clip(requantizer.u_min, requantizer.u_max)
        ours = (clipped * requantizer.mul + (1 << requantizer.shift) // 2) >> requantizer.shift
        theirs = np.rint(u.astype(np.float32) * np.float32(factor)).clip(-levels if signed else 0, levels)
        assert (theirs == ours).all()


def test_a_pair_without_a_float_factor_is_told_apart():
    assert float_factor(snapped(1, 1, 127)) > 0.5  # 1/2, 3/2...: ties; a factor a little above 1/2 rounds them up
    assert float_factor(snapped(*mul_shift(2**24), 127)) is None  # sums near 2^24 are too coarse in float32


def test_a_requantizer_to_a_given_ratio():
    for target, ratio in ((30.0, 9_731.5), (511.7, 88_000.0), (0.7, 12.0)):
        u_max, mul, shift, u_min = requantizer_to(target, ratio, signed=True)
        assert 1 <= ratio * mul / 2**shift / target < 1.01
        assert u_min == -u_max
    with pytest.raises(InputError, match="no \\(mul, shift\\) takes integers of ratio"):
        requantizer_to(1e-9, 1e9)


def test_ratio():
    for q in (0.02, 0.7, 1.0, 1.01, 3.9, 55.5, 4000.0):
        mul, shift = mul_shift_ratio(q)
        assert abs(2**shift / mul - q) < 0.01 * q
    assert mul_shift_ratio(8 / 31) == (31, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mul_shift(0), "u_max must lie between 1 and 2\\^24; got 0"),
        (lambda: mul_shift(2**24 + 1), "u_max must lie between"),
        (lambda: mul_shift(1000, 255), "levels must lie between 1 and 127"),
        (lambda: mul_shift_ratio(0.0), "quotient of two ratios is positive"),
        (lambda: mul_shift_ratio(1e12), "too far apart"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
