"""Model selection as an explicit step, and its regret, by the three criteria of DomainBed.  [peer code]

An algorithm without a selection criterion is incomplete: the accuracy on the test environment must not be used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from labkit.errors import InputError


@dataclass(frozen=True)
class Candidate:
    """One trained network of a sweep.

    Args:
        held_out: accuracy on the held-out 20 % of each *training* environment, by number, at each checkpoint.
        test: accuracy on the test environment at each checkpoint: for reporting, and for the oracle only.
        left_out: accuracy on training environment e of a twin that was trained without e and the test environment.
        draw: number of the hyper-parameter draw; algorithm, trial: as named.
    """

    algorithm: str
    draw: int
    trial: int
    held_out: Mapping[int, Sequence[float]]
    test: Sequence[float]
    left_out: Mapping[int, float] | None = None


@dataclass(frozen=True)
class Selected:
    """The selected run and checkpoint, its test accuracy, and `regret`, the distance to the best test accuracy."""

    candidate: Candidate
    checkpoint: int
    accuracy: float
    regret: float


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _training_domain(candidate: Candidate) -> tuple[float, int]:
    """Best mean accuracy over the training environments' held-out parts, with early stopping."""
    at = [_mean([curve[k] for curve in candidate.held_out.values()]) for k in range(len(candidate.test))]
    best = max(range(len(at)), key=at.__getitem__)
    return at[best], best


def _leave_one_out(candidate: Candidate) -> tuple[float, int]:
    """Best mean accuracy on training environments that a twin never saw; the last checkpoint."""
    if not candidate.left_out:
        raise InputError("leave-one-domain-out needs twins trained without each training environment (`left_out`).")
    return _mean(list(candidate.left_out.values())), len(candidate.test) - 1


def _oracle(candidate: Candidate) -> tuple[float, int]:
    """Best accuracy on the test environment itself, the last checkpoint only: it may look, but not stop early."""
    return candidate.test[-1], len(candidate.test) - 1


CRITERIA: dict[str, Callable[[Candidate], tuple[float, int]]] = {
    "training-domain": _training_domain,
    "leave-one-domain-out": _leave_one_out,
    "oracle": _oracle,
}


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
