"""Properties that tell a right implementation from a wrong one. One check, three uses: test, exercise, mutants.

Each takes the candidate as its argument and raises AssertionError, in words a student can act on. No constant in them
is 0 or 1 where that could hide a forgotten factor.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def check_requantize(requantize: Callable[[Tensor, int, int, int], Tensor]) -> None:
    """`requantize(u, mul, shift, u_max)`: v = (clip(u, 0, u_max) mul + 2^(shift-1)) >> shift, whole numbers."""
    u_max, mul, shift = 21675, 3, 9  # a triple of the authors' networks: snapped, so that u_max gives code 127
    u = torch.tensor([-70_000, -1, 0, 85, 86, 21_674, 21_675, 21_676, 1_000_000], dtype=torch.int32)
    got = requantize(u.clone(), mul, shift, u_max)
    assert isinstance(got, Tensor), f"a tensor is asked for; got {type(got).__name__}"
    assert not got.is_floating_point(), f"the codes must be integers; got {got.dtype}"
    values = got.tolist()
    assert values[:3] == [0, 0, 0], f"sums up to 0 have code 0; got {values[:3]} for u = -70000, -1, 0"
    assert values[3:5] == [0, 1], (
        f"85 * 3 / 512 = 0.498 has code 0 and 86 * 3 / 512 = 0.504 code 1; got {values[3:5]}: add half of 2^shift"
    )
    assert values[6:] == [127, 127, 127], f"u_max and all above it have code 127; got {values[6:]}: clip before scaling"
    tie = requantize(torch.tensor([2, 6, 10], dtype=torch.int32), 1, 2, 508).tolist()
    assert tie == [1, 2, 3], f"0.5, 1.5, 2.5 round up, to 1, 2, 3; got {tie}: round() would go to the even one"
    every = torch.arange(u_max + 1, dtype=torch.int32)
    wanted = torch.tensor([(u * mul + 256) // 512 for u in range(u_max + 1)])
    wrong = int((requantize(every.clone(), mul, shift, u_max).long() != wanted).sum())
    assert wrong == 0, f"{wrong} of the {u_max + 1} sums from 0 to u_max have the wrong code"


def check_mul_shift(mul_shift: Callable[[int], tuple[int, int]]) -> None:
    """`mul_shift(u_max)` reaches code 127 at u_max and never leaves int32 on the way."""
    for u_max in (1, 2, 3, 63, 64, 127, 128, 129, 255, 256, 7566, 46239, 65_535, 65_536, 1_000_003, 2**23 + 1, 2**24):
        mul, shift = mul_shift(u_max)
        assert isinstance(mul, int), f"mul must be an integer; got {mul!r}"
        assert isinstance(shift, int), f"shift must be an integer; got {shift!r}"
        assert mul > 0, f"mul must be positive; got {mul} for u_max = {u_max}"
        assert 0 <= shift <= 30, f"shift must lie in 0..30; got {shift} for u_max = {u_max}"
        largest = u_max * mul + (1 << shift) // 2
        assert largest < 2**31, f"u_max = {u_max}: u_max mul + half = {largest} leaves int32"
        assert largest >> shift == 127, f"u_max = {u_max} gets code {largest >> shift} instead of 127"


def check_alignment(align: Callable[[float, float, float], tuple[float, tuple[int, int]]]) -> None:
    """`align(r_in, step, r_shortcut)` gives (new step, (mul, shift)): r_in / new step = r_shortcut mul / 2^shift."""
    for r_in, step, r_shortcut in ((57.6, 0.0031, 4_100.0), (812.5, 0.013, 90_210.0), (33.3, 0.0007, 250_000.0)):
        new, (mul, shift) = align(r_in, step, r_shortcut)
        assert isinstance(mul, int), f"mul must be an integer; got {mul!r}"
        assert isinstance(shift, int), f"shift must be an integer; got {shift!r}"
        main, side = r_in / new, r_shortcut * mul / 2**shift
        assert abs(main / side - 1) < 1e-12, (
            f"the two operands still have different ratios: {main:.6f} and {side:.6f} integers per unit. "
            "mul and shift are only close; let the weight step take up the rest"
        )
        assert abs(new / step - 1) < 0.01, f"the weight step may change by 1 %, not by {abs(new / step - 1):.1%}"
        assert mul < 2**15, f"mul = {mul} is needlessly large: the first shift within 1 % will do"


def check_order_statistic(rule: Callable[[list[Tensor], float], float]) -> None:
    """`rule(batches, rank)`: mean over batches of the value at index round(n rank) from 0, zeros included."""
    generator = torch.Generator().manual_seed(0)
    half_normal = [2 * torch.randn(200_000, generator=generator).relu() for _ in range(3)]
    got = rule(half_normal, 0.99865)
    assert abs(float(got) / 6 - 1) < 0.02, (
        f"ReLU of N(0, 2^2): the rank 0.99865 of everything, zeros included, is 3 sigma = 6; got {float(got):.3f}"
    )
    small = [torch.tensor([0.0, 0.0, 0.0, 4.0]), torch.tensor([0.0, 2.0, 3.0, 10.0])]
    got = rule(small, 0.5)
    assert abs(float(got) - 1.5) < 1e-6, (
        f"indices count from 0: 0.5 * 4 = 2 is the third value, 0 and 3, on average 1.5; got {float(got):.3f}"
    )
