"""`labkit data`: what is there, get it, check it."""

from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from labkit import paths
from labkit.data import registry
from labkit.data.registry import State
from labkit.errors import DataError

app = typer.Typer(help="List datasets, get them, check that they are whole.", no_args_is_help=True)

INDENT = 4
_COLOUR: dict[State, str] = {"present": "green", "missing": "yellow", "needs registration": "yellow", "damaged": "red"}


@app.command("list", short_help="List every dataset: its state, size, licence and layout.")
def list_datasets() -> None:
    """List every dataset: is it there, how large, under which licence, and where its files belong."""
    console, names = Console(), registry.names()
    sizes = [registry.get(name).size for name in names]
    for name in names:
        dataset, states = registry.get(name), registry.status(name)
        row = Table.grid(padding=(0, 2))
        for column in (names, get_args(State), sizes):
            row.add_column(width=max(map(len, column)), no_wrap=True)
        row.add_row(name, _coloured(states.state), dataset.size, escape(dataset.licence))
        console.print(row)
        details = [states.detail] if states.state in ("damaged", "needs registration") else []
        for line in (dataset.layout, *details):
            console.print(Padding(escape(line), (0, 0, 0, INDENT)), highlight=False)
    console.print(f"LABKIT_DATA is {paths.data_dir()}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def get(name: Annotated[str, typer.Argument(metavar="NAME", help="a dataset from `labkit data list`")]) -> None:
    """Get a dataset, or what is missing of it. Shows the licence first; goes on where an earlier attempt stopped."""
    dataset, console = registry.get(name), Console()
    for line in (dataset.title, f"terms: {dataset.licence}", f"cite: {dataset.citation}", f"from: {dataset.url}"):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if dataset.bundled:
        console.print(f"{name} is always there: it lies {dataset.layout}.", highlight=False)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {file.name: bars.add_task(escape(file.name), total=file.bytes) for file in dataset.files}
        where = registry.download(name, lambda file, done, total: bars.update(tasks[file], completed=done))
    console.print(f"whole, in {where}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def check(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="a dataset; default: every one that is there")
    ] = None,
) -> None:
    """Read every file and compare it with the published one. Exit code 2: something is damaged, or NAME not there."""
    states = {each: registry.check(each) for each in ([name] if name else registry.names())}
    table = Table("name", "state", "detail")
    for each, (state, detail) in states.items():
        table.add_row(each, _coloured(state), escape(detail))
    Console().print(table)
    wrong = [each for each, (state, _) in states.items() if state == "damaged" or (name and state != "present")]
    if wrong:
        raise DataError("\n".join(registry.how_to_mend(each, states[each]) for each in wrong))


def _coloured(state: State) -> str:
    return f"[{_COLOUR[state]}]{state}[/]"
