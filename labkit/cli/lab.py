"""`labkit lab`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from labkit import paths
from labkit.cli.output import console, short
from labkit.errors import InputError
from labkit.workbench import notebooks, workspace

START = "00_start_here"


def lab(
    notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="the notebook to open")] = START,
    fresh: Annotated[bool, typer.Option("--fresh", help="a new copy; the old one stays beside it")] = False,
    edit: Annotated[bool, typer.Option("--edit", help="open the originals, paired with their .py")] = False,
) -> None:
    """Open JupyterLab on your own copies of the notebooks, in `workspace/`; they are never overwritten."""
    if edit and fresh:
        raise InputError("--edit opens the originals, --fresh makes a copy anew: give one of them.")
    name = Path(notebook).stem
    known = (paths.notebooks_dir(), *([] if edit else [paths.workspace_dir()]))
    if not any((folder / f"{name}.ipynb").exists() for folder in known):
        raise InputError(f"there is no notebook {name}; there are {', '.join(notebooks.names())}.")
    folder = paths.notebooks_dir() if edit else _copies(name, fresh)
    raise typer.Exit(subprocess.run(command(folder / f"{name}.ipynb", folder), env=environment()).returncode)


def _copies(name: str, fresh: bool) -> Path:
    """The workspace, with what a reader must know about it said."""
    folder = paths.workspace_dir()
    if fresh and (kept := workspace.fresh(name)):
        console.print(f"A new copy of {name}; the old one is {short(kept)}.", soft_wrap=True)
    outdated = workspace.prepare()
    console.print(f"Your copies are in {short(folder)}. The originals: labkit lab --edit", soft_wrap=True)
    for each in outdated:
        console.print(
            f"{each} has changed since your copy was made. Your copy stays as it is; a new one beside it: "
            f"labkit lab --fresh {each}",
            soft_wrap=True,
        )
    return folder


def command(file: Path, folder: Path) -> list[str]:
    """JupyterLab on one notebook. Originals are opened from the repository's root, whose settings pair them."""
    root = paths.root() if folder == paths.notebooks_dir() else folder
    words = [sys.executable, "-m", "jupyterlab", str(file.resolve()), f"--ServerApp.root_dir={root.resolve()}"]
    if hasattr(os, "getuid") and os.getuid() == 0:
        console.print("You are root, as in a container: JupyterLab is started with --allow-root.", soft_wrap=True)
        words.append("--allow-root")
    return words


def environment() -> dict[str, str]:
    """PATH begins where TensorBoard's magic finds its program."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
