"""Notebooks from the outside: execute one with papermill, refresh the committed outputs."""

import asyncio
import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.errors import InputError, RunError

# Every kernel warns that it talks over TCP without encryption: true of any notebook, and nothing a reader can act on.
QUIET = ("--IPKernelApp.log_level=ERROR",)

# A guard against hanging: ten times what the slowest cell (a lesson's training) needs on a quiet machine.
CELL_SECONDS = 1800

# The first code cell of every notebook, tagged "setup" and folded: it makes a kernel without labkit, on Colab, have it.
SETUP = """\
# nothing to read: where labkit is missing (on Colab), this installs it from its clone
import importlib.util

if getattr(importlib.util.find_spec("labkit"), "origin", None) is None:  # the clone's folder alone is no package
    from pathlib import Path
    from runpy import run_path

    files = [*Path().glob("*/notebooks/install.py"), *Path("..").glob("notebooks/install.py")]
    if not files:
        raise RuntimeError("There is no clone of labkit here. Make one first, in a cell: !git clone ADDRESS")
    run_path(str(files[0].resolve()), run_name="__main__")"""


def execute(name: str, parameters: Mapping[str, Any], output: Path) -> Path:
    """Run `notebooks/<name>.ipynb` with papermill, headless, cells in order; the executed copy lands at `output`.

    The copy is saved after every cell: a run that dies leaves the notebook up to there.

    Raises:
        InputError: a parameter the notebook does not have.
        RunError: a cell failed or the kernel died; says where the partial notebook lies.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    source = _existing(f"{name}.ipynb")
    known = papermill.inspect_notebook(str(source))
    if unknown := parameters.keys() - known.keys():
        raise InputError(f"{source.name} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(known)}.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_symlink():
            output.unlink()  # papermill would write through it
        papermill.execute_notebook(
            str(source),
            str(output),
            dict(parameters),
            kernel_name="python3",
            cwd=str(source.parent),
            progress_bar=sys.stderr.isatty(),
            extra_arguments=list(QUIET),
        )
    except (papermill.PapermillExecutionError, DeadKernelError, asyncio.CancelledError) as error:
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise RunError(f"the notebook stopped: {last[0]}\nIts cells up to there: {output}") from error
    except OSError as error:
        raise RunError(
            f"cannot write {output}: {error.strerror or error}. Free space or fix the permission."
        ) from error
    return output


def refresh(name: str, timeout: int = CELL_SECONDS) -> Path:
    """Execute the pair `notebooks/<name>` in place: the .py is the source, the .ipynb gets its cells and fresh outputs.

    Cell ids are kept. Widget state (5 MB a figure), execution times and tool versions are left out.

    Raises:
        InputError: there is no such notebook.
        RunError: a cell failed; the committed outputs stay as they were.
    """
    import jupytext
    import nbformat
    from jupytext.combine import combine_inputs_with_outputs
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    text, executed = _existing(f"{name}.py"), paths.notebooks_dir() / f"{name}.ipynb"
    notebook = jupytext.read(text)
    if executed.exists():
        notebook = combine_inputs_with_outputs(notebook, nbformat.read(executed, as_version=4))
    notebook.metadata.pop("jupytext", None)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=list(QUIET),
        resources={"metadata": {"path": str(text.parent)}},
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise RunError(f"{name}: a cell failed, nothing is written.\n{error}") from error
    for key in ("widgets", "jupytext", "papermill", "language_info"):
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        for key in ("execution", "lines_to_next_cell"):
            cell.metadata.pop(key, None)
    nbformat.validate(notebook)
    beside = executed.with_suffix(".part")
    nbformat.write(notebook, beside)
    os.replace(beside, executed)
    return executed


def first_picture(name: str) -> tuple[bytes, str] | None:
    """The first PNG of the committed outputs, with its sentence for who cannot see it; None where there is none."""
    import nbformat

    notebook = nbformat.read(_existing(f"{name}.ipynb"), as_version=4)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "image/png" in output.get("data", {}):
            return base64.b64decode(output.data["image/png"]), output.metadata.get("image/png", {}).get("alt", "")
    return None


def names() -> list[str]:
    """The notebooks, by file name without ending, in reading order."""
    return sorted(path.stem for path in paths.notebooks_dir().glob("[0-9][0-9]_*.py"))


def _existing(file: str) -> Path:
    path = paths.notebooks_dir() / file
    if not path.exists():
        raise InputError(f"there is no notebook {file}; there are {', '.join(names()) or 'none'}.")
    return path
