"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.data import tracking
from labkit.metrics.tracking import presence
from labkit.papers.crt.experiment.clips import LookAlikes, look_alikes
from labkit.papers.crt.experiment.evaluate import measures
from labkit.papers.crt.experiment.tracking import Track, track_together
from labkit.papers.crt.method import prroi, ridge
from labkit.papers.crt.method.cascade import Cascade, Settings
from labkit.papers.crt.teaching import checks
from labkit.workbench.exercises import Exercise

# -- 1 fill in: the dual ----------------------------------------------------------------------------------------------


def dual(x: Tensor, y: Tensor, lam: float) -> Tensor:
    return x.T @ torch.linalg.solve(x @ x.T + lam * torch.eye(len(x), dtype=x.dtype), y)


def primal(x: Tensor, y: Tensor, lam: float) -> Tensor:
    """Right, but it builds a d x d matrix."""
    return torch.linalg.solve(x.T @ x + lam * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def dual_without_lam(x: Tensor, y: Tensor, lam: float) -> Tensor:
    return x.T @ (torch.linalg.pinv(x @ x.T) @ y)


# -- 2 fill in: Phi ---------------------------------------------------------------------------------------------------


def phi_on_one_side(u: Tensor) -> Tensor:
    return 0.5 * (u.clamp(-1, 1) + 1) ** 2


def phi_unclamped(u: Tensor) -> Tensor:
    return torch.where(u <= 0, 0.5 * (u + 1) ** 2, 1 - 0.5 * (1 - u) ** 2)


# -- 3 find the bug: the place of a score -----------------------------------------------------------------------------


def pixel_of(index: int, kernel: int, stride: int) -> float:
    """Crop pixel of the score at `index`."""
    return (index + 0.5 * (kernel % 2)) * stride


def broken_place(index: int, kernel: int, stride: int) -> float:
    """Crop pixel at which the score with this `index` stands.  kernel: side of stage 1's filter, in cells."""
    return (index + 0.5) * stride


# -- 4 MaxGM ----------------------------------------------------------------------------------------------------------


def best_mean(tpr: float, tnr: float) -> float:
    p = max(0.0, (1 - 2 * tnr) / (2 * (1 - tnr))) if tnr < 1 else 0.0
    return math.sqrt((1 - p) * tpr * ((1 - p) * tnr + p))


# -- 6 logistic regression --------------------------------------------------------------------------------------------


def logistic(x: Tensor, y: Tensor, lam: float, steps: int) -> Tensor:
    """Newton's method: each step is a ridge regression with weights p (1 - p)."""
    w = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(steps):
        p = torch.sigmoid(x @ w)
        weight = (p * (1 - p)).clamp_min(1e-9)
        target = x @ w + (y - p) / weight
        w = ridge.fit(x[None], target[None], lam, weight[None])[0]
    return w


# -- 5 is it there? ---------------------------------------------------------------------------------------------------

AWAY = LookAlikes(frames=48, rivals=2, similarity=0.5, away=(16, 32))
"""The target is gone for a third of the clip; two look-alikes stay."""
PRACTICE, HELD_OUT = (0, 1, 2), (6, 7, 8)
BAR = 0.8

Rule = Callable[[np.ndarray], Any]


@cache
def goes_away(seeds: tuple[int, ...] = PRACTICE) -> tuple[tuple[tracking.Sequence, Track], ...]:
    """Clips whose target is absent for a while, and what the cascade said about them: boxes and fused scores."""
    clips = [look_alikes(AWAY, seed) for seed in seeds]
    return tuple(zip(clips, track_together(Cascade(Settings()), clips), strict=True))


def presence_counts(rule: Rule, seeds: tuple[int, ...] = PRACTICE) -> presence.Counts:
    """OxUvA's outcomes, all clips together, the first frame left out, when `rule(scores)` says what is present."""
    total = presence.Counts()
    for clip, track in goes_away(seeds):
        says = _answer(rule, track.scores)[1:]
        size = float(AWAY.width), float(AWAY.height)
        total += presence.count(~clip.absent[1:], clip.boxes[1:], says, track.boxes[1:], size=size)
    return total


def _answer(rule: Rule, scores: np.ndarray) -> np.ndarray:
    says = np.asarray(rule(scores.copy()))
    assert says.shape == scores.shape, f"one answer per frame: {scores.shape} scores give {says.shape} answers"
    assert says.dtype == bool, f"the answers are True (present) and False (absent); got {says.dtype}"
    return says


def answers_every_frame(rule: Rule) -> None:
    """A boolean array as long as the scores."""
    for _, track in goes_away(HELD_OUT):
        _answer(rule, track.scores)


def uses_the_past_alone(rule: Rule) -> None:
    """An answer is due before the next frame comes: cut the clip off anywhere, and the answers so far stay."""
    for _, track in goes_away(HELD_OUT):
        whole = _answer(rule, track.scores)
        for t in (12, 24, 36):
            same = _answer(rule, track.scores[:t]) == whole[:t]
            assert same.all(), f"frame {int(same.argmin())} gets another answer once frames from {t} on are known"


def says_both(rule: Rule) -> None:
    """Always present or always absent: one of the rates is 0, and so is their geometric mean."""
    counts = presence_counts(rule, HELD_OUT)
    assert counts.gm > 0, (
        f"GM 0: TPR {counts.tpr:.2f}, TNR {counts.tnr:.2f} "
        f"(MaxGM, with absences thrown in at random, {counts.max_gm:.2f})"
    )


def reaches_the_bar(rule: Rule) -> None:
    counts = presence_counts(rule, HELD_OUT)
    assert counts.gm >= BAR, (
        f"GM {counts.gm:.2f} on clips you have not seen (TPR {counts.tpr:.2f}, TNR {counts.tnr:.2f})"
    )


# -- 7 break it -------------------------------------------------------------------------------------------------------


def broken(answer: Any) -> None:
    """One rival that covers nothing and is no perfect copy: the cascade must lose more than a tenth of 60 frames."""
    assert isinstance(answer, LookAlikes), f"the answer is a LookAlikes(...); got {type(answer).__name__}"
    lost = _lost(answer)
    assert lost > 0.1, f"the cascade loses {lost:.0%} of the frames; look for what both stages see alike"


def fair(answer: Any) -> None:
    assert isinstance(answer, LookAlikes), f"the answer is a LookAlikes(...); got {type(answer).__name__}"
    assert answer.rivals == 1, f"one rival is allowed; there are {answer.rivals}"
    assert answer.similarity <= 0.9, (
        f"similarity {answer.similarity}: from .9 on it is a copy, and no appearance can win"
    )
    assert answer.gap >= 1, f"gap {answer.gap}: the rival touches the target; that is occlusion, not discrimination"
    assert max(answer.noise / 10, answer.speed / 2, answer.light / 0.3) <= 1, "noise <= 10, speed <= 2, light <= .3"


def _lost(kind: LookAlikes) -> float:
    clips = [look_alikes(replace(kind, frames=60), seed) for seed in (0, 1)]
    tracks = track_together(Cascade(Settings()), clips)
    return sum(measures(t, c)["lost"] for t, c in zip(tracks, clips, strict=True)) / len(clips)


BREAKS_IT = LookAlikes(rivals=1, similarity=0.9, turn=0.05, noise=10.0, light=0.3, own_light=True)

EXERCISES = (
    Exercise(
        key="dual",
        kind="fill in",
        task="Write ridge regression in its dual form: `x` is (n, d) with n < d, `y` is (n,). All weights are 1. "
        "Return $w$, (d,), from a system of n equations; no d x d matrix may be built.",
        properties={"solves ridge": checks.check_ridge, "by the small system": checks.check_uses_small_system},
        solution=dual,
        wrong={"builds d x d": primal, "forgets lam": dual_without_lam, "a scalar": lambda x, y, lam: y.mean()},
        difficulty=2,
        minutes=10,
        hints=(
            (
                "$w$ is a combination of the rows, $w=X^\\top a$. Put that into the ridge objective: which equation "
                "does $a$ solve?"
            ),
            "$(XX^\\top+\\lambda I)\\,a=y$. Solve it with `torch.linalg.solve`.",
        ),
    ),
    Exercise(
        key="phi",
        kind="fill in",
        task="Write $\\Phi(u)=\\int_{-\\infty}^{u}\\max(0,1-|t|)\\,dt$ for a tensor `u` of any shape. It is the only "
        "integral that precise RoI pooling needs.",
        properties={"is the integral": checks.check_phi},
        solution=prroi.phi,
        wrong={"one branch": phi_on_one_side, "not clamped": phi_unclamped, "a step": lambda u: (u > 0).to(u.dtype)},
        difficulty=1,
        minutes=10,
        hints=(
            ("The hat function has two straight pieces. Integrate each. What is the integral at -1, 0 and 1?"),
            (
                "Clamp $u$ to $[-1,1]$. Up to 0 the integral is $(u+1)^2/2$. Above 0 it is 1 minus the area that is "
                "left on the right, by symmetry."
            ),
        ),
    ),
    Exercise(
        key="half-a-cell",
        kind="find the bug",
        task="`broken_place` says at which pixel of the search image a score stands. Our tracker with its 7 x 7 filter "
        "works with it. With ATOM's 4 x 4 filter the box creeps away from a target at rest, a little in every frame. "
        "Correct the function.",
        properties={"right for every kernel": checks.check_pixel},
        solution=pixel_of,
        wrong={"the bug": broken_place, "always the edge": lambda index, kernel, stride: float(index * stride)},
        difficulty=1,
        minutes=10,
        hints=(
            "Draw a filter of 7 and one of 4 cells on a line of cells. Where is the centre of each?",
            "`kernel % 2` tells the two cases apart. In one of them the centre is an edge between two cells.",
        ),
    ),
    Exercise(
        key="max-gm",
        kind="fill in",
        task="The OxUvA benchmark asks in each frame whether the target is present. TPR is the share of the frames "
        "with the target that are answered correctly, TNR that of the frames without it. A tracker that never says "
        "'absent' has a geometric mean of 0, so the benchmark may turn a random share $p$ of the answers into "
        "'absent'. Compute the best value, "
        "$\\max_{0\\le p\\le1}\\sqrt{(1-p)\\,\\mathrm{TPR}\\,((1-p)\\,\\mathrm{TNR}+p)}$ (MaxGM).",
        properties={"is the maximum": checks.check_max_gm},
        solution=best_mean,
        wrong={
            "the plain geometric mean": lambda tpr, tnr: math.sqrt(tpr * tnr),
            "always p = 1/2": lambda tpr, tnr: math.sqrt(0.5 * tpr * (0.5 * tnr + 0.5)),
        },
        difficulty=2,
        minutes=15,
        hints=(
            "For fixed rates this is a function of $p$ alone. Where is its maximum, and does that lie in [0, 1]?",
            (
                "The expression under the root is a parabola in $p$. Search a fine grid, or set its derivative to "
                "zero and clip $p$ at 0."
            ),
        ),
    ),
    Exercise(
        key="presence",
        kind="open",
        task="In these clips the target is absent in the grey frames, and two look-alikes stay. The tracker's own "
        "threshold, 0.25, says 'absent' far too rarely. Write a rule: from the scores of a clip (an array, one number "
        "a frame) to an array of True (present) and False (absent). An answer may use only the scores so far. The goal "
        "is a geometric mean of TPR and TNR of 0.8 on clips that you have not seen.",
        properties={
            "one answer a frame": answers_every_frame,
            "looks back only": uses_the_past_alone,
            "says both": says_both,
            "reaches GM 0.8": reaches_the_bar,
        },
        solution=lambda scores: scores >= 0.65,
        wrong={
            "always present": lambda scores: scores > -1,
            "always absent": lambda scores: scores > 9,
            "the tracker's own threshold": lambda scores: scores >= Settings().present,
            "too strict": lambda scores: scores >= 0.85,
            "upside down": lambda scores: scores < 0.65,
            "knows the whole clip": lambda scores: scores >= np.median(scores),
            "one answer for all": lambda scores: scores.mean() > 0.65,
            "numbers": lambda scores: scores - 0.65,
        },
        difficulty=2,
        minutes=20,
        hints=(
            "One threshold is enough. Which scores do you see in the grey frames, and which outside?",
            (
                "`exercises.presence_counts(rule).gm` is the geometric mean on the clips shown. Compare thresholds "
                "between the scores of the look-alikes and those of the target."
            ),
        ),
    ),
    Exercise(
        key="logistic",
        kind="open",
        task="The labels of a classifier are 0 and 1, so replace ridge by logistic regression: minimise "
        "$-\\sum_i[y_i\\log p_i+(1-y_i)\\log(1-p_i)]+\\tfrac\\lambda2\\lVert w\\rVert^2$ with "
        "$p=\\mathrm{sigmoid}(Xw)$ by `steps` steps of Newton's method. Each step is one call of "
        "`ridge.fit(x[None], target[None], lam, weight[None])[0]`. Then time it against a single ridge solve.",
        properties={"gradient vanishes": checks.check_logistic},
        solution=logistic,
        wrong={
            "ridge on the labels": lambda x, y, lam, steps: ridge.fit(x[None], y[None], lam)[0],
            "one step": lambda x, y, lam, steps: logistic(x, y, lam, 1),
        },
        difficulty=3,
        minutes=25,
        hints=(
            "Expand the loss to second order at the present $w$: it is a weighted sum of squares.",
            (
                "The weights are $p(1-p)$ and the targets $Xw+(y-p)/\\mathrm{weight}$. Keep the weights above 0, "
                "since they divide."
            ),
        ),
    ),
    Exercise(
        key="break-it",
        kind="ablation",
        task="Choose a `LookAlikes(rivals=1, similarity=..., ...)` so that the cascade loses more than a tenth of the "
        "frames. The one rival may share at most 90 % of the texture and must not touch the target (`gap` at least "
        "1). Limits: `noise` 10, `speed` 2, `light` 0.3. Which property of the hand-made features can be used "
        "against them?",
        properties={"plays fair": fair, "breaks the cascade": broken},
        solution=BREAKS_IT,
        wrong={
            "easy rival": LookAlikes(rivals=1, similarity=0.3),
            "a copy": LookAlikes(rivals=1, similarity=0.95),
            "covers the target": LookAlikes(rivals=1, similarity=0.9, gap=0.2),
        },
        difficulty=2,
        minutes=15,
        hints=(
            "The features describe one view of the target. What if that view changes while the target moves?",
            (
                "Try `turn` (a rotation in every frame) and `own_light` (each object has its own light), with the "
                "other fields at their limits."
            ),
        ),
    ),
)
