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

LARGEST_SHIFT = next(s for s in range(31, 0, -1) if 15.5 * 2**s + 2 ** (s - 1) <= 2**31)  # u mul < 15.5 * 2^s

# -- 3 find the bug: the search ---------------------------------------------------------------------------------------


def broken_search(u_max: int) -> tuple[int, int]:
    """(mul, shift) of the smallest shift for which u_max gets code 127."""
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
        task=(
            "Write the bounded ReLU of section 4 in integers: clip the int32 sums `u`, multiply, shift with rounding. "
            "Return an integer tensor."
        ),
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
        task=(
            "Let activations have 15 levels in place of 127. For every sum $u$ from 0 to $u_{max}$ the code "
            "$(u\\cdot mul+2^{shift-1})\\gg shift$ is then 15 or less. What is the largest shift for which this alone "
            "guarantees that $u\\cdot mul+2^{shift-1}$ stays below $2^{31}$?"
        ),
        properties={
            "the largest safe shift": number(
                float(LARGEST_SHIFT),
                0.0,
                "a code of 15 or less means that the number before the shift is below 16 * 2^shift: when is that 2^31?",
            )
        },
        solution=LARGEST_SHIFT,
        wrong={"one too many": 28, "the limit itself forbidden": 26, "for 127 levels": 24, "forgets the codes": 31},
        difficulty=1,
        minutes=5,
        hints=(
            "A right shift is a division that rounds down. How large can a number be whose quotient is 15?",
            "It lies below 16 * 2^shift, a power of two. Compare its exponent with 31.",
        ),
    ),
    Exercise(
        key="search",
        kind="find the bug",
        task=(
            "`broken_search(u_max)` should return whole numbers `(mul, shift)` for which `u_max` gets code 127, "
            "and for which nothing reaches $2^{31}$ on the way. For some `u_max` between 1 and $2^{24}$ it does not. "
            "Find out why, and write a search that works for all of them."
        ),
        properties={"code 127 at u_max, inside int32": checks.check_mul_shift},
        solution=mul_shift,
        wrong={
            "as it was": broken_search,
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
        task=(
            "Write the bound rule of section 4. `batches` is a list of tensors of activations after the ReLU. Take "
            "the sorted value at index `round(n * rank)` of each batch, counted from 0, zeros included; return the "
            "mean over the batches."
        ),
        properties={"3 sigma of a half-normal, indices from 0": checks.check_order_statistic},
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
                "Sort one batch, all of its values, zeros too. `batch.numel()` says how many there are. Which index "
                "is asked for?"
            ),
            "`batch.flatten().sort().values[round(batch.numel() * rank)]` of each batch, then their mean.",
        ),
    ),
    Exercise(
        key="addition",
        kind="fill in",
        task=(
            "Give the two operands of an addition the same ratio. `r_in` is the ratio of the main path's input, `step` "
            "its weight step, `r_shortcut` the ratio of the shortcut. Return `(new_step, (mul, shift))` with "
            "`r_in / new_step == r_shortcut * mul / 2**shift`, where the new step differs from the old one by less "
            "than 1 %."
        ),
        properties={"equal ratios, step within 1 %": checks.check_alignment},
        solution=align_addition,
        wrong={"only close": only_close, "upside down": wrong_way, "all in the step": all_in_the_step},
        difficulty=2,
        minutes=15,
        hints=(
            (
                "A multiplier and a shift bring the shortcut's ratio close to that of the main path. Which quantity "
                "can then absorb the rest?"
            ),
            (
                "Take the first shift for which a `mul` brings `mul / 2**shift` within 1 % of `(r_in / step) / "
                "r_shortcut`. Then solve the equation of the task for the new step."
            ),
        ),
    ),
    Exercise(
        key="laplace",
        kind="predict, then run",
        task=(
            "Let activations be the ReLU of a Laplace variable of scale 1, whose density is $e^{-|x|}/2$. Which bound "
            "has the least mean squared error at 127 levels? (Section 5 has the answer for a normal variable.)"
        ),
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
                "There are two errors. Values above the bound k are clipped; values below are rounded in steps of "
                "k / 127. Write both as functions of k."
            ),
            (
                "Half of the values are positive. Clipping adds a mean squared error of e^-k, rounding (k / 127)^2 / "
                "24. Search for the k with the smallest sum."
            ),
        ),
    ),
)
