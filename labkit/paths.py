"""Folders of data, runs, records and notebooks. An environment variable moves each; it is read at every call."""

import os
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent


def root() -> Path:
    """The repository's folder; the current folder when labkit was installed without its checkout."""
    return _CHECKOUT if (_CHECKOUT / "pyproject.toml").exists() else Path.cwd()


def data_dir() -> Path:
    """Datasets, one folder each: $LABKIT_DATA, or `data/`."""
    return Path(os.environ.get("LABKIT_DATA") or root() / "data").expanduser()


def runs_dir() -> Path:
    """Run directories: $LABKIT_RUNS, or `runs/`."""
    return Path(os.environ.get("LABKIT_RUNS") or root() / "runs").expanduser()


def records_dir() -> Path:
    """Recorded runs (small JSON files, committed): $LABKIT_RECORDS, or `data/records/`."""
    return Path(os.environ.get("LABKIT_RECORDS") or root() / "data" / "records").expanduser()


def notebooks_dir() -> Path:
    return root() / "notebooks"


def workspace_dir() -> Path:
    """The reader's copies of the notebooks: $LABKIT_WORKSPACE, or `workspace/`."""
    return Path(os.environ.get("LABKIT_WORKSPACE") or root() / "workspace").expanduser()
