"""`labkit lab`."""

import os
import subprocess
import sys
from pathlib import Path

import typer

from labkit import paths


def lab() -> None:
    """Open JupyterLab on the start notebook."""
    start = paths.notebooks_dir() / "00_start_here.ipynb"
    bin_folder = str(Path(sys.executable).parent)  # where TensorBoard's magic looks for its program
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "jupyterlab", str(start), f"--ServerApp.root_dir={paths.root()}"]
    raise typer.Exit(subprocess.run(command, env=environment).returncode)
