"""`labkit readme`."""

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from labkit import paths
from labkit.cli.options import rooms
from labkit.cli.output import standing
from labkit.errors import InputError
from labkit.files import write_atomically
from labkit.workbench import notebooks
from labkit.workbench.claims import ledger_markdown
from labkit.workbench.costs import costs_markdown
from labkit.workbench.experiment import Paper


def write_tables(commands: Mapping[str, Any]) -> None:
    """Write what stands between the marks in README.md anew: tables, and each notebook's lines to take home.

    Args:
        commands: name to command, as typer has them.

    Raises:
        InputError: README.md has lost a mark.
    """
    path = paths.root() / "README.md"
    text = path.read_text()
    parts = {
        "papers": paper_rows(),
        "gallery": gallery_rows(),
        "lessons": lesson_rows(),
        "costs": [costs_markdown(by_notebook(), "notebooks/")],
        "take home": home_lines(),
        "commands": command_rows(commands),
        "ledger": ledger_rows(),
    }
    for name, rows in parts.items():
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, begin, rest = text.partition(marks[0])
        _, end, tail = rest.partition(marks[1])
        if not (begin and end):
            raise InputError(f"{path} misses the marks of '{name}': two lines, {' and '.join(marks)}.")
        text = "\n".join([head + begin, *rows, end + tail])
    write_atomically(path, text.encode())


def by_notebook() -> list[Paper]:
    """The papers in the order of their notebooks."""
    return sorted(rooms(""), key=lambda room: room.notebook)


def paper_rows() -> Iterator[str]:
    """Notebook, paper, idea and how its claims stand, in the order of the notebooks."""
    yield "| notebook | paper | idea | claims of its abstract, as recorded |\n|---|---|---|---|"
    for room in by_notebook():
        notebook = f"[{room.notebook}](notebooks/{room.notebook}.ipynb)"
        paper = f"[{room.title}](https://arxiv.org/abs/{room.arxiv}), {room.venue}"
        yield f"| {notebook} | {paper} | {room.idea} | {standing(room)} |"


def gallery_rows() -> Iterator[str]:
    """The first picture of every notebook, two in a row; the pictures are written to `docs/gallery/`."""
    folder = paths.root() / "docs" / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    yield "<table>"
    papers = by_notebook()
    for row in range(0, len(papers), 2):
        yield "<tr>"
        for room in papers[row : row + 2]:
            first = notebooks.first_picture(room.notebook)
            if first is None:
                raise InputError(f"{room.notebook} shows no picture; execute it: labkit notebooks {room.notebook}")
            write_atomically(folder / f"{room.notebook}.png", first[0])
            picture = f'<img src="docs/gallery/{room.notebook}.png" width="400" alt="{html.escape(first[1])}">'
            yield f'<td><a href="notebooks/{room.notebook}.ipynb">{room.notebook}</a><br>{picture}</td>'
        yield "</tr>"
    yield "</table>"


def lesson_rows() -> Iterator[str]:
    """What each notebook teaches and what a reader should know: the table of 00_start_here, seen from here."""
    yield "| notebook | what it teaches | what it needs |\n|---|---|---|"
    start = (paths.notebooks_dir() / "00_start_here.py").read_text()
    yield from re.findall(r"^# (\| \[.+\|)$", start.replace("](", "](notebooks/"), re.MULTILINE)


def ledger_rows() -> Iterator[str]:
    """Every claim of every paper, folded, a paper a fold."""
    for room in by_notebook():
        yield f"<details>\n<summary>{room.title}: {standing(room)}</summary>\n"
        yield ledger_markdown(room.verdicts())
        yield "\n</details>"


def home_lines() -> Iterator[str]:
    """The first block of Python below heading 10 of every notebook, which the room's tests execute."""
    for room in by_notebook():
        text = (paths.notebooks_dir() / f"{room.notebook}.py").read_text().partition("\n# ## 10")[2]
        block = re.search(r"^# ```python\n(.*?)^# ```", text, re.MULTILINE | re.DOTALL)
        if block is None:
            raise InputError(f"{room.notebook}.py shows no block of Python below heading 10.")
        lines = [line.removeprefix("#").removeprefix(" ") for line in block[1].splitlines()]
        yield "\n".join([f"**{room.slug}**: {room.idea}", "", "```python", *lines, "```", ""])


def command_rows(commands: Mapping[str, Any]) -> Iterator[str]:
    """The Makefile's targets and labkit's commands, in the words of their own help."""
    yield "| command | what it does |\n|---|---|"
    for target, words in re.findall(r"^([\w-]+):.*## (.+)$", (paths.root() / "Makefile").read_text(), re.MULTILINE):
        yield f"| `make {target}` | {words} |"
    for name, command in commands.items():
        if not command.hidden:
            yield f"| `labkit {name}` | {html.escape((command.help or '').splitlines()[0], quote=False)} |"
