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


def write_tables(commands: Mapping[str, Any]) -> None:
    """Write what stands between the marks in README.md anew: tables, and each notebook's lines to take home.

    Args:
        commands: name to command, as typer has them.

    Raises:
        InputError: README.md has lost a mark.
    """
    path = paths.root() / "README.md"
    text = path.read_text()
    for name, rows in (("papers", paper_rows()), ("take home", home_lines()), ("commands", command_rows(commands))):
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, begin, rest = text.partition(marks[0])
        _, end, tail = rest.partition(marks[1])
        if not (begin and end):
            raise InputError(f"{path} misses the marks of '{name}': two lines, {' and '.join(marks)}.")
        text = "\n".join([head + begin, *rows, end + tail])
    write_atomically(path, text.encode())


def paper_rows() -> Iterator[str]:
    """Notebook, paper, idea and how its claims stand, in the order of the notebooks."""
    yield "| notebook | paper | idea | claims of its abstract, as recorded |\n|---|---|---|---|"
    for room in sorted(rooms(""), key=lambda room: room.notebook):
        notebook = f"[{room.notebook}](notebooks/{room.notebook}.ipynb)"
        paper = f"[{room.title}](https://arxiv.org/abs/{room.arxiv}), {room.venue}"
        yield f"| {notebook} | {paper} | {room.idea} | {standing(room)} |"


def home_lines() -> Iterator[str]:
    """The first block of Python below heading 10 of every notebook, which the room's tests execute."""
    for room in sorted(rooms(""), key=lambda room: room.notebook):
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
