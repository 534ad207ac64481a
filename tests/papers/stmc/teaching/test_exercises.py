"""Exercises answer for what they ask: solutions pass, known wrong answers are told why."""

import pytest

from labkit.papers.stmc.teaching import checks
from labkit.papers.stmc.teaching.exercises import EXERCISES


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.key)
def test_solution_and_wrong_answers(exercise):
    assert exercise.check(exercise.solution).passed
    for name, answer in exercise.wrong.items():
        outcome = exercise.check(answer)
        assert not outcome.passed, name
        assert "your answer raised" not in outcome.message, name


def test_who_teaches_the_pose_branch():
    assert checks.teachers_of_the_pose_branch() == {"key points' loss", "hand feature, soft crops"}
