"""A page asks nothing from outside, folds solutions and shows every output in one of its forms."""

import re
import unicodedata

import nbformat
import pytest

from labkit.workbench import page

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="


def output(**data: str) -> nbformat.NotebookNode:
    named = {key.replace("__", "/"): value for key, value in data.items()}
    return nbformat.v4.new_output("display_data", named)


def code(source: str, *outputs: nbformat.NotebookNode, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def html_of(*cells: nbformat.NotebookNode) -> str:
    return page.as_html(nbformat.v4.new_notebook(cells=list(cells)), "99_toy")


def test_a_page_has_the_notebooks_title_and_loads_nothing():
    text = html_of(nbformat.v4.new_markdown_cell("# Toys & Learning\n\nA [link](https://example.org)."), code("1 + 1"))
    assert "<title>Toys &amp; Learning</title>" in text
    assert not re.search(r"<script|<link|<iframe|@import|url\(|src=\"(?!data:)", text)
    assert '<a href="https://example.org">' in text


def test_a_solution_is_folded_with_its_output():
    passed = nbformat.v4.new_output("execute_result", {"text/plain": "passed"}, execution_count=1)
    text = html_of(code("# solution\nanswer = 42", passed, tags=("solution",)))
    folded = re.search(r"<details>(.+)</details>", text, re.DOTALL).group(1)
    assert "answer" in folded
    assert "passed" in folded


def test_a_page_runs_nothing_and_shows_no_set_up():
    assert "pip" not in html_of(code("import pip", tags=("setup",)))


def test_a_picture_has_its_size_and_its_sentence_and_stands_for_what_moves():
    moving = output(image__png=PIXEL, text__plain="VBox(children=...)")
    moving.data["application/vnd.jupyter.widget-view+json"] = {"model_id": "1"}
    moving.metadata["image/png"] = {"width": 20, "height": 10, "alt": 'a "dot"'}
    text = html_of(code("show()", moving))
    assert f'<img src="data:image/png;base64,{PIXEL}" alt="a &quot;dot&quot;" width="20" height="10">' in text
    assert "VBox" not in text


def test_what_has_no_picture_of_its_own_leaves_no_text_behind():
    figure = output(text__plain="Figure({...})")
    figure.data["application/vnd.plotly.v1+json"] = {"data": []}
    assert "Figure(" not in html_of(code("figure", figure))


def test_text_errors_and_tables_are_there():
    stream = nbformat.v4.new_output("stream", name="stdout", text="a < b")
    error = nbformat.v4.new_output("error", ename="E", evalue="v", traceback=["\x1b[31mE\x1b[0m: v"])
    text = html_of(code("x", stream, error, output(text__markdown="| a |\n|---|\n| 1 |", text__plain="<Markdown>")))
    assert '<pre class="stdout">a &lt; b</pre>' in text
    assert "\x1b" not in text
    assert "<table>" in text
    assert "&lt;Markdown&gt;" not in text


@pytest.mark.parametrize(
    ("latex", "name"),
    [
        ("E", "MATHEMATICAL DOUBLE-STRUCK CAPITAL E"),
        ("R", "DOUBLE-STRUCK CAPITAL R"),
        ("1", "MATHEMATICAL DOUBLE-STRUCK DIGIT ONE"),
    ],
)
def test_letters_with_two_strokes_are_unicodes_own(latex, name):
    assert unicodedata.lookup(name) in page.mathml(rf"\mathbb {{{latex}}}", "inline")


def test_formulas_are_mathml_and_tags_stay_at_their_end():
    text = html_of(
        nbformat.v4.new_markdown_cell(r"With $a_i\lvert x\rvert$:" + "\n\n" + r"$$\sum_i \tfrac12 a_i\tag{3}$$")
    )
    assert text.count("<math") == 2
    assert 'display="block"' in text
    assert "(3)" in text
    assert "$" not in text


def test_dollars_in_code_are_no_formulas():
    assert "<math" not in html_of(nbformat.v4.new_markdown_cell("```\necho $HOME and $PATH\n```"))


def test_the_page_lands_beside_the_notebook(tmp_path):
    path = tmp_path / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[code("1")]), path)
    assert page.write(path) == tmp_path / "notebook.html"
    assert (tmp_path / "notebook.html").read_text().startswith("<!doctype html>")
