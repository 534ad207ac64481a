"""The checks of the second edition see what they are there for."""

from dataclasses import replace

import nbformat
import pytest
import second_edition
import toy_paper
from second_edition import WIDGET, Edition

from labkit.workbench.exercises import Exercise, number

GUESS = Exercise(
    "guess", "predict, then run", "How much?", {"close": number(0.75, 0.01, "no")}, (0.75, 23), difficulty=1, minutes=1,
    hints=("Less than one.", "Three quarters."),
)  # fmt: skip


def shown(**data: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", {key.replace("__", "/"): value for key, value in data.items()})


def said(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def cell(source: str, *outputs: nbformat.NotebookNode, tag: str = "") -> nbformat.NotebookNode:
    code_cell = nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": [tag] if tag else []})
    code_cell.metadata["jupyter"] = {"source_hidden": tag == "solution"}
    return code_cell


STUB = cell(
    'display(paper.exercise("guess"))\npaper.exercise("guess").check(None)',
    shown(text__markdown=GUESS._repr_markdown_()),
    tag="exercise",
)
SOLUTION = cell(
    '# solution\npaper.exercise("guess").check((0.75, 23))',
    shown(text__plain="✓ guess: passed (close)"),
    tag="solution",
)


class OneExercise(toy_paper.Toy):
    exercises = (GUESS,)


def edition(*cells: nbformat.NotebookNode) -> Edition:
    paper = OneExercise(**vars(toy_paper.PAPER))
    return Edition(paper, nbformat.v4.new_notebook(cells=[*cells, STUB, SOLUTION]))


@pytest.mark.parametrize("check", second_edition.CHECKS[:7])
def test_a_notebook_without_fault_has_no_problems(check):
    assert list(check(edition(cell("print(1)", said("one 0.75, another 24\n"))))) == []


@pytest.mark.parametrize(
    ("check", "source", "output", "words"),
    [
        (second_edition.answers_come_after_the_question, "x", said("it is 0.75 and then 23.0"), "guess: 'it is"),
        (second_edition.answers_come_after_the_question, "x", said("it is .75, 23"), "guess"),
        (second_edition.nothing_is_blank, "widget", shown(text__plain="VBox(children=(...))"), "a repr"),
        (second_edition.nothing_is_blank, "gif", shown(text__plain="<IPython.core.display.Image object>"), "a repr"),
        (second_edition.pictures_speak, "img", shown(text__html='<img src="data:x">'), "no sentence: img"),
        (second_edition.numbers_can_be_read, "x", said("+0.2727652892"), "0.2727652892"),
        (second_edition.numbers_can_be_read, "x", said("-0.0000000"), "-0.0000000"),
        (second_edition.numbers_can_be_read, "x", said("." * 81), "81 columns"),
        (second_edition.guards_are_one_call, "figures.map(m) if m else None", said(""), "figures.map"),
    ],
)
def test_each_fault_is_found(check, source, output, words):
    (problem,) = check(edition(cell(source, output)))
    assert words in problem


def test_a_widget_without_its_picture_is_found_and_one_with_it_is_not():
    alone = shown(text__plain="a widget")
    alone.data[WIDGET] = {"model_id": "1"}
    assert list(second_edition.nothing_is_blank(edition(cell("w", alone)))) == ["no picture: w"]
    alone.data["image/png"] = "..."
    assert list(second_edition.nothing_is_blank(edition(cell("w", alone)))) == []


def test_a_solution_that_shows_itself_is_found():
    loud = nbformat.from_dict(SOLUTION | {"source": "# three quarters", "outputs": [said("0.75")]})
    shown_early = edition()
    shown_early.notebook.cells[-1] = loud
    assert len(list(second_edition.solutions_do_not_show(shown_early))) == 2


def test_a_bug_hunt_that_names_its_bug_is_found():
    hunt = replace(GUESS, kind="find the bug")
    paper = OneExercise(**vars(toy_paper.PAPER))
    object.__setattr__(paper, "exercises", (hunt,))
    stub = cell(
        "viz.show_source(exercises.too_high)",
        shown(text__markdown='```\n"""The bug: too high."""\n```'),
        tag="exercise",
    )
    actual = list(second_edition.bugs_are_not_named(Edition(paper, nbformat.v4.new_notebook(cells=[stub, SOLUTION]))))
    assert len(actual) == 2
