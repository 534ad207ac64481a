"""VOT's supervised protocol: a tracker that loses its target is started again, and what it costs is counted.

When the overlap is 0 the run has failed; it goes on with a new start `skip` frames later. Three figures come of it:

    accuracy    mean overlap of the frames that were tracked, the `burn_in` frames from each start left out
    robustness  exp(-30 F / N), F failures in N frames (VOT toolkit), or failures per 100 frames (tables of pysot)
    EAO         expected average overlap: the mean overlap one may expect of a run of 100-356 frames (VOT2018)

EAO takes runs of 46-291 frames for VOT2019; one that failed counts as a run that tracks nothing from there on, at every
length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from labkit.errors import InputError

SKIPPED, STARTED, FAILED, TRACKED = 0, 1, 2, 3
"""What happened in a frame. The first three are VOT's codes, written in place of a box."""

SKIP, BURN_IN, REPETITIONS, SENSITIVITY = 5, 10, 15, 30
"""VOT2018 and VOT2019 [peer code: VOT toolkit]."""

WINDOWS = {"vot2018": (100, 356), "vot2019": (46, 291)}


@dataclass(frozen=True, eq=False)
class SupervisedRun:
    """One pass with restarts. codes: what happened in each frame. overlaps: with the truth, used where it tracked."""

    sequence: str
    codes: Int64[np.ndarray, " t"]
    overlaps: Float64[np.ndarray, " t"]

    def __post_init__(self) -> None:
        if len(self.codes) != len(self.overlaps) or not len(self.codes) or self.codes[0] != STARTED:
            raise InputError(f"a run of '{self.sequence}' needs one code and overlap a frame and a start in the first.")
        if not np.isfinite(self.overlaps[self.codes == TRACKED]).all():
            raise InputError(f"a run of '{self.sequence}' has tracked frames without an overlap.")

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def failures(self) -> int:
        return int((self.codes == FAILED).sum())


def accuracy(run: SupervisedRun, burn_in: int = BURN_IN) -> float:
    """Mean overlap of tracked frames, those from a start to `burn_in - 1` frames after it left out; NaN without any."""
    counted = counted_frames(run, burn_in)
    return float(run.overlaps[counted].mean()) if counted.any() else float("nan")


def counted_frames(run: SupervisedRun, burn_in: int = BURN_IN) -> np.ndarray:
    """Frames that accuracy is a mean over."""
    counted = run.codes == TRACKED
    for start in np.flatnonzero(run.codes == STARTED):
        counted[start : start + burn_in] = False
    return counted


@dataclass(frozen=True)
class AccuracyRobustness:
    """accuracy 0..1; failures per run; robustness in the convention asked for."""

    accuracy: float
    failures: float
    robustness: float


def accuracy_robustness(
    runs: Sequence[SupervisedRun], convention: Literal["toolkit", "pysot"] = "toolkit", burn_in: int = BURN_IN
) -> AccuracyRobustness:
    """Accuracy and robustness of a benchmark, several runs of one sequence averaged first.

    'toolkit': accuracy and failures of each sequence weighted by its length; robustness exp(-30 failures / length)
    with the mean length. 'pysot': all frames alike; robustness = failures per 100 frames, smaller is better.

    Raises InputError when there is no run.
    """
    if not runs:
        raise InputError("there is no run to score.")
    grouped = _by_sequence(runs)
    lengths = np.array([len(group[0]) for group in grouped], dtype=np.float64)
    failures = np.array([np.mean([run.failures for run in group]) for group in grouped])
    if convention == "pysot":
        overlaps = np.concatenate([run.overlaps[counted_frames(run, burn_in)] for group in grouped for run in group])
        mean = float(overlaps.mean()) if len(overlaps) else float("nan")
        return AccuracyRobustness(mean, float(failures.sum()), float(100 * failures.sum() / lengths.sum()))
    # a run without a counted frame has accuracy 0 there
    accuracies = np.array([np.mean([np.nan_to_num(accuracy(run, burn_in)) for run in group]) for group in grouped])
    weighted = float(np.average(failures, weights=lengths))
    robustness = float(np.exp(-SENSITIVITY * weighted / lengths.mean()))
    return AccuracyRobustness(float(np.average(accuracies, weights=lengths)), weighted, robustness)


def _by_sequence(runs: Sequence[SupervisedRun]) -> list[list[SupervisedRun]]:
    groups: dict[str, list[SupervisedRun]] = {}
    for run in runs:
        groups.setdefault(run.sequence, []).append(run)
    for name, group in groups.items():
        if len({len(run) for run in group}) > 1:
            raise InputError(f"runs of '{name}' have different lengths.")
    return list(groups.values())


@dataclass(frozen=True, eq=False)
class Fragment:
    """A stretch from a start to the frame before a failure, or to the end (success). overlaps[0] is the start."""

    overlaps: Float64[np.ndarray, " n"]
    success: bool


def fragments(run: SupervisedRun) -> list[Fragment]:
    """A run cut at its failures. Frames skipped before the next start belong to none."""
    starts, ends = np.flatnonzero(run.codes == STARTED), np.flatnonzero(run.codes == FAILED)
    cut = [Fragment(run.overlaps[a:b], False) for a, b in zip(starts, ends, strict=False)]
    return cut + ([Fragment(run.overlaps[starts[-1] :], True)] if len(starts) > len(ends) else [])


def eao_curve(runs: Sequence[SupervisedRun]) -> Float64[np.ndarray, " n"]:
    """Expected average overlap of a run of length j, at index j (index 0 is the start and says nothing: 0).

    A fragment's average overlap at j is the mean over its frames 1..j. Failed fragments go on with overlap 0 and count
    at every length; successful ones count as far as they reach.

    Raises InputError when there is no run.
    """
    pieces = [fragment for run in runs for fragment in fragments(run)]
    if not pieces:
        raise InputError("there is no run to score.")
    longest = max(len(piece.overlaps) for piece in pieces)
    total, count = np.zeros(longest), np.zeros(longest)
    lengths = np.maximum(np.arange(longest), 1)
    for piece in pieces:
        overlaps = np.zeros(longest)
        overlaps[1 : len(piece.overlaps)] = piece.overlaps[1:]
        reach = len(piece.overlaps) if piece.success else longest
        total[:reach] += (overlaps.cumsum() / lengths)[:reach]
        count[:reach] += 1
    return total / count


def eao(runs: Sequence[SupervisedRun], window: tuple[int, int]) -> float:
    """Mean of the curve over lengths window[0]..window[1], as far as the runs reach.

    Raises InputError when no run is as long as the window begins, or the window is none.
    """
    low, high = window
    if not 0 < low <= high:
        raise InputError(f"window must be two lengths, the smaller first; got {window}.")
    curve = eao_curve(runs)
    if len(curve) <= low:
        raise InputError(f"the longest run has {len(curve) - 1} frames after its start; the window begins at {low}.")
    return float(curve[low : high + 1].mean())
