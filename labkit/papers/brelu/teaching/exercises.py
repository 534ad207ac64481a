"""The notebook's "your turn" cells. Wrong answers are what people write."""

import torch
from torch import Tensor

from labkit.papers.brelu.method.bounds import best_bound, laplace_error, order_statistic
from labkit.papers.brelu.method.multiply_shift import mul_shift, mul_shift_ratio
from labkit.papers.brelu.method.snap import align_addition
from labkit.papers.brelu.teaching import checks
from labkit.workbench.exercises import Exercise, number

# -- 1 fill in: clip, multiply, shift ---------------------------------------------------------------------------------


def requantize(u: Tensor, mul: int, shift: int, u_max: int) -> Tensor:
    return (u.clamp(0, u_max) * mul + (1 << shift) // 2) >> shift


def truncates(u: Tensor, mul: int, shift: int, u_max: int) -> Tensor:
    return (u.clamp(0, u_max) * mul) >> shift


def rounds_to_even(u: Tensor, mul: int, shift: int, u_max: int) -> Tensor:
    return torch.round(u.clamp(0, u_max).double() * mul / 2**shift).to(torch.int32)


def clips_the_codes(u: Tensor, mul: int, shift: int, u_max: int) -> Tensor:
    return ((u.long() * mul + (1 << shift) // 2) >> shift).clamp(-128, 127)


def stays_float(u: Tensor, mul: int, shift: int, u_max: int) -> Tensor:
    return torch.floor(u.clamp(0, u_max).double() * mul / 2**shift + 0.5)


# -- 2 predict: the largest safe shift --------------------------------------------------------------------------------

LARGEST_SHIFT = next(s for s in range(31, 0, -1) if 127.5 * 2**s + 2 ** (s - 1) < 2**31)

# -- 3 find the bug: the search ---------------------------------------------------------------------------------------


def search_with_a_bug(u_max: int) -> tuple[int, int]:
    """The smallest shift, and its mul, for which code 127 comes out at u_max."""
    for shift in range(1, 28):
        if 127.5 * 2**shift > u_max:
            mul = round(127.5 * 2**shift / u_max)
            if abs(u_max * mul / 2**shift - 127) < 0.5:
                return mul, shift
    return mul, shift


def always_shift_16(u_max: int) -> tuple[int, int]:
    return round(127 * 2**16 / u_max), 16


def eight_bit_multiplier(u_max: int) -> tuple[int, int]:
    shift = max(0, u_max.bit_length() - 1)
    return max(1, round(127 * 2**shift / u_max)), shift


# -- 4 fill in: the rule ----------------------------------------------------------------------------------------------


def mean_order_statistic(batches: list[Tensor], rank: float) -> float:
    return sum(order_statistic(batch.flatten(), rank) for batch in batches) / len(batches)


def without_zeros(batches: list[Tensor], rank: float) -> float:
    return sum(order_statistic(batch[batch > 0], rank) for batch in batches) / len(batches)


def share_of_the_largest(batches: list[Tensor], rank: float) -> float:
    return rank * max(float(batch.max()) for batch in batches)


def of_all_at_once(batches: list[Tensor], rank: float) -> float:
    return order_statistic(torch.cat([batch.flatten() for batch in batches]), rank)


# -- 5 fill in: the addition ------------------------------------------------------------------------------------------


def only_close(r_in: float, step: float, r_shortcut: float) -> tuple[float, tuple[int, int]]:
    return step, mul_shift_ratio(r_shortcut / (r_in / step))


def wrong_way(r_in: float, step: float, r_shortcut: float) -> tuple[float, tuple[int, int]]:
    mul, shift = mul_shift_ratio(r_shortcut / (r_in / step))
    return r_in * (r_shortcut * mul / 2**shift), (mul, shift)


def all_in_the_step(r_in: float, step: float, r_shortcut: float) -> tuple[float, tuple[int, int]]:
    return r_in / r_shortcut, (1, 0)


# -- 6 predict: the best bound for a Laplace distribution -------------------------------------------------------------

LAPLACE = best_bound(laplace_error, 127)


EXERCISES = (
    Exercise(
        key="requantise",
        kind="fill in",
        task="Write the bounded ReLU in integers: clip the sums, multiply, shift with rounding.",
        properties={"the paper's codes, bit for bit": checks.check_requantize},
        solution=requantize,
        wrong={
            "no half before the shift": truncates,
            "round() goes to even": rounds_to_even,
            "clips codes, not sums": clips_the_codes,
            "floating point": stays_float,
        },
        difficulty=1,
        minutes=5,
        hints=(
            "A right shift rounds down. What must be added before it, so that it rounds to the nearest?",
            "Half of what one step of the result is worth: `(1 << shift) // 2`. Clip first, then multiply, add, shift.",
        ),
    ),
    Exercise(
        key="overflow",
        kind="predict, then run",
        task="The search aims at 127.5. Up to which shift is u mul + 2^(shift-1) sure to stay below 2^31?",
        properties={
            "the largest safe shift": number(
                float(LARGEST_SHIFT),
                0.0,
                "u mul comes up to 127.5 * 2^shift, and half of 2^shift is added: when is that 2^31?",
            )
        },
        solution=LARGEST_SHIFT,
        wrong={"one too many": 24, "forgets the codes": 31, "16 bits": 16},
        difficulty=1,
        minutes=5,
        hints=(
            "Write both terms as a multiple of 2^shift and add them.",
            "127.5 and one half make 128, which is a power of two as well: compare exponents with 31.",
        ),
    ),
    Exercise(
        key="search",
        kind="find the bug",
        task="This search for (mul, shift) fails for some u_max. Mend it.",
        properties={"code 127 at u_max, inside int32": checks.check_mul_shift},
        solution=mul_shift,
        wrong={
            "as it was": search_with_a_bug,
            "always shift 16": always_shift_16,
            "too few bits in mul": eight_bit_multiplier,
        },
        difficulty=2,
        minutes=15,
        hints=(
            (
                "Put the largest sum, `u_max`, through the multiplier that it returns: which code should come out, "
                "and which does the search aim at?"
            ),
            (
                "Aim at the code itself, `round(127 * 2**shift / u_max)`, and try the largest shifts first, as far "
                "as int32 allows."
            ),
        ),
    ),
    Exercise(
        key="rule",
        kind="fill in",
        task="Write the bound rule: mean over batches of an order statistic, zeros included.",
        properties={"3 sigma of a half-normal, ranks from 1": checks.check_order_statistic},
        solution=mean_order_statistic,
        wrong={
            "zeros left out": without_zeros,
            "a share of the largest": share_of_the_largest,
            "all batches at once": of_all_at_once,
        },
        difficulty=1,
        minutes=10,
        hints=(
            (
                "Sort one batch, all of its values, zeros too. Which place has the value that a share `rank` does "
                "not exceed?"
            ),
            "`batch.flatten().sort().values[round(n * rank) - 1]` for each batch, then the mean of these numbers.",
        ),
    ),
    Exercise(
        key="addition",
        kind="fill in",
        task="Make the two operands of an addition mean the same: a multiplier for the shortcut, a step for the rest.",
        properties={"equal ratios, hardly another step": checks.check_alignment},
        solution=align_addition,
        wrong={"only close": only_close, "upside down": wrong_way, "all in the step": all_in_the_step},
        difficulty=2,
        minutes=15,
        hints=(
            (
                "Two things can be turned: a multiplier and a shift bring the shortcut close to the main path. What"
                " takes up the rest?"
            ),
            (
                "Find `mul / 2**shift` near `(r_in / step) / r_shortcut`, then solve `r_in / new_step = r_shortcut "
                "* mul / 2**shift` for the new step."
            ),
        ),
    ),
    Exercise(
        key="laplace",
        kind="predict, then run",
        task="Where is the best bound for 127 levels, in scale units, for the ReLU of a Laplace variable?",
        properties={
            "least total error": number(
                LAPLACE, 0.3, "minimise e^-k + (k / 127)^2 / 24; a Gaussian would have its best bound at 3.9"
            )
        },
        solution=LAPLACE,
        wrong={"the Gaussian's": 3.92, "the rule's 3.5": 3.5, "no clipping at all": 40.0},
        difficulty=3,
        minutes=15,
        hints=(
            (
                "Two errors: what lies above the bound is clipped, what lies below is rounded in steps of bound / "
                "127. Write both as functions of the bound k."
            ),
            (
                "Half of the mass is positive. It clips with a mean squared error of e^-k, and rounds with (k / "
                "127)^2 / 24: search for the smallest sum."
            ),
        ),
    ),
)
