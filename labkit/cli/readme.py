"""`labkit readme`."""

import re
from collections.abc import Iterator

import typer

from labkit import paths
from labkit.cli.options import rooms
from labkit.cli.output import standing
from labkit.errors import InputError
from labkit.files import write_atomically


def readme(context: typer.Context) -> None:
    """Write the tables of README.md anew: the papers with their claims, and the commands."""
    path = paths.root() / "README.md"
    text = path.read_text()
    for name, rows in (("papers", paper_rows()), ("commands", command_rows(context))):
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, begin, rest = text.partition(marks[0])
        _, end, tail = rest.partition(marks[1])
        if not (begin and end):
            raise InputError(f"{path} has no place for the table of {name}: two lines, {' and '.join(marks)}.")
        text = "\n".join([head + begin, *rows, end + tail])
    write_atomically(path, text.encode())


def paper_rows() -> Iterator[str]:
    """Notebook, paper, idea and how its claims stand, in the order of the notebooks."""
    yield "| notebook | paper | idea | claims of its abstract, as recorded |\n|---|---|---|---|"
    for room in sorted(rooms(""), key=lambda room: room.notebook):
        notebook = f"[{room.notebook}](notebooks/{room.notebook}.ipynb)"
        paper = f"[{room.title}](https://arxiv.org/abs/{room.arxiv}), {room.venue}"
        yield f"| {notebook} | {paper} | {room.idea} | {standing(room)} |"


def command_rows(context: typer.Context) -> Iterator[str]:
    """The Makefile's targets and labkit's commands, in the words of their own help."""
    yield "| command | what it does |\n|---|---|"
    for target, words in re.findall(r"^(\w+):.*## (.+)$", (paths.root() / "Makefile").read_text(), re.MULTILINE):
        yield f"| `make {target}` | {words} |"
    program = context.find_root().command
    assert isinstance(program, typer.core.TyperGroup)
    for name, command in program.commands.items():
        if not command.hidden:
            yield f"| `labkit {name}` | {(command.help or '').splitlines()[0]} |"
