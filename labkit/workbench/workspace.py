"""The reader's own copies of the notebooks: made on first use, never overwritten, not paired with a source file."""

import hashlib
import json
import shutil
from pathlib import Path

from labkit import paths
from labkit.errors import InputError
from labkit.files import write_atomically
from labkit.workbench import notebooks

ORIGINALS = ".originals.json"  # name to the hash of the original that a copy was made from
# jupytext takes the nearest settings; those of the repository would write answers into a .py beside the copy
UNPAIRED = 'formats = "ipynb"  # these are copies: nothing is written beside them\n'


def prepare() -> list[str]:
    """Copy what is not there yet; the names of copies whose original has changed since, in reading order."""
    folder = paths.workspace_dir()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "jupytext.toml", UNPAIRED.encode())
    for name in notebooks.names():
        if not (folder / f"{name}.ipynb").exists():
            _copy(name)
    hashes = _hashes()
    return [name for name in notebooks.names() if hashes.get(name) != _hash(_original(name))]


def fresh(name: str) -> Path | None:
    """A new copy of one notebook; the old one stays beside it with a number, and that place is returned.

    Raises:
        InputError: there is no such notebook.
    """
    if name not in notebooks.names():
        raise InputError(f"there is no notebook {name}; there are {', '.join(notebooks.names())}.")
    folder = paths.workspace_dir()
    copy, kept = folder / f"{name}.ipynb", None
    if copy.exists():
        number = next(n for n in range(1, 10_000) if not (folder / f"{name}.{n}.ipynb").exists())
        kept = copy.rename(folder / f"{name}.{number}.ipynb")
    folder.mkdir(parents=True, exist_ok=True)
    _copy(name)
    return kept


def _copy(name: str) -> None:
    """The copy is whole or not there at all."""
    folder, original = paths.workspace_dir(), _original(name)
    part = folder / f"{name}.part"
    shutil.copyfile(original, part)
    part.replace(folder / f"{name}.ipynb")
    write_atomically(folder / ORIGINALS, json.dumps(_hashes() | {name: _hash(original)}, indent=1).encode())


def _hashes() -> dict[str, str]:
    try:
        return dict(json.loads((paths.workspace_dir() / ORIGINALS).read_text()))
    except (OSError, ValueError, TypeError, RecursionError):  # no file, no JSON, or JSON of another kind
        return {}


def _original(name: str) -> Path:
    return paths.notebooks_dir() / f"{name}.ipynb"


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
