"""An exercise answers in one sentence whatever the reader writes."""

from dataclasses import replace

import pytest
from toy_paper import is_above_three

from labkit.workbench.exercises import Exercise, NotAttempted, close, number, pair


def small(answer) -> None:
    assert answer() < 10, "too large"


def silent(answer) -> None:
    if answer() != 4:
        raise AssertionError


THREE = Exercise(
    "three",
    "fill in",
    "more than 3",
    {"above": is_above_three, "small": small, "four": silent},
    lambda: 4,
    difficulty=2,
    minutes=5,
    hints=("Count on.", "`lambda: 4`"),
)


def stub() -> float:
    raise NotAttempted


@pytest.mark.parametrize("answer", [None, ..., stub])
def test_an_untouched_stub_is_not_attempted_and_not_wrong(answer):
    outcome = THREE.check(answer)
    assert (outcome.passed, outcome.attempted) == (False, False)
    assert repr(outcome) == "… three: not attempted yet"


def test_the_solution_passes_and_says_what_was_checked():
    assert repr(THREE.check(THREE.solution)) == "✓ three: passed (above, small, four)"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: 2, "✗ three: above: 2 is not above 3"),
        (lambda: 20, "✗ three: small: too large"),
        (lambda: 5, "✗ three: four: does not hold"),
        (lambda: 1 / 0, "✗ three: above: your answer raised ZeroDivisionError: division by zero"),
        (lambda: None, "✗ three: above: your answer raised TypeError"),
        (5, "✗ three: above: your answer raised TypeError"),
    ],
)
def test_a_wrong_answer_gets_the_property_it_breaks(answer, message):
    outcome = THREE.check(answer)
    assert (outcome.passed, outcome.attempted) == (False, True)
    assert repr(outcome).startswith(message)


def test_an_exercise_shows_what_is_asked_how_hard_it_is_and_how_long_it_takes():
    page = THREE._repr_markdown_()
    assert repr(THREE) == page  # with solution or hints in it, `display` would write them into the notebook
    assert page.splitlines()[0] == "**Fill in** · ●●○ · about 5 minutes"
    assert "more than 3" in page
    assert "lambda" not in page


def test_hints_come_one_by_one_and_the_last_one_stays():
    exercise = replace(THREE)
    hints = [exercise.hint() for _ in range(3)]
    assert repr(hints[0]) == "**Hint 1 of 2.** Count on. *Ask again for the next one.*"
    assert hints[1] == hints[2]
    assert hints[1]._repr_markdown_() == "**Hint 2 of 2.** `lambda: 4`"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "riddle"}, "kind must be one of fill in"),
        ({"difficulty": 0}, "three: difficulty must be 1, 2 or 3; got 0"),
        ({"difficulty": 4}, "got 4"),
        ({"minutes": 0}, "three: minutes must be at least 1; got 0"),
        ({"hints": ("only one", "")}, "three: two hints are asked for; got 1"),
    ],
)
def test_an_exercise_that_leaves_something_out_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(THREE, **changes)


def test_an_exercise_that_does_not_exist_names_those_that_do(toy):
    assert toy.exercise("three") is toy.exercises[0]
    with pytest.raises(ValueError, match="no exercise 'four'; there are three"):
        toy.exercise("four")


def test_the_toys_exercise_keeps_its_word(toy):
    """What each room's own tests ask of its exercises."""
    (exercise,) = toy.exercises
    assert not exercise.check(None).attempted
    assert exercise.check(exercise.solution).passed


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: close([1.0, 2.0], [1.0], "Values."), r"Values\. Wanted shape \(1,\), got \(2,\)"),
        (lambda: close([1.0, 2.5], [1.0, 2.0], "Values."), "largest error is 0.5"),
        (lambda: close([float("nan")], [1.0], "Values."), "largest error is nan"),
        (lambda: number(3.0, 0.5, "think again")(4.0), "think again"),
        (lambda: number(3.0, 0.5, "think again")("three"), "a number is asked for; got 'three'"),
        (lambda: pair(lambda a, b: None, "pack, unpack")([1, 2]), r"a pair is asked for, \(pack, unpack\)"),
        (lambda: pair(lambda a, b: None, "pack, unpack")((1, 2, 3)), "got 3 things"),
    ],
)
def test_parts_of_checks_fail_in_words(call, words):
    with pytest.raises(AssertionError, match=words):
        call()


def test_parts_of_checks_pass_what_is_right():
    close([[1.0, 2.0]], [[1.0, 2.0 + 1e-10]], "Values.")
    close([], [], "Nothing.")
    number(3.0, 0.5, "")(3.5)
    calls = []
    pair(lambda a, b: calls.append((a, b)), "pack, unpack")((1, 2))
    assert calls == [(1, 2)]
