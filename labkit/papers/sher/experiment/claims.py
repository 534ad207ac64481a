"""The abstract, statement by statement. Success rates lie between 0 and 1; a run's value pools its training seeds.

Of the paper only abstract and title are known to us, and they give no figure: every published figure is None. The small
worlds are our own; their setting was found in five pilots, and the margins were fixed before these records were made.
IQM: interquartile mean over seeds and both walls. Spread: standard deviation over seeds, mean over the walls. Intervals
of differences are bootstrap intervals over the seeds of all recorded runs, resampled inside of each layout. The arms of
a seed share initial weights and random numbers, so they are resampled together.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.metrics.intervals import Interval, bootstrap
from labkit.papers.sher.experiment.config import BOX, SIX
from labkit.rl.statistics import Statistic, mean_seed_deviation, pooled_iqm
from labkit.workbench.claims import Claim, Measure, Pooled, Result, difference, read

ArmMeasure = Callable[[str, str], Measure]  # of (experiment, arm)


def strata(result: Result, experiment: str, arm: str, value: str = "success") -> list[NDArray[np.float64]] | None:
    """Per layout, one number per seed; None where the run lacks the arm."""
    layouts = read(result, experiment, "arms", arm, value)
    return [np.asarray(seeds, dtype=np.float64) for seeds in layouts.values()] if layouts else None


def share_below_half(strata: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Share of seeds whose success stays below .5."""
    return np.asarray((np.concatenate(strata, axis=-1) < 0.5).mean(-1))


def over_arm(statistic: Statistic, value: str = "success", least_seeds: int = 1) -> ArmMeasure:
    """The measure of one arm: a statistic of its seeds; None where a run has fewer of them."""

    def of(experiment: str, arm: str) -> Measure:
        def measure(result: Result) -> float | None:
            seeds = strata(result, experiment, arm, value)
            return None if seeds is None or len(seeds[0]) < least_seeds else float(statistic(seeds))

        return measure

    return of


iqm = over_arm(pooled_iqm)
spread = over_arm(mean_seed_deviation, least_seeds=2)
failed = over_arm(share_below_half)
mean_success = over_arm(lambda seeds: np.asarray(np.concatenate(seeds).mean()))
area = over_arm(lambda curves: np.asarray(np.mean([np.mean(curve) for curve in curves])), "curve")  # of all evaluations


def gain(measure: ArmMeasure, experiment: str, more: str, less: str) -> Measure:
    """measure(more) - measure(less)."""
    return difference(measure(experiment, more), measure(experiment, less))


def over_seeds(statistic: Statistic, experiment: str, more: str, less: str) -> Pooled:
    """statistic(more) - statistic(less) over the seeds of all runs; None where no run has both arms."""

    def of(results: Sequence[Result]) -> Interval | None:
        pairs = [(strata(r, experiment, more), strata(r, experiment, less)) for r in results]
        known = [(first, second) for first, second in pairs if first and second]
        if not known:
            return None
        runs = [[np.stack(sides) for sides in zip(*pair, strict=True)] for pair in known]  # per run, per layout
        layouts = [np.concatenate(parts, axis=1) for parts in zip(*runs, strict=True)]

        def effect(*layouts: NDArray[np.float64], axis: int) -> Any:
            return statistic([seeds[0] for seeds in layouts]) - statistic([seeds[1] for seeds in layouts])

        return bootstrap(layouts, effect)

    return of


def corner_spread(arm: str) -> Measure:
    """Standard deviation of the success over the eight corners of the hyper-parameter box."""

    def measure(result: Result) -> float | None:
        means = [mean_success(corner, arm)(result) for corner in BOX]
        known = [mean for mean in means if mean is not None]
        return float(np.std(known, ddof=1)) if len(known) == len(BOX) else None

    return measure


def lead(experiments: Sequence[str]) -> Measure:
    """SHER minus the better of HER and CHER, mean over those tasks that were run with all three."""

    def measure(result: Result) -> float | None:
        gaps = []
        for task in experiments:
            values = [mean_success(task, arm)(result) for arm in ("SHER", "HER", "CHER")]
            known = [value for value in values if value is not None]
            if len(known) == 3:
                gaps.append(known[0] - max(known[1:]))
        return float(np.mean(gaps)) if gaps else None

    return measure


def bound_reserve(result: Result) -> float | None:
    """Least difference, over temperatures, between the bound and the gap of soft and hard values."""
    rows = read(result, "exact", "rows") or {}
    return min((float(row["bound"] - row["gap"]) for row in rows.values()), default=None)


CLAIMS = (
    Claim(
        key="failures-become-useful",
        sentence="Hindsight replay is an effective solution where rewards are sparse: failed experience is reused.",
        published=None,
        measure=gain(mean_success, "bits", "hindsight", "no-hindsight"),
        margin=0.5,
        scale="lesson",
        unit="success",
        note="Rows of 12 bits, the same Q-learning with and without relabelled goals; success at any step.",
    ),
    Claim(
        key="inference-view",
        sentence="Maximum entropy is inference: soft values lie above hard ones, by no more than the entropy can give.",
        published=None,
        measure=bound_reserve,
        margin=-1e-9,
        scale="lesson",
        note="Exact bit flipping; V_soft - V_hard <= alpha log|A| / (1 - gamma) at six temperatures.",
    ),
    Claim(
        key="deterministic-methods-are-brittle",
        sentence="Deterministic methods are brittle, and HER suffers from it.",
        published=None,
        measure=gain(failed, "walls", "HER-none", "SHER"),
        pooled=over_seeds(share_below_half, "walls", "HER-none", "SHER"),
        margin=0.1,
        scale="lesson",
        unit="of the seeds",
        note="Share of seeds that end below .5: HER without exploration noise minus SHER without any. At this setting "
        "only: at other learning rates HER needs no noise (see the box).",
    ),
    Claim(
        key="entropy-replaces-noise",
        sentence="Combining hindsight with maximum entropy helps the final performance.",
        published=None,
        measure=gain(iqm, "walls", "SHER", "HER-none"),
        pooled=over_seeds(pooled_iqm, "walls", "SHER", "HER-none"),
        margin=0.05,
        scale="lesson",
        unit="IQM of success",
        note="Against HER without noise, at the central setting.",
    ),
    Claim(
        key="better-than-tuned-her",
        sentence="Better than HER and its variants.",
        published=None,
        measure=gain(iqm, "walls", "SHER", "HER-noise"),
        pooled=over_seeds(pooled_iqm, "walls", "SHER", "HER-noise"),
        margin=0.05,
        scale="lesson",
        unit="IQM of success",
        note="Against HER with OpenAI's noise (sigma .2, 30 % random actions) and no action penalty.",
    ),
    Claim(
        key="stable-against-no-noise",
        sentence="More stable: similar performance across random seeds, compared with HER without noise.",
        published=None,
        measure=gain(spread, "walls", "HER-none", "SHER"),
        pooled=over_seeds(mean_seed_deviation, "walls", "HER-none", "SHER"),
        margin=0.05,
        scale="lesson",
        unit="spread",
    ),
    Claim(
        key="stable-against-same-epsilon",
        sentence="More stable than HER with 5 % random actions, which is what the released SHER explores with.",
        published=None,
        measure=gain(spread, "walls", "HER-eps", "SHER"),
        pooled=over_seeds(mean_seed_deviation, "walls", "HER-eps", "SHER"),
        margin=0.0,
        scale="lesson",
        unit="spread",
    ),
    Claim(
        key="stable-against-tuned-noise",
        sentence="More stable than HER with its tuned noise.",
        published=None,
        measure=gain(spread, "walls", "HER-noise", "SHER"),
        pooled=over_seeds(mean_seed_deviation, "walls", "HER-noise", "SHER"),
        margin=0.0,
        scale="lesson",
        unit="spread",
    ),
    Claim(
        key="learns-a-robot-task",
        sentence="It solves a robot task with sparse rewards: FetchReach, from zero, in 2,000 steps.",
        published=None,
        measure=mean_success("fetch-reach", "SHER"),
        margin=0.9,
        scale="lesson",
        unit="success",
        note="15 fixed test episodes, deterministic action, success at the last step.",
    ),
    Claim(
        key="faster-on-fetchreach",
        sentence="Counter-check, ours: it learns that task faster than HER with its noise.",
        published=None,
        measure=gain(area, "fetch-reach", "SHER", "HER-noise"),
        margin=0.0,
        scale="lesson",
        unit="mean of the curve",
    ),
    Claim(
        key="temperature-matters",
        sentence="It is the entropy that helps, not the other network: the same agent with alpha = 0 does worse.",
        published=None,
        measure=gain(iqm, "alpha", "SHER-.03", "SHER-0"),
        pooled=over_seeds(pooled_iqm, "alpha", "SHER-.03", "SHER-0"),
        margin=0.05,
        scale="lesson",
        unit="IQM of success",
        note="Both with 5 % random actions. Experiment `alpha`, recorded apart.",
    ),
    Claim(
        key="better-than-cher",
        sentence="Better than the curriculum variant CHER.",
        published=None,
        measure=gain(iqm, "switches", "SHER", "CHER"),
        pooled=over_seeds(pooled_iqm, "switches", "SHER", "CHER"),
        margin=0.05,
        scale="lesson",
        unit="IQM of success",
        note="SHER with 5 % random actions, CHER with HER's noise. Experiment `switches`, recorded apart. In these "
        "small worlds CHER's sampler fails under any agent, SHER included: this says little about CHER on robots.",
    ),
    Claim(
        key="robust-to-hyper-parameters",
        sentence="Counter-check, ours: less brittle to learning rate, target speed and batch size as well.",
        published=None,
        measure=difference(corner_spread("HER-noise"), corner_spread("SHER")),
        margin=0.0,
        scale="lesson",
        unit="spread over corners",
        note="Eight corners around the central setting, equal updates; mostly unfinished learning. Recorded apart.",
    ),
    Claim(
        key="fetch-push",
        sentence="Better than HER on a robot task with an object.",
        published=None,
        measure=gain(mean_success, "fetch-push", "SHER", "HER"),
        margin=0.05,
        scale="gpu",
        unit="success",
    ),
    Claim(
        key="six-robot-tasks",
        sentence="State of the art on the robot tasks with sparse rewards, against HER and its variants.",
        published=None,
        measure=lead(SIX),
        margin=0.0,
        scale="full",
        unit="success",
        note="SHER minus the better of HER and CHER, mean over six tasks; that they are the paper's is our reading.",
    ),
    Claim(
        key="hand-manipulation",
        sentence="Especially in the hard tasks in which a hand turns an object.",
        published=None,
        measure=lead([task for task in SIX if task.startswith("hand")]),
        margin=0.0,
        scale="full",
        unit="success",
    ),
)
