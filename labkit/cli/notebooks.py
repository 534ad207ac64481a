"""`labkit notebooks`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from labkit.cli.output import console
from labkit.workbench import notebooks


def refresh(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAMES", help="notebooks, as NN_slug; default: all")
    ] = None,
) -> None:
    """Execute notebooks in place and write the committed outputs; the .py of a pair is the source."""
    os.environ["LABKIT_PROGRESS"] = "0"
    for name in names or notebooks.names():
        console.print(f"{name} ... ", end="")
        written = notebooks.refresh(Path(name).stem)
        console.print(f"{written.stat().st_size / 1000:.0f} kB")
