"""The abstract, statement by statement. It gives no figure, and no table of the paper could be read: every published
figure is None. Margins were set before measuring.

A run's value comes from the seeds that it trains as stacked copies (8 in the lesson); a record has several runs. Shares
of seeds have Wilson's interval, differences between arms a bootstrap interval, over the seeds of all runs.
"""

from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from labkit.metrics.intervals import Interval, bootstrap, wilson
from labkit.workbench.claims import Claim, Measure, Pooled, Result, difference, largest, number, read

Seeds = NDArray[np.float64]


# -- reading a result -------------------------------------------------------------------------------------------------


def tightness(result: Result) -> float | None:
    """How many times looser O'Donoghue's bound is than the paper's, on average."""
    loose, tight = read(result, "tabular", "loose_mean"), read(result, "tabular", "tight_mean")
    return None if loose is None or tight is None else loose / tight


def mean(*path: str) -> Measure:
    """The mean of a list of the result, which has one number a seed."""

    def measure(result: Result) -> float | None:
        values = read(result, *path)
        return None if values is None else fmean(values)

    return measure


def covered_by_two(row: str) -> Measure:
    """Calibration table: the share of errors within two sqrt(U)."""

    def measure(result: Result) -> float | None:
        coverage = read(result, "calibration", row, "sqrt_u", "coverage")
        return None if coverage is None else float(coverage[1])

    return measure


def gain(study: str, arm: str, kind: str = "real") -> Measure:
    """The mean gain of an arm over the run's seeds, real or claimed."""
    return mean(study, "arms", arm, kind)


def share_improved(study: str, arm: str) -> Measure:
    """P(improve): the share of seeds whose real return grew."""

    def measure(result: Result) -> float | None:
        gains = read(result, study, "arms", arm, "real")
        return None if gains is None else fmean(gain > 0 for gain in gains)

    return measure


def more_often(study: str, ours: str, *others: str) -> Measure:
    """P(improve) of one arm minus the largest of the others."""
    return difference(share_improved(study, ours), largest(*(share_improved(study, other) for other in others)))


def exploitation(arm: str) -> Measure:
    """The part of the claimed gain that is not real."""
    return difference(gain("zone", arm, "claimed"), gain("zone", arm))


def robustness(study: str) -> Measure:
    """What noise costs alpha = 0 in improving seeds, less what it costs alpha = 2."""
    return difference(
        difference(share_improved(study, "alpha-2"), share_improved("zone", "alpha-2")),
        difference(share_improved(study, "alpha-0"), share_improved("zone", "alpha-0")),
    )


def cost_of_official_scaling(result: Result) -> float | None:
    """Real gain of alpha = 2 with U scaled minus without, rewards ten times smaller, in units of the reward."""
    gap = difference(gain("zone-reward-x0.1", "alpha-2"), gain("zone-reward-x0.1-official", "alpha-2"))(result)
    return None if gap is None else 10 * gap


def advantage(summary: Callable[[Sequence[float]], float], *rivals: str) -> Measure:
    """POMBU minus the best rival, the mean over the environments of the run, in units of the return.

    Args:
        summary: of a replica's learning curve; replicas are averaged.
    """

    def level(environment: str, algorithm: str) -> Measure:
        def measure(result: Result) -> float | None:
            curves = read(result, environment, algorithm, "stochastic_return")
            return fmean(summary(curve) for curve in curves) if curves else None

        return measure

    def measure(result: Result) -> float | None:
        gaps = [
            difference(level(name, "pombu"), largest(*(level(name, rival) for rival in rivals)))(result)
            for name in result
        ]
        known = [gap for gap in gaps if gap is not None]
        return fmean(known) if known else None

    return measure


# -- intervals over the seeds of all runs -----------------------------------------------------------------------------


def per_seed(results: Sequence[Result], *sources: tuple[str, str, str]) -> Seeds | None:
    """(sources, seeds of all runs) of what a study has one a seed: (study, arm, value) each; None without any."""
    runs = []
    for result in results:
        rows = [read(result, study, "arms", arm, value) for study, arm, value in sources]
        if all(rows) and len({len(row) for row in rows}) == 1:  # else they are not the same seeds
            runs.append(np.array(rows, dtype=np.float64))
    return np.concatenate(runs, axis=1) if runs else None


def improved(study: str, arm: str) -> Pooled:
    """P(improve) of one arm with Wilson's interval."""

    def pooled(results: Sequence[Result]) -> Interval | None:
        gains = per_seed(results, (study, arm, "real"))
        return None if gains is None else wilson(int((gains > 0).sum()), gains.size)

    return pooled


def paired(statistic: Callable[[Seeds], Seeds], *sources: tuple[str, str, str]) -> Pooled:
    """A statistic (sources, ..., seeds) -> (...) over seeds that all sources share: all arms start from one policy."""

    def pooled(results: Sequence[Result]) -> Interval | None:
        values = per_seed(results, *sources)
        return None if values is None else bootstrap([values], lambda seeds, axis: statistic(seeds))

    return pooled


def gains(study: str, *arms: str) -> list[tuple[str, str, str]]:
    """The real gains of these arms, as sources."""
    return [(study, arm, "real") for arm in arms]


def above_the_best_rival(gains: Seeds) -> Seeds:
    """P(improve) of the first arm minus the largest of the others."""
    shares = (gains > 0).mean(-1)
    return np.asarray(shares[0] - shares[1:].max(0))


# -- the ledger -------------------------------------------------------------------------------------------------------

CLAIMS = (
    Claim(
        key="upper-bound",
        sentence="An upper bound of the uncertainty in Q-values is derived.",
        published=None,
        measure=number("tabular", "tight_min"),
        margin=0.999,
        scale="lesson",
        unit="of the true variance",
        note="The least bound over truth, 40 states and actions a run; the truth in closed form. Where the theory's "
        "assumption holds: no state comes back.",
    ),
    Claim(
        key="tighter-than-before",
        sentence="With it the uncertainty can be approximated accurately: it is far tighter than the bound before it.",
        published=None,
        measure=tightness,
        margin=10.0,
        scale="lesson",
        unit="times",
        note="O'Donoghue's bound over the paper's, means over states and actions. The paper's is 1 to 3 times the "
        "truth.",
    ),
    Claim(
        key="bound-survives-recurrence",
        sentence="Counter-check, ours: the bound stays one where states come back, as in every task with a network.",
        published=None,
        measure=number("tabular", "cyclic_min"),
        margin=1.0,
        scale="lesson",
        unit="of the true variance",
        note="One P and r for all times. This is the assumption that learned models break.",
    ),
    Claim(
        key="calibrated-where-independent",
        sentence="The uncertainty is approximated accurately: the error of Q lies within two sigmas as often as it "
        "should, where every step's model error is drawn anew.",
        published=None,
        measure=covered_by_two("fake-0.01"),
        margin=0.8,
        scale="lesson",
        unit="of the cases",
        note="The official code's own study: truth plus fresh noise. A normal law has .95; K = 5 costs a little.",
    ),
    Claim(
        key="ranks-errors",
        sentence="The uncertainty of a learned ensemble tells where Q is wrong (Zone, 8 episodes).",
        published=None,
        measure=mean("calibration", "zone-8", "sqrt_u", "spearman"),
        margin=0.3,
        scale="lesson",
        unit="rank correlation",
    ),
    Claim(
        key="ranks-errors-everywhere",
        sentence="The same on the official code's point task, 16 episodes.",
        published=None,
        measure=mean("calibration", "point-16", "sqrt_u", "spearman"),
        margin=0.3,
        scale="lesson",
        unit="rank correlation",
    ),
    Claim(
        key="calibrated-when-learned",
        sentence="The uncertainty of a learned ensemble covers the error of Q: two sigmas as often as they should.",
        published=None,
        measure=covered_by_two("zone-8"),
        margin=0.8,
        scale="lesson",
        unit="of the cases",
        note="Not seen in our exploratory runs either: learned models err the same way at every step.",
    ),
    Claim(
        key="improves-with-high-probability",
        sentence="Conservative optimisation improves the policy with high probability.",
        published=None,
        measure=share_improved("zone", "alpha-2"),
        pooled=improved("zone", "alpha-2"),
        margin=0.85,
        scale="lesson",
        unit="of the seeds",
        note="alpha = 2; the official code's .5 is too weak here, because sqrt(U) is too small.",
    ),
    Claim(
        key="more-often-than-plain",
        sentence="The uncertainty makes the difference: alpha = 0, which is PPO in an ensemble, improves less often.",
        published=None,
        measure=more_often("zone", "alpha-2", "alpha-0"),
        pooled=paired(above_the_best_rival, *gains("zone", "alpha-2", "alpha-0")),
        margin=0.25,
        scale="lesson",
        unit="of the seeds",
    ),
    Claim(
        key="knowing-where",
        sentence="Control, ours: the same penalties in other places, or their mean everywhere, do not serve as well.",
        published=None,
        measure=more_often("zone", "alpha-2", "shuffled-2", "constant-2"),
        pooled=paired(above_the_best_rival, *gains("zone", "alpha-2", "shuffled-2", "constant-2")),
        margin=0.1,
        scale="lesson",
        unit="of the seeds",
    ),
    Claim(
        key="official-alpha",
        sentence="Ours: the official code's alpha = .5 suffices on this task.",
        published=None,
        measure=more_often("zone", "alpha-0.5", "alpha-2"),
        pooled=paired(above_the_best_rival, *gains("zone", "alpha-0.5", "alpha-2")),
        margin=-0.05,
        scale="lesson",
        unit="of the seeds",
    ),
    Claim(
        key="less-overfitting-to-models",
        sentence="Over-fitting of the policy to inaccurate models is significantly alleviated.",
        published=None,
        measure=difference(exploitation("alpha-0"), exploitation("alpha-2")),
        pooled=paired(
            lambda x: (x[0] - x[1] - x[2] + x[3]).mean(-1),
            *(("zone", name, value) for name in ("alpha-0", "alpha-2") for value in ("claimed", "real")),
        ),
        margin=2.0,
        scale="lesson",
        unit="of the return",
        note="Claimed minus real gain, alpha = 0 minus alpha = 2; episodes cost about 10.",
    ),
    Claim(
        key="robust-to-action-noise",
        sentence="POMBU is robust: with noisy actions it improves more often than alpha = 0.",
        published=None,
        measure=more_often("zone-action-noise", "alpha-2", "alpha-0"),
        pooled=paired(above_the_best_rival, *gains("zone-action-noise", "alpha-2", "alpha-0")),
        margin=0.25,
        scale="lesson",
        unit="of the seeds",
    ),
    Claim(
        key="robust-to-observation-noise",
        sentence="The same with noisy observations.",
        published=None,
        measure=more_often("zone-observation-noise", "alpha-2", "alpha-0"),
        pooled=paired(above_the_best_rival, *gains("zone-observation-noise", "alpha-2", "alpha-0")),
        margin=0.25,
        scale="lesson",
        unit="of the seeds",
        note="Noise as large as a whole step.",
    ),
    Claim(
        key="caution-keeps-more",
        sentence="Noise costs previous methods more than POMBU: the loss of improving seeds, alpha = 0 less alpha = 2.",
        published=None,
        measure=robustness("zone-action-noise"),
        pooled=paired(
            lambda x: ((x > 0).mean(-1) * np.array([1, -1, -1, 1]).reshape(4, *[1] * (x.ndim - 2))).sum(0),
            *((study, name, "real") for name in ("alpha-2", "alpha-0") for study in ("zone-action-noise", "zone")),
        ),
        margin=0.0,
        scale="lesson",
        unit="of the seeds",
    ),
    Claim(
        key="data-replace-caution",
        sentence="Ours: with 16 episodes on the left in place of one, alpha = 0 improves as often as alpha = 2.",
        published=None,
        measure=more_often("zone-left-16", "alpha-0", "alpha-2"),
        pooled=paired(above_the_best_rival, *gains("zone-left-16", "alpha-0", "alpha-2")),
        margin=-0.1,
        scale="lesson",
        unit="of the seeds",
        note="Seven episodes on the right, as always; holds if alpha = 0 fails in at most a tenth more of the seeds.",
    ),
    Claim(
        key="scaling-matters",
        sentence="Ours: U must be scaled so that the unit of reward cancels; the official code's scaling does not.",
        published=None,
        measure=cost_of_official_scaling,
        pooled=paired(
            lambda x: 10 * (x[0] - x[1]).mean(-1),
            ("zone-reward-x0.1", "alpha-2", "real"),
            ("zone-reward-x0.1-official", "alpha-2", "real"),
        ),
        margin=0.2,
        scale="lesson",
        unit="of the return",
        note="Rewards ten times smaller, real gain of alpha = 2 in old units: with minus without.",
    ),
    Claim(
        key="beats-its-own-ablation",
        sentence="Better asymptotic performance than without the uncertainty (HalfCheetah, short training).",
        published=None,
        measure=advantage(lambda curve: curve[-1], "meppo"),
        margin=0.0,
        scale="gpu",
        unit="return",
    ),
    Claim(
        key="sample-efficiency",
        sentence="More sample-efficient than state-of-the-art policy optimisation.",
        published=None,
        measure=advantage(fmean, "meppo", "me-trpo", "mbpo", "ppo", "sac"),
        margin=0.0,
        scale="full",
        unit="return",
        note="Mean return over the whole of training against the best rival, the mean over the environments.",
    ),
    Claim(
        key="asymptote",
        sentence="Better asymptotic performance than state-of-the-art policy optimisation.",
        published=None,
        measure=advantage(lambda curve: curve[-1], "meppo", "me-trpo", "mbpo", "ppo", "sac"),
        margin=0.0,
        scale="full",
        unit="return",
        note="Return at the end of training against the best rival, the mean over the environments.",
    ),
)
