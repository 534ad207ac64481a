"""Every notebook keeps the house's contract: ten headings, parameters, pairing, small clean outputs, exercises."""

import difflib
import json
import re

import jupytext
import nbformat
import papermill
import pytest
import second_edition
from jupytext.config import load_jupytext_config
from second_edition import Edition

from labkit import papers, paths, viz
from labkit.workbench import notebooks, page, show
from labkit.workbench.records import load_all

HEADINGS = (
    "1 The idea in one picture",
    "2 Parameters",
    "3 What the paper claims",
    "4 The method, step by step",
    "5 Prove it",
    "6 Train and compare",
    "7 Explore",
    "8 Verdict",
    "9 Your turn",
    "10 Take it home, and full scale",
)
LESSON_CPU_SECONDS = 150
MARK = re.compile(r"\[(paper|recalled|official code|author net|peer code|peer|inferred|ours)\b")
LEGEND = re.compile(r"^\| \[([^\]]+)\] \| (.+) \|$", re.MULTILINE)
ALL = notebooks.names()
ROOMS = {papers.load(slug).notebook: papers.load(slug) for slug in papers.names()}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(paths.notebooks_dir() / f"{name}.ipynb", as_version=4)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_every_room_has_its_notebook_and_every_notebook_its_room():
    assert set(ALL) == {"00_start_here", *ROOMS}


@pytest.mark.parametrize("name", ALL)
def test_the_first_code_cell_gives_labkit_to_a_kernel_without_it(name):
    """Folded, right after the title, and silent where labkit is there: it is for Colab, and no reader's business."""
    title, setup, *_ = read(name).cells
    assert title.source.startswith("# ")
    assert setup.source == notebooks.SETUP
    assert setup.metadata == {"jupyter": {"source_hidden": True}, "tags": ["setup"]}
    assert setup.outputs == []


@pytest.mark.parametrize("name", ROOMS)
def test_ten_headings_in_order(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == HEADINGS


@pytest.mark.parametrize("name", ROOMS)
def test_marks_mean_the_same_in_every_notebook(name):
    """Catches: a wording of its own in a legend, a mark that no legend explains, a row that nothing uses."""
    known = LEGEND.findall((paths.root() / "CONTRIBUTING.md").read_text())
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    legend = LEGEND.findall(text)
    words = dict(known)
    assert [mark for mark, _ in legend] == [mark for mark in words if mark in dict(legend)], "CONTRIBUTING's order"
    assert {mark: meaning[: len(words[mark])] for mark, meaning in legend} == {mark: words[mark] for mark, _ in legend}
    assert set(MARK.findall(LEGEND.sub("", text))) == {mark for mark, _ in legend}


@pytest.mark.parametrize("name", ROOMS)
def test_the_four_parameters_are_typed_and_papermill_sees_them(name):
    parameters = papermill.inspect_notebook(str(paths.notebooks_dir() / f"{name}.ipynb"))
    types = {key: value["inferred_type_name"] for key, value in parameters.items()}
    assert types == {"scale": "str", "seed": "int", "run_dir": "str", "overrides": "dict"}
    assert parameters["scale"]["default"] == '"lesson"'


def pair_difference(name: str) -> str:
    """A diff between the .py and what its .ipynb holds as source; empty when the pair agrees. Writes nothing."""
    text, executed = paths.notebooks_dir() / f"{name}.py", paths.notebooks_dir() / f"{name}.ipynb"
    if not executed.exists():
        return f"{executed.name} is missing; make it with: labkit notebooks {name}"
    current = jupytext.writes(jupytext.read(executed), fmt="py:percent", config=load_jupytext_config(str(text)))
    lines = difflib.unified_diff(
        text.read_text().splitlines(), current.splitlines(), text.name, executed.name, lineterm="", n=1
    )
    return "\n".join(lines)


@pytest.mark.parametrize("name", ALL)
def test_pair_agrees(name):
    assert pair_difference(name) == ""


@pytest.mark.parametrize("name", ALL)
def test_kernel_is_the_plain_one_and_no_tool_left_traces(name):
    notebook = read(name)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec"}
    assert all(set(cell.metadata) <= {"tags", "jupyter"} for cell in notebook.cells)


@pytest.mark.parametrize("name", ALL)
def test_outputs_are_committed_small_and_without_errors(name):
    path = paths.notebooks_dir() / f"{name}.ipynb"
    assert path.stat().st_size < 1_000_000
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "a cell was never executed: make notebooks"
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "not run from top to bottom"
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"], "a warning in a notebook is a bug"


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_the_machine_in_the_text(name):
    text = (paths.notebooks_dir() / f"{name}.ipynb").read_text()
    assert str(paths.root()) not in text
    assert not re.search(r"/home/|/root/|/Users/|/tmp/", text)


@pytest.mark.parametrize("name", ROOMS)
def test_at_least_one_cell_is_compared_and_none_that_holds_a_widget(name):
    compared = [cell for cell in read(name).cells if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert compared
    assert "widget-view" not in json.dumps([cell.outputs for cell in compared])


@pytest.mark.parametrize("name", ROOMS)
def test_a_notebook_keeps_to_the_second_edition(name):
    """All checks of `second_edition.py`; `python tests/notebooks/second_edition.py NN_slug` prints what is amiss."""
    assert second_edition.problems(name) == {}


def test_the_start_notebook_has_a_row_and_a_link_for_every_room():
    text = "\n".join(cell.source for cell in read("00_start_here").cells if cell.cell_type == "markdown")
    assert re.findall(r"^\| \[(\w+)\]\((\w+)\.ipynb\) \|", text, re.MULTILINE) == [
        (name, name) for name in sorted(ROOMS)
    ]


@pytest.mark.slow
def test_the_start_notebook_shows_times_ledger_and_pictures_as_they_are(monkeypatch):
    """Catches: a ledger of yesterday. `labkit notebooks 00_start_here` mends it."""
    shown: list[str] = []
    monkeypatch.setattr(show, "display", lambda thing: shown.append(thing.data))
    monkeypatch.setattr(viz, "show", lambda png, alt: shown.append(alt))
    rooms = [ROOMS[name] for name in sorted(ROOMS)]
    for part in (show.costs, show.ledgers, show.gallery):
        part(rooms)
    outputs = [
        output.data for cell in read("00_start_here").cells for output in cell.get("outputs", []) if "data" in output
    ]
    assert [data["text/plain" if "image/png" in data else "text/markdown"] for data in outputs] == shown


def test_the_start_notebook_loses_nothing_on_a_page_either():
    start = Edition(next(iter(ROOMS.values())), read("00_start_here"))
    for check in (second_edition.pictures_speak, second_edition.nothing_is_blank, second_edition.numbers_can_be_read):
        assert list(check(start)) == []


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_small_and_asks_nothing_from_outside(name):
    text = page.as_html(read(name), name)
    assert len(text.encode()) < 3_000_000
    assert not re.search(r"<script|<link|<iframe|@import|url\((?!['\"]?data:)|src=[\"'](?!data:)", text)
    assert "MathJax" not in text
    assert "VBox(" not in text
    assert text.count("<details><summary>Solution") == len(tagged(read(name), "solution"))


@pytest.mark.parametrize("slug", papers.names())
def test_a_lesson_takes_no_more_processor_time_than_it_says(slug):
    """The record that the lesson itself makes; arms that take longer have a record with a label of their own."""
    for record in load_all(slug):
        if record.scale == "lesson" and not record.label and record.cpu_seconds:
            assert max(record.cpu_seconds) <= LESSON_CPU_SECONDS, record.name


@pytest.mark.parametrize("name", ROOMS)
def test_exercises_have_a_stub_and_a_folded_solution(name):
    paper, notebook = ROOMS[name], read(name)
    stubs, solutions = tagged(notebook, "exercise"), tagged(notebook, "solution")
    assert 4 <= len(paper.exercises) <= 7
    assert len(stubs) == len(solutions) == len(paper.exercises)
    for exercise, stub, solution in zip(paper.exercises, stubs, solutions, strict=True):
        check = f'paper.exercise("{exercise.key}").check('
        assert check in stub.source
        assert check in solution.source
        assert solution.metadata.jupyter.source_hidden
        assert f"… {exercise.key}: not attempted yet" in json.dumps(stub.outputs, ensure_ascii=False)
        assert f"✓ {exercise.key}: passed" in json.dumps(solution.outputs, ensure_ascii=False)


def test_the_pair_check_sees_a_difference(tmp_path, monkeypatch):
    for ending in ("py", "ipynb"):
        text = (paths.notebooks_dir() / f"00_start_here.{ending}").read_text()
        (tmp_path / f"00_start_here.{ending}").write_text(text)
    (tmp_path / "pyproject.toml").write_text((paths.root() / "pyproject.toml").read_text())
    monkeypatch.setattr(paths, "notebooks_dir", lambda: tmp_path)
    assert pair_difference("00_start_here") == ""
    source = tmp_path / "00_start_here.py"
    source.write_text(source.read_text() + "\n# %%\nprint(1)\n")
    assert "print(1)" in pair_difference("00_start_here")
