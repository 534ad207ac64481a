"""What a notebook of the second edition keeps to, as a list of what is amiss.

python tests/notebooks/second_edition.py 01_qnet
"""

import base64
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import nbformat
from PIL import Image

from labkit import papers, paths
from labkit.workbench.exercises import Exercise
from labkit.workbench.experiment import Paper

WIDGET, PLOTLY = "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"
VISIBLE = ("image/png", "image/jpeg", "text/html", "text/markdown", WIDGET, PLOTLY)
COLUMNS = 80
LEDGER = re.compile(r"\| [✓✗–] \|")  # a row of the ledger: long sentences with many numbers


@dataclass(frozen=True)
class Edition:
    """A notebook with its paper; cells and outputs as the checks look at them."""

    paper: Paper
    notebook: nbformat.NotebookNode

    @property
    def code(self) -> list[nbformat.NotebookNode]:
        return [cell for cell in self.notebook.cells if cell.cell_type == "code"]

    def tagged(self, tag: str) -> list[nbformat.NotebookNode]:
        return [cell for cell in self.code if tag in cell.metadata.get("tags", [])]

    def section(self, number: int) -> str:
        """Source of the code cells below one of the ten headings."""
        parts, inside = [], False
        for cell in self.notebook.cells:
            if cell.cell_type == "markdown" and (heading := re.search(r"^## (\d+) ", cell.source, re.MULTILINE)):
                inside = int(heading.group(1)) == number
            elif cell.cell_type == "code" and inside:
                parts.append(cell.source)
        return "\n".join(parts)

    def exercises(self) -> Iterator[tuple[Exercise, nbformat.NotebookNode, nbformat.NotebookNode]]:
        return zip(self.paper.exercises, self.tagged("exercise"), self.tagged("solution"), strict=True)

    def outputs(self) -> Iterator[tuple[str, nbformat.NotebookNode]]:
        """Every output that is not a stream, with the last line of its cell's source."""
        for cell in self.code:
            for output in cell.outputs:
                if output.output_type in ("display_data", "execute_result"):
                    yield cell.source.strip().splitlines()[-1], output


def load(name: str) -> Edition:
    paper = next((each for each in map(papers.load, papers.names()) if each.notebook == name), None)
    if paper is None:
        raise SystemExit(f"{name} is no paper's notebook")
    return Edition(paper, nbformat.read(paths.notebooks_dir() / f"{name}.ipynb", as_version=4))


def problems(name: str) -> dict[str, list[str]]:
    """All that is amiss, by what must hold; empty for a notebook that keeps to all of it."""
    edition = load(name)
    return {str(check.__doc__): amiss for check in CHECKS if (amiss := list(check(edition)))}


# -- exercises --------------------------------------------------------------------------------------------------------


def solutions_do_not_show(edition: Edition) -> Iterator[str]:
    """a folded solution's first line is `# solution`, and it says only that it passed"""
    for exercise, _, solution in edition.exercises():
        if solution.source.splitlines()[0] != "# solution":
            yield f"{exercise.key} begins with {solution.source.splitlines()[0]!r}"
        if not solution.metadata.get("jupyter", {}).get("source_hidden"):
            yield f"{exercise.key} is not folded"
        says = [output.get("data", {}).get("text/plain", "") for output in solution.outputs]
        if len(says) != 1 or not says[0].startswith(f"✓ {exercise.key}: passed"):
            yield f"{exercise.key} prints more than its outcome"


def exercises_introduce_themselves(edition: Edition) -> Iterator[str]:
    """an exercise's cell begins with `display(paper.exercise(key))`: kind, difficulty, minutes, task"""
    for exercise, stub, _ in edition.exercises():
        if stub.source.splitlines()[0] != f'display(paper.exercise("{exercise.key}"))':
            yield exercise.key
        elif exercise._repr_markdown_() not in [o.get("data", {}).get("text/markdown") for o in stub.outputs]:
            yield f"{exercise.key}: what is shown is not the exercise as it is now"


def bugs_are_not_named(edition: Edition) -> Iterator[str]:
    """what a bug hunt shows is called `broken_...`, and its text names no bug"""
    for exercise, stub, _ in edition.exercises():
        if exercise.kind == "find the bug":
            if not re.search(r"show_source\(\s*exercises\.broken_\w+", stub.source):
                yield f"{exercise.key} shows a function that is not named `broken_...`"
            shown = " ".join(text_of(output) for output in stub.outputs if "markdown" in str(output.get("data")))
            code = shown.split("```")[1] if "```" in shown else shown
            if re.search(r"(?i)\bbugs?\b|\bwrong(ly)?\b|\bmistake\b", code):
                yield f"{exercise.key}: the code that is shown speaks of its bug"


def answers_come_after_the_question(edition: Edition) -> Iterator[str]:
    """no line of an earlier output holds the constants of a solution"""
    lines: list[str] = []
    solutions = {solution.id: exercise for exercise, _, solution in edition.exercises()}
    for cell in edition.code:
        exercise = solutions.get(cell.id)
        if exercise and exercise.kind in ("predict, then run", "ablation"):
            wanted = [_as_word(constant) for constant in constants(exercise.solution)]
            for line in lines:
                if wanted and all(word.search(line) for word in wanted):
                    yield f"{exercise.key}: {line.strip()[:100]!r}"
        for output in cell.outputs:
            lines += [line for line in text_of(output).splitlines() if not LEDGER.match(line)]


def constants(solution: Any) -> list[str | float]:
    """The numbers and words of a plain answer; none of a function's."""
    if isinstance(solution, Mapping):
        return [each for value in solution.values() for each in constants(value)]
    if isinstance(solution, tuple | list):
        return [each for value in solution for each in constants(value)]
    return [solution] if isinstance(solution, str | int | float) and not isinstance(solution, bool) else []


def _as_word(constant: str | float) -> re.Pattern[str]:
    text = re.escape(constant if isinstance(constant, str) else f"{constant:.4g}")
    if not isinstance(constant, str):
        text = text.removeprefix("0") if text.startswith("0\\.") else text
        text = f"0?{text}0*" if "." in text else rf"{text}(?:\.0+)?"
    return re.compile(rf"(?<![\w.\-]){text}(?![\w%]|\.\d| %| of )")


# -- a page that loses nothing ----------------------------------------------------------------------------------------


def pictures_speak(edition: Edition) -> Iterator[str]:
    """every picture has a sentence for who cannot see it, and two pixels for one: `viz.show(figure, alt)`"""
    for source, output in edition.outputs():
        if "image/png" in output.data:
            about = output.metadata.get("image/png", {})
            if not about.get("alt"):
                yield f"no sentence: {source}"
                continue
            width, _ = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).size
            if width < 2 * about["width"] - 2:
                yield f"{width} pixels for {about['width']}: {source}"
        for image in re.findall(r"<img [^>]+>", output.data.get("text/html", "")):
            if not re.search(r'alt="[^"]+"', image):
                yield f"no sentence: {source}"


def nothing_is_blank(edition: Edition) -> Iterator[str]:
    """what moves has its picture in the same output or just before it, and no repr stands for a picture"""
    for cell in edition.code:
        before: Mapping[str, Any] = {}
        for output in cell.outputs:
            data = output.get("data", {})
            moves = WIDGET in data or PLOTLY in data or "image/gif" in data
            if moves and "image/png" not in data and "image/png" not in before:
                yield f"no picture: {cell.source.strip().splitlines()[-1]}"
            shown = any(kind in data for kind in VISIBLE[:4])
            if not shown and re.search(
                r"<IPython\.|\w*Box\(|<Figure|Figure\(|Image object", data.get("text/plain", "")
            ):
                yield f"a repr: {data['text/plain'][:60]!r}"
            before = data


# -- text and numbers -------------------------------------------------------------------------------------------------


def numbers_can_be_read(edition: Edition) -> Iterator[str]:
    """no number of seven decimals, no minus before a zero, no line over 80 columns"""
    for cell in edition.code:
        for output in cell.outputs:
            if "image" in str(output.get("data", {}).keys()):
                continue
            text = text_of(output)
            code = "```" in text or "<pre" in text
            for line in () if code else text.splitlines():
                if match := re.search(r"\d\.\d{7,}|(?<![\w.])[-−]0?\.0+(?![\d.]|e-)", line):
                    yield f"{match.group()} in {line.strip()[:80]!r}"
                if output.output_type == "stream" and len(line) > COLUMNS:
                    yield f"{len(line)} columns: {line.strip()[:60]!r}"


def sections_lead_with_what_matters(edition: Edition) -> Iterator[str]:
    """section 2 has the four parameters and three fields, section 3 three claims; the long table is in section 10"""
    second, third, last = edition.section(2), edition.section(3), edition.section(10)
    if not (match := re.search(r"show\.config\(config, fields=(\[.+?\])\)", second, re.DOTALL)):
        yield "section 2: show.config(config, fields=[...])"
    elif len(re.findall(r'"[^"]+"', match.group(1))) != 3:
        yield "section 2 shows another number of fields than three"
    if not (match := re.search(r"show\.claims\(paper, main=(\[.+?\])\)", third, re.DOTALL)):
        yield "section 3: show.claims(paper, main=[...])"
    elif len(re.findall(r'"[^"]+"', match.group(1))) != 3:
        yield "section 3 leads with another number of claims than three"
    if "show.config(config)" not in last:
        yield "section 10: show.config(config)"


def guards_are_one_call(edition: Edition) -> Iterator[str]:
    """a picture that a run may lack is `viz.show(lambda: ..., alt, when=...)`"""
    for cell in edition.code:
        if re.search(r"\b(else None\b|None if )", cell.source) and "figures." in cell.source:
            yield cell.source.strip().splitlines()[-1]


def the_last_heading_takes_it_home(edition: Edition) -> Iterator[str]:
    """the tenth heading is `10 Take it home, and full scale`"""
    text = "\n".join(cell.source for cell in edition.notebook.cells if cell.cell_type == "markdown")
    if not re.search(r"^## 10 Take it home, and full scale$", text, re.MULTILINE):
        yield "it is not"


def text_of(output: nbformat.NotebookNode) -> str:
    """Text, HTML and Markdown of an output."""
    if output.output_type == "stream":
        return str(output.text)
    data = output.get("data", {})
    return "\n".join(str(data[kind]) for kind in ("text/plain", "text/markdown", "text/html") if kind in data)


CHECKS: tuple[Callable[[Edition], Iterator[str]], ...] = (
    solutions_do_not_show,
    exercises_introduce_themselves,
    bugs_are_not_named,
    answers_come_after_the_question,
    pictures_speak,
    nothing_is_blank,
    numbers_can_be_read,
    sections_lead_with_what_matters,
    guards_are_one_call,
    the_last_heading_takes_it_home,
)

if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(f"\n{each}" + ("" if (rules := problems(each)) else ": nothing is amiss"))
        for rule, amiss in rules.items():
            print(f"\n  {rule}", *amiss, sep="\n    - ")
