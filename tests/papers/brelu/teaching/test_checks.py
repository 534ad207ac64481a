"""Every exercise keeps its word: the stub is not attempted, the solution passes, known wrong answers are rejected."""

import pytest

from labkit.papers.brelu.teaching.exercises import EXERCISES, LAPLACE, LARGEST_SHIFT
from labkit.workbench.exercises import NotAttempted


def stub(*_: object) -> None:
    raise NotAttempted


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.key)
def test_stub_solution_and_wrong_answers(exercise):
    for untouched in (None, ...):
        assert not exercise.check(untouched).attempted
    if callable(exercise.solution):
        assert not exercise.check(stub).attempted
    assert exercise.check(exercise.solution).passed
    for name, answer in exercise.wrong.items():
        outcome = exercise.check(answer)
        assert outcome.attempted
        assert not outcome.passed, f"{exercise.key} let '{name}' pass"


def test_the_predicted_numbers():
    assert LARGEST_SHIFT == 27
    assert pytest.approx(9.9, abs=0.2) == LAPLACE
