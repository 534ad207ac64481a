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


# -- 2 predict, then run: the width of a bell -------------------------------------------------------------------------


def width_at_half_height(temperature: float, beta: float) -> float:
    """Width of a bell of the slope where it is half its peak, by bisection on the slope itself."""
    low, high = 0.0, 10.0
    for _ in range(60):
        z = (low + high) / 2
        low, high = (z, high) if math.exp(-z) / (1 + math.exp(-z)) ** 2 > 0.125 else (low, z)
    return 2 * low / (temperature * beta)


WIDTH = width_at_half_height(100.0, 2.5)


# -- 3 find the bug: batch norm ----------------------------------------------------------------------------------------


def broken_reestimation(model: nn.Module, batches: Iterable[Tensor]) -> None:
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
        Soft accuracy and hard accuracy in percent; percentage of the weights that still learned halfway through.
    """
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder, training.workers("cpu") as workers:
        run = runs.Run.open(folder, ABLATION)
        task = data.load(ABLATION, workers)
        train_float(ABLATION, task, workers, run)
        model = start_of(Arm(weights="W1"), ABLATION, task, workers, run)

        def anneal(fraction: float) -> None:
            set_temperature(model, final_temperature * fraction)

        batches = data.training_batches(task, ABLATION)
        optimize(model, batches, workers, ABLATION, ABLATION.steps, ABLATION.learning_rate, anneal, run=run.part("W1"))
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
    assert learning >= 5, f"halfway through, only {learning:.2g} % of the weights still learned; the others were frozen"


# -- 6 fill in: true bits ---------------------------------------------------------------------------------------------


def one_byte_a_code(codes: Tensor, bits: int) -> Tensor:
    return codes.flatten()


def numpy_pack(codes: Tensor, bits: int) -> Tensor:
    """NumPy packs one bit plane after the other, highest bit of a byte first."""
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
        task=(
            "Write the soft quantiser from its formula in section 4. `levels` holds $Y_1,\\dots,Y_{n+1}$ in ascending "
            "order and `thresholds` holds $b_1,\\dots,b_n$. The levels need not be symmetric around zero."
        ),
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
                "Each sigmoid rises from 0 to 1 and adds one gap. What must $y/\\alpha$ be below all thresholds, where "
                "every sigmoid is 0?"
            ),
            (
                "One sigmoid per threshold: `torch.sigmoid(temperature * (beta * x[..., None] - thresholds))`. "
                "Multiply each by its gap, sum over the last axis, add `levels[0]`, multiply by `alpha`."
            ),
        ),
    ),
    Exercise(
        key="width",
        kind="predict, then run",
        task=(
            "At $T=100$ and $\\beta=2.5$, how wide is the interval of stored weights around a threshold in which the "
            "slope exceeds half its peak? Give the whole width."
        ),
        properties={
            "half height": number(
                WIDTH, 0.02 * WIDTH, "at half this distance from the threshold the slope is not half its peak"
            )
        },
        solution=2 * math.log(3 + 2 * math.sqrt(2)) / (100 * 2.5),
        wrong={"forgets beta": 0.03525, "half the width": 0.00705, "one over T beta": 0.004},
        difficulty=2,
        minutes=10,
        hints=(
            (
                "With $g=\\sigma(z)$ the slope is proportional to $g(1-g)$. Its peak is 1/4. For which $z$ is it half "
                "of that?"
            ),
            (
                "Solve $g(1-g)=1/8$ and insert it into $z=\\ln(g/(1-g))$. The interval reaches from $-z$ to $z$, and "
                "a stored weight at distance $x$ from the threshold has $z=T\\beta x$."
            ),
        ),
    ),
    Exercise(
        key="batch-norm",
        kind="find the bug",
        task=(
            "Batch norm's running statistics are to be collected anew for the network that will be deployed. The "
            "function below makes the deployed network worse. Why? Write one that works."
        ),
        properties={"the statistics fit, and nothing else has changed": checks.check_batch_norm_reestimation},
        solution=reestimate_batch_norm,
        wrong={"soft weights": broken_reestimation, "the last batch only": last_batch_only},
        difficulty=2,
        minutes=15,
        hints=(
            "Which weights does the deployed network use, and which are used here while the statistics are collected?",
            (
                "`forward_mode(model.train(), mode)` sets how the quantisers act inside the `with` block. The rest of "
                "the function is right."
            ),
        ),
    ),
    Exercise(
        key="thresholds",
        kind="fill in",
        task=(
            "Return the `count - 1` thresholds that lie midway between the `count` centres of a one-dimensional "
            "k-means. The samples may hold one value many times. A dozen iterations are not always enough."
        ),
        properties={"midpoints of the centres": checks.check_thresholds_are_midpoints},
        solution=thresholds.kmeans_thresholds,
        wrong={"quantiles": midway_between_quantiles, "evenly spaced": uniform_thresholds},
        difficulty=2,
        minutes=15,
        hints=(
            (
                "Lloyd's iteration: assign each sample to its nearest centre, move each centre to the mean of its "
                "samples, and repeat."
            ),
            (
                "Start from centres spread evenly over the range of the samples. `torch.bucketize(samples, middles)` "
                "is the index of the nearest centre, where `middles` are the midpoints of neighbouring centres. "
                "Repeat until no centre moves, which may take a few hundred iterations."
            ),
        ),
    ),
    Exercise(
        key="temperature",
        kind="ablation",
        task=(
            "Choose a final temperature for 1-bit weights on the digits, trained for 180 steps. Two conditions must "
            "hold: soft and deployed accuracy differ by at most 1 point, and halfway through the training at least "
            "5 % of the weights still learn. A check trains a network and takes a few seconds."
        ),
        properties={"no gap": check_small_gap, "not frozen": check_still_learning},
        solution=150.0,
        wrong={"too low": 5.0, "the lesson's, too high": 300.0, "infinite": math.inf, "negative": -1.0},
        difficulty=2,
        minutes=10,
        hints=(
            (
                "If the temperature ends too low, soft and deployed accuracy differ. If it ends too high, the weights "
                "freeze early. Search on a logarithmic scale."
            ),
            "Begin at the lesson's `weight_temperature`. The share of weights that still learn falls as $T$ rises.",
        ),
    ),
    Exercise(
        key="packing",
        kind="fill in",
        task=(
            "Store integer codes of 1, 2 or 3 bits in that many bits each: `my_pack(codes, bits)` returns a `uint8` "
            "tensor of at most `bits * ceil(n / 8)` bytes for n codes. `my_unpack(packed, shape)` returns the codes."
        ),
        properties={"round trip in true size": pair(checks.check_packing, "pack, unpack")},
        solution=(numpy_pack, numpy_unpack),
        wrong={"a byte a code": (one_byte_a_code, lambda packed, shape: packed.view(*shape))},
        difficulty=2,
        minutes=15,
        hints=(
            "Collect bit 0 of all codes, then bit 1, and so on. Eight bits of one such plane fill a byte.",
            (
                "`np.packbits((codes.flatten().numpy() >> p) & 1)` packs bit `p`; one row per bit tells `my_unpack` "
                "how many bits there are. `np.unpackbits(row, count=...)` reverses it; shift the result by `p` and "
                "combine the rows with `|`."
            ),
        ),
    ),
)
