"""`labkit translate`: one sentence a line from stdin, its translation on the same line of stdout."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from labkit.cli.export import whose
from labkit.errors import InputError
from labkit.files import given_path
from labkit.workbench.run_files import read_object

if TYPE_CHECKING:  # other commands need not wait for torch
    from labkit.papers.bertfused.method.translator import Translator

ROOM = "bertfused"
TOGETHER = 2000  # lines that are translated, sorted by length, before the next ones are read


def translate(
    model: Annotated[
        str, typer.Argument(metavar="RUN", help="folder of a finished run, or what `labkit export` wrote")
    ],
    beam: Annotated[int, typer.Option(help="hypotheses a sentence; 1 is greedy search")] = 5,
    length_penalty: Annotated[
        float, typer.Option(help="alpha in log p / length^alpha; above 1 favours long ones")
    ] = 1.0,
    arm: Annotated[str, typer.Option(help="which of the run's models; default: the room's first choice")] = "",
    batch_tokens: Annotated[
        int, typer.Option(help="tokens that are translated at a time, all hypotheses' together")
    ] = 8000,
    bert: Annotated[str, typer.Option(help="folder of its BERT, where that is neither MiniLM nor in the file")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
) -> None:
    """Translate stdin to stdout, line by line: order and blank lines are kept; progress goes to stderr."""
    from labkit.devices import pick_device

    chosen = pick_device(device)
    translator = open_translator(given_path(model, "RUN"), arm, bert).to(chosen)
    asks = sys.stdin.isatty()
    if asks:
        print("One sentence a line; Ctrl-D ends.", file=sys.stderr)
    together = 1 if asks else None if translator.document else TOGETHER
    start, count = time.monotonic(), 0
    with shown(asks) as bar:
        for lines in chunks(sys.stdin.buffer, together):
            translations = translator.translate(
                lines, beam=beam, length_penalty=length_penalty, batch_tokens=batch_tokens, progress=partial(bar, count)
            )
            if not write(translations):
                return
            count += len(lines)
    seconds = time.monotonic() - start
    print(f"{count} lines in {seconds:.1f} s, {count / max(seconds, 1e-9):.1f} a second", file=sys.stderr)


def open_translator(path: Path, arm: str = "", bert: str = "") -> "Translator":
    """The translator of an exported folder or file, or of a finished run.

    Raises:
        InputError: there is none, it is not finished, it has no such arm, or it does not translate.
    """
    from labkit.papers.bertfused import load

    about = read_object(path / "config.json") if path.is_dir() else None
    if path.is_file() or (about is not None and about.get("library") == "labkit"):
        if arm:
            raise InputError(f"--arm chooses from a run, and {path} is a single model. Leave it out.")
        if about is not None and about.get("paper") != ROOM:
            raise InputError(f"{path} is a model of {about.get('paper')}, which does not translate; {ROOM}'s do.")
        return load(path, bert or None)
    paper, config = whose(path)
    if paper.slug != ROOM:
        raise InputError(f"{path} is a run of {paper.slug}, which does not translate; {ROOM}'s do.")
    from labkit.workbench import export
    from labkit.workbench.runs import Run

    with tempfile.TemporaryDirectory() as folder:  # a run's model is what its export holds
        export.export(paper, config, Run.open(path, config, writes=False), Path(folder), arm)
        return load(folder, bert or None)


def chunks(stream: Iterable[bytes], together: int | None) -> Iterator[list[str]]:
    """Lines of a stream of UTF-8, `together` at a time; None: all at once.

    Raises:
        InputError: bytes that are no UTF-8; says in which line.
    """
    rest, first = iter(stream), 1
    while raw := list(islice(rest, together)):
        lines = []
        for number, line in enumerate(raw, first):
            try:
                lines.append(line.rstrip(b"\r\n").decode())
            except UnicodeDecodeError as error:
                raise InputError(f"line {number} of the input is no UTF-8 text ({error.reason}).") from None
        yield lines
        first += len(raw)


def write(lines: Sequence[str]) -> bool:
    """One line each to stdout, at once; False when the reader has closed the pipe."""
    try:
        sys.stdout.buffer.write("".join(" ".join(line.split()) + "\n" for line in lines).encode())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return False
    return True


@contextlib.contextmanager
def shown(asks: bool) -> Iterator[Callable[[int, int], None]]:
    """How many lines are done (before this piece, in it), on stderr, for a person at a terminal."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed} lines"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=asks or not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda before, done: progress.update(task, completed=before + done)
