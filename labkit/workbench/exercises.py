"""Exercises: a stub the reader fills in, checks that name the property that failed, a solution, known wrong answers.

In a notebook a "your turn" cell shows the exercise, defines the reader's answer and calls `exercise.check(answer)`.
An untouched stub says "not attempted yet"; a wrong answer gets the property it breaks, in words; `exercise.hint()`
gives the next hint. Tests hold each exercise to its word: the stub counts as not attempted, the solution passes, every
known wrong answer is rejected.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("fill in", "predict, then run", "find the bug", "ablation", "open")
HARDEST = 3


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
class Hint:
    """A hint, as the notebook shows it."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


@dataclass(frozen=True)
class Exercise:
    """One "your turn". At the end of a cell, or under `display`, it shows what is asked.

    Args:
        key: short name, unique in its paper.
        kind: one of `KINDS`.
        task: what to do, one or two sentences of Markdown. It does not say what the answer, or the bug, is.
        properties: checks by name; each takes the answer and raises AssertionError with a sentence when it fails.
        solution: an answer that passes; the notebook's hidden cell shows how one gets there.
        wrong: answers people give, by what is wrong with them; every one must be rejected.
        difficulty: 1 (a line or two), 2 (a thought of one's own is needed), 3 (paper and pencil, or patience).
        minutes: what a reader who has come this far needs.
        hints: two; the first names the idea, the second nearly gives the line.

    Raises:
        ValueError: a kind that does not exist, a difficulty other than 1, 2 or 3, no minutes, not two hints.
    """

    key: str
    kind: str
    task: str
    properties: Mapping[str, Callable[[Any], None]]
    solution: Any
    wrong: Mapping[str, Any] = field(default_factory=dict)
    difficulty: int = field(kw_only=True)
    minutes: int = field(kw_only=True)
    hints: tuple[str, str] = field(kw_only=True)
    _asked: Iterator[int] = field(default_factory=itertools.count, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        if self.difficulty not in range(1, HARDEST + 1):
            raise ValueError(f"{self.key}: difficulty must be 1, 2 or {HARDEST}; got {self.difficulty!r}")
        if self.minutes < 1:
            raise ValueError(f"{self.key}: minutes must be at least 1; got {self.minutes!r}")
        if len(self.hints) != 2 or not all(self.hints):
            raise ValueError(f"{self.key}: two hints are asked for; got {len([h for h in self.hints if h])}")

    def __repr__(self) -> str:
        """What is asked. `display` writes it into the notebook beside the Markdown: the solution must not be there."""
        return self._repr_markdown_()

    def _repr_markdown_(self) -> str:
        marks = "●" * self.difficulty + "○" * (HARDEST - self.difficulty)
        kind = self.kind[0].upper() + self.kind[1:]
        ways = "Two hints: put `.hint()` in place of `.check(...)`."
        return f"**{kind}** · {marks} · about {self.minutes} minutes\n\n{self.task}\n\n*{ways}*"

    def hint(self) -> Hint:
        """The next hint; after the last one that one again."""
        number = min(next(self._asked), len(self.hints) - 1)
        more = "" if number + 1 == len(self.hints) else " *Ask again for the next one.*"
        return Hint(f"**Hint {number + 1} of {len(self.hints)}.** {self.hints[number]}{more}")

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
