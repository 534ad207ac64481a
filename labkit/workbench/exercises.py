"""Exercises: a stub the reader fills in, checks that name the property that failed, a solution, known wrong answers.

In a notebook a "your turn" cell defines the reader's answer and calls `exercise.check(answer)`. An untouched stub
says "not attempted yet"; a wrong answer gets the property it breaks, in words. Tests hold each exercise to its word:
the stub counts as not attempted, the solution passes, every known wrong answer is rejected.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("fill in", "predict, then run", "find the bug", "ablation", "open")


class NotAttempted(Exception):
    """Raised by a stub: the reader has not written anything yet."""


@dataclass(frozen=True)
class Outcome:
    """What a check says. Its `repr` is what the notebook shows."""

    passed: bool
    attempted: bool
    message: str

    def __repr__(self) -> str:
        return f"{'✓' if self.passed else '✗' if self.attempted else '…'} {self.message}"


@dataclass(frozen=True)
class Exercise:
    """One "your turn".

    Args:
        key: short name, unique in its paper.
        kind: one of `KINDS`.
        task: what to do, one or two sentences.
        properties: checks by name; each takes the answer and raises AssertionError with a sentence when it fails.
        solution: an answer that passes; the notebook's hidden cell shows how one gets there.
        wrong: answers people give, by what is wrong with them; every one must be rejected.
    """

    key: str
    kind: str
    task: str
    properties: Mapping[str, Callable[[Any], None]]
    solution: Any
    wrong: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")

    def check(self, answer: Any) -> Outcome:
        """Run the properties in order and say what the first failing one found. Never raises."""
        if answer is None or answer is ...:
            return Outcome(passed=False, attempted=False, message=f"{self.key}: not attempted yet")
        for name, holds in self.properties.items():
            try:
                holds(answer)
            except NotAttempted:
                return Outcome(passed=False, attempted=False, message=f"{self.key}: not attempted yet")
            except AssertionError as failure:
                return Outcome(False, True, f"{self.key}: {name}: {str(failure) or 'does not hold'}")
            except Exception as error:  # the reader's code may raise anything; the answer is a sentence, not a trace
                return Outcome(False, True, f"{self.key}: {name}: your answer raised {type(error).__name__}: {error}")
        return Outcome(True, True, f"{self.key}: passed ({', '.join(self.properties)})")


# -- what checks are made of --------------------------------------------------------------------------------------


def close(got: Any, wanted: Any, message: str, tolerance: float = 1e-9) -> None:
    """Fail with `message` and the largest error unless `got` has the shape of `wanted` and its values."""
    import torch

    got, wanted = (torch.as_tensor(value, dtype=torch.float64) for value in (got, wanted))
    assert got.shape == wanted.shape, f"{message} Wanted shape {tuple(wanted.shape)}, got {tuple(got.shape)}."
    error = float((got - wanted).abs().max()) if got.numel() else 0.0
    assert error <= tolerance, f"{message} The largest error is {error:.3g} (allowed: {tolerance:.1g})."  # NaN fails


def number(wanted: float, tolerance: float, hint: str) -> Callable[[Any], None]:
    """The check of an answer that is a number within `tolerance` of `wanted`."""

    def check(answer: Any) -> None:
        assert isinstance(answer, int | float), f"a number is asked for; got {answer!r}"
        assert abs(answer - wanted) <= tolerance, hint

    return check


def pair(check: Callable[..., None], what: str) -> Callable[[Any], None]:
    """The check of an answer that is a pair, handed to `check` as two arguments; `what` names both."""

    def of_pair(answer: Any) -> None:
        assert isinstance(answer, tuple), f"a pair is asked for, ({what}); got {answer!r}"
        assert len(answer) == 2, f"a pair is asked for, ({what}); got {len(answer)} things"
        check(*answer)

    return of_pair
