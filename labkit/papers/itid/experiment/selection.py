"""Model selection as an explicit step, and its regret, by the three criteria of DomainBed.  [peer code]

An algorithm without a selection criterion is incomplete: the accuracy on the test environment must not be used. Every
environment is split 80 : 20. What is reported is the accuracy on the 80 % of the test environment, and no criterion
looks at those images: the oracle selects on its other 20 %.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from labkit.errors import InputError


@dataclass(frozen=True)
class Candidate:
    """One trained network of a sweep.

    Args:
        held_out: accuracy on the held-out 20 % of each *training* environment, by number, at each checkpoint.
        test: accuracy on the 80 % of the test environment at each checkpoint: for reporting only.
        test_held_out: accuracy on its other 20 % at each checkpoint: for the oracle only.
        left_out: accuracy on the 80 % of training environment e, at each checkpoint, of a twin that was trained without
            e and the test environment; None where there is but one training environment.
        draw: number of the hyper-parameter draw; algorithm, trial: as named.
    """

    algorithm: str
    draw: int
    trial: int
    held_out: Mapping[int, Sequence[float]]
    test: Sequence[float]
    test_held_out: Sequence[float]
    left_out: Mapping[int, Sequence[float]] | None = None


@dataclass(frozen=True)
class Selected:
    """The selected run and checkpoint, its reported test accuracy, and `regret`, the distance to the best one."""

    candidate: Candidate
    checkpoint: int
    accuracy: float
    regret: float


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def best_mean(curves: Mapping[int, Sequence[float]]) -> tuple[float, int]:
    """The highest mean over several curves, and at which checkpoint: early stopping."""
    means = [_mean(values) for values in zip(*curves.values(), strict=True)]
    best = max(range(len(means)), key=means.__getitem__)
    return means[best], best


def _training_domain(candidate: Candidate) -> tuple[float, int]:
    """Best mean accuracy over the training environments' held-out parts, with early stopping."""
    return best_mean(candidate.held_out)


def _leave_one_out(candidate: Candidate) -> tuple[float, int]:
    """Best mean accuracy on training environments that a twin never saw, with early stopping."""
    if not candidate.left_out:
        raise InputError("leave-one-domain-out needs twins trained without each training environment (`left_out`).")
    return best_mean(candidate.left_out)


def _oracle(candidate: Candidate) -> tuple[float, int]:
    """Best accuracy on the test environment's held-out part, the last checkpoint: it may look, but not stop early."""
    return candidate.test_held_out[-1], len(candidate.test_held_out) - 1


CRITERIA: dict[str, Callable[[Candidate], tuple[float, int]]] = {
    "training-domain": _training_domain,
    "leave-one-domain-out": _leave_one_out,
    "oracle": _oracle,
}


def criteria_for(candidates: Sequence[Candidate]) -> list[str]:
    """The criteria that these candidates can be selected by: with one training environment there are no twins."""
    return [name for name in CRITERIA if name != "leave-one-domain-out" or all(c.left_out for c in candidates)]


def select(candidates: Sequence[Candidate], criterion: str) -> Selected:
    """The candidate with the highest score under `criterion`.

    Raises:
        InputError: no candidates, no such criterion, or one that lacks what it needs.
    """
    if criterion not in CRITERIA:
        raise InputError(f"criterion must be one of {', '.join(CRITERIA)}; got {criterion!r}.")
    if not candidates:
        raise InputError("there is nothing to select from.")
    scores = [CRITERIA[criterion](candidate) for candidate in candidates]
    best = max(range(len(scores)), key=lambda k: scores[k][0])
    checkpoint = scores[best][1]
    accuracy = candidates[best].test[checkpoint]
    ceiling = max(max(candidate.test) for candidate in candidates)
    return Selected(candidates[best], checkpoint, accuracy, ceiling - accuracy)


def by_trial(candidates: Sequence[Candidate], criterion: str) -> dict[int, Selected]:
    """One selection per trial, as DomainBed reports: mean and deviation over trials are taken afterwards."""
    trials = sorted({candidate.trial for candidate in candidates})
    return {trial: select([c for c in candidates if c.trial == trial], criterion) for trial in trials}
