"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

import math
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.papers.qnet.experiment import data
from labkit.papers.qnet.experiment.config import CONFIGS, Arm
from labkit.papers.qnet.experiment.diagnostics import learning_fraction
from labkit.papers.qnet.experiment.evaluate import accuracy_in_mode
from labkit.papers.qnet.experiment.train import optimize, start_of, train_float
from labkit.papers.qnet.method import thresholds
from labkit.papers.qnet.method.batch_norm import reestimate_batch_norm
from labkit.papers.qnet.method.soft_quantizer import (
    SoftQuantizer,
    forward_mode,
    quantizers,
    set_temperature,
    soft_quantize,
)
from labkit.papers.qnet.method.weights import float_weight
from labkit.papers.qnet.teaching import checks
from labkit.workbench import runs, training
from labkit.workbench.exercises import Exercise, number, pair

# -- 1 fill in: the quantiser -----------------------------------------------------------------------------------------


def forgets_temperature(x: Tensor, levels: Tensor, b: Tensor, alpha: Any, beta: Any, temperature: Any) -> Tensor:
    return alpha * (levels[0] + (levels.diff() * torch.sigmoid(beta * x[..., None] - b)).sum(-1))


def temperature_inside(x: Tensor, levels: Tensor, b: Tensor, alpha: Any, beta: Any, temperature: Any) -> Tensor:
    return alpha * (levels[0] + (levels.diff() * torch.sigmoid(temperature * beta * x[..., None] - b)).sum(-1))


def centred_offset(x: Tensor, levels: Tensor, b: Tensor, alpha: Any, beta: Any, temperature: Any) -> Tensor:
    gaps = levels.diff()  # o = sum(s) / 2 is minus the lowest level only where the levels are symmetric
    return alpha * ((gaps * torch.sigmoid(temperature * (beta * x[..., None] - b))).sum(-1) - gaps.sum() / 2)


# -- 2 predict, then run: the width of a bump -------------------------------------------------------------------------


def width_at_half_height(temperature: float, beta: float) -> float:
    """Width of a bump of the slope where it is half its peak, by bisection on the slope itself."""
    low, high = 0.0, 10.0
    for _ in range(60):
        z = (low + high) / 2
        low, high = (z, high) if math.exp(-z) / (1 + math.exp(-z)) ** 2 > 0.125 else (low, z)
    return 2 * low / (temperature * beta)


WIDTH = width_at_half_height(100.0, 2.5)


# -- 3 find the bug: batch norm under the wrong weights ---------------------------------------------------------------


def soft_reestimation(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Collect batch norm's statistics anew, for the network that will be deployed."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad(), forward_mode(model.train(), "soft"):
        for batch in batches:
            model(batch)
    model.eval()
    for norm in norms:
        norm.momentum = 0.1


def last_batch_only(model: nn.Module, batches: Iterable[Tensor]) -> None:
    reestimate_batch_norm(model, list(batches)[-1:])


# -- 4 fill in: where the steps begin ---------------------------------------------------------------------------------


def midway_between_quantiles(samples: Tensor, count: int) -> Tensor:
    return torch.quantile(samples, torch.arange(1, count, dtype=samples.dtype) / count)


def uniform_thresholds(samples: Tensor, count: int) -> Tensor:
    return torch.linspace(float(samples.min()), float(samples.max()), count + 1, dtype=samples.dtype)[1:-1]


# -- 5 ablation with a bar: a final temperature -----------------------------------------------------------------------

ABLATION = CONFIGS["smoke"].override(steps=180)


@cache
def trained_at(final_temperature: float) -> tuple[float, float, float]:
    """1-bit weights on the digits, annealed to this temperature in 180 steps.

    Returns:
        Soft accuracy and hard accuracy in percent; percentage of the weights that still learnt halfway through.
    """
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder, training.workers("cpu") as workers:
        run = runs.Run.open(folder, ABLATION)
        task = data.load(ABLATION, workers)
        train_float(ABLATION, task, workers, run)
        model = start_of(Arm(weights="W1"), ABLATION, task, workers, run)

        def anneal(fraction: float) -> None:
            set_temperature(model, final_temperature * fraction)

        optimize(model, task, workers, ABLATION, run.part("W1"), ABLATION.steps, ABLATION.learning_rate, anneal)
        run.part("W1").close()
        soft, hard = (accuracy_in_mode(model, mode, task, workers) for mode in ("soft", "hard"))
        set_temperature(model, final_temperature / 2)
        layers = quantizers(model, "weights").items()
        learning = [learning_fraction(q, float_weight(model, n)) for n, q in layers if isinstance(q, SoftQuantizer)]
    return soft, hard, 100 * sum(learning) / len(learning)


def check_small_gap(answer: float) -> None:
    assert isinstance(answer, int | float), f"a temperature is asked for; got {answer!r}"
    assert answer > 0, f"a temperature is positive; got {answer}"
    assert math.isfinite(answer), "an infinite temperature has no slope at all"
    soft, hard, _ = trained_at(float(answer))
    assert abs(soft - hard) <= 1.0, (
        f"soft {soft:.1f} %, but deployed {hard:.1f} %: the staircase is not steep enough yet"
    )


def check_still_learning(answer: float) -> None:
    *_, learning = trained_at(float(answer))
    assert learning >= 1, f"halfway through, only {learning:.2g} % of the weights still learnt: the rest had frozen"


# -- 6 fill in: true bits ---------------------------------------------------------------------------------------------


def one_byte_a_code(codes: Tensor, bits: int) -> Tensor:
    return codes.flatten()


def numpy_pack(codes: Tensor, bits: int) -> Tensor:
    """The solution's way: NumPy packs one bit plane after the other, highest bit of a byte first."""
    planes = [np.packbits((codes.flatten().numpy() >> p) & 1) for p in range(bits)]
    return torch.from_numpy(np.stack(planes))


def numpy_unpack(packed: Tensor, shape: Iterable[int]) -> Tensor:
    shape = tuple(shape)
    planes = [np.unpackbits(row, count=math.prod(shape)).astype(np.uint8) << p for p, row in enumerate(packed.numpy())]
    return torch.from_numpy(np.bitwise_or.reduce(planes)).view(shape)


EXERCISES = (
    Exercise(
        key="quantiser",
        kind="fill in",
        task="Write the soft quantiser from its formula.",
        properties={
            "it is the paper's function": checks.check_soft_quantizer,
            "two levels are a tanh": checks.check_binary_is_tanh,
        },
        solution=soft_quantize,
        wrong={
            "T forgotten": forgets_temperature,
            "T inside the bracket": temperature_inside,
            "offset of symmetric levels for all": centred_offset,
        },
        difficulty=1,
        minutes=10,
        hints=(
            (
                "A step from one level to the next is a sigmoid that begins at 0. Which level is there before the "
                "first step?"
            ),
            (
                "One sigmoid a threshold, `torch.sigmoid(temperature * (beta * x[..., None] - thresholds))`; weigh "
                "each by its gap, sum over the last axis, add `levels[0]`, multiply by `alpha`."
            ),
        ),
    ),
    Exercise(
        key="width",
        kind="predict, then run",
        task="At T = 100 and beta = 2.5, how wide is the stretch of stored weights around a threshold in which the "
        "slope is more than half its peak?",
        properties={
            "half height": number(
                WIDTH, 0.02 * WIDTH, "half that far from the threshold the slope is not half its peak"
            )
        },
        solution=2 * math.log(3 + 2 * math.sqrt(2)) / (100 * 2.5),
        wrong={"forgets beta": 0.03525, "half the width": 0.00705, "one over T beta": 0.004},
        difficulty=2,
        minutes=10,
        hints=(
            "The slope of the sigmoid of z is s(1 - s). At its peak that is 1/4: for which z is it half of that?",
            "Solve s(1 - s) = 1/8 for z = ln(s / (1 - s)). The width is twice that z, and z = T beta x.",
        ),
    ),
    Exercise(
        key="batch-norm",
        kind="find the bug",
        task="This batch norm re-estimation makes the deployed network worse. Mend it.",
        properties={"statistics of the hard network, all batches, nothing else": checks.check_batch_norm_reestimation},
        solution=reestimate_batch_norm,
        wrong={"soft weights": soft_reestimation, "the last batch only": last_batch_only},
        difficulty=2,
        minutes=15,
        hints=(
            "Which weights does the deployed network use, and which are used here while the statistics are collected?",
            (
                "`forward_mode(model.train(), ...)` says how the quantisers act inside of the `with`. Everything "
                "else is right."
            ),
        ),
    ),
    Exercise(
        key="thresholds",
        kind="fill in",
        task="Find the thresholds: midway between the centres of a one-dimensional k-means.",
        properties={"midpoints of the centres": checks.check_thresholds_are_midpoints},
        solution=thresholds.kmeans_thresholds,
        wrong={"quantiles": midway_between_quantiles, "evenly spaced": uniform_thresholds},
        difficulty=2,
        minutes=15,
        hints=(
            (
                "Lloyd's iteration: give each sample to its nearest centre, move each centre to the mean of its "
                "samples, again and again."
            ),
            (
                "The border between two neighbouring centres is their middle, so `torch.bucketize(samples, "
                "middles)` is the index of the nearest centre. Go on until nothing moves: a few hundred times."
            ),
        ),
    ),
    Exercise(
        key="temperature",
        kind="ablation",
        task="Choose a final temperature for 1-bit weights on the digits (180 steps): soft and deployed accuracy at "
        "most 1 point apart, and halfway through at least 1 % of the weights still learning.",
        properties={"no gap": check_small_gap, "not frozen": check_still_learning},
        solution=150.0,
        wrong={"too low": 5.0, "too high": 20_000.0, "infinite": math.inf, "negative": -1.0},
        difficulty=2,
        minutes=10,
        hints=(
            (
                "Too low: soft and deployed differ. Too high: the weights freeze early. Look for the middle on a "
                "logarithmic scale."
            ),
            "Begin at the lesson's own `weight_temperature`, and move by factors of two until both bars are passed.",
        ),
    ),
    Exercise(
        key="packing",
        kind="fill in",
        task="Store codes of 1, 2 or 3 bits in that many bits each, and get them back.",
        properties={"round trip in true size": pair(checks.check_packing, "pack, unpack")},
        solution=(numpy_pack, numpy_unpack),
        wrong={"a byte a code": (one_byte_a_code, lambda packed, shape: packed.view(*shape))},
        difficulty=2,
        minutes=15,
        hints=(
            "Bit p of every code, together, is a plane of zeros and ones; eight of them fill a byte.",
            (
                "`np.packbits((codes.flatten().numpy() >> p) & 1)` for each bit p of the code; `np.unpackbits(row, "
                "count=...)` on the way back, shifted by p and or-ed together."
            ),
        ),
    ),
)
