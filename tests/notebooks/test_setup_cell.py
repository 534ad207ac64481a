"""The first code cell of every notebook: nothing where labkit is there, an installation from the clone where it is not.

No network: the installation itself is pip's, and here a stand-in for it writes down what it was asked.
"""

import importlib.machinery
import importlib.util
import subprocess
import sys
import tomllib
from runpy import run_path
from types import SimpleNamespace

import pytest

from labkit import paths
from labkit.workbench.notebooks import SETUP

INSTALL = paths.notebooks_dir() / "install.py"


def test_where_labkit_is_there_it_leaves_no_name_and_starts_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was started"))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(SETUP, names)
    assert names.keys() == {"__builtins__", "importlib"}


@pytest.mark.parametrize("start", ["", "labkit/notebooks", "labkit/workspace"])
def test_where_it_is_missing_the_clone_is_looked_for_beside_and_around(monkeypatch, tmp_path, start):
    """Colab starts in the folder that holds the clone; Jupyter in the notebook's own."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for folder in ("labkit/notebooks", "labkit/workspace"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "labkit/notebooks/install.py").write_text(
        "from pathlib import Path\nif __name__ == '__main__':\n    Path(__file__).with_name('ran').touch()\n"
    )
    monkeypatch.chdir(tmp_path / start)
    exec(SETUP, {})
    assert (tmp_path / "labkit/notebooks/ran").exists()


def test_the_clone_s_own_folder_is_not_taken_for_the_package(monkeypatch, tmp_path):
    """Where `git clone` has put a folder labkit, Python finds a namespace of that name, and nothing to import in it."""
    (tmp_path / "labkit/labkit").mkdir(parents=True)
    (tmp_path / "labkit/labkit/__init__.py").touch()
    (tmp_path / "labkit/notebooks").mkdir()
    (tmp_path / "labkit/notebooks/install.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()"
    )
    beside = importlib.machinery.PathFinder.find_spec("labkit", [str(tmp_path)])
    assert beside is not None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: beside)
    monkeypatch.chdir(tmp_path)
    exec(SETUP, {})
    assert (tmp_path / "labkit/notebooks/ran").exists()
    inside = importlib.machinery.PathFinder.find_spec("labkit", [str(tmp_path / "labkit")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: inside)
    (tmp_path / "labkit/notebooks/ran").unlink()
    exec(SETUP, {})
    assert not (tmp_path / "labkit/notebooks/ran").exists()


def test_without_a_clone_it_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="git clone"):
        exec(SETUP, {})


def test_the_clone_is_installed_without_pins_and_can_be_imported_at_once(monkeypatch):
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda words: asked.append(words) or SimpleNamespace(returncode=0))
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    run_path(str(INSTALL), run_name="__main__")
    [words] = asked
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    root, _, extras = words[-1].removesuffix("]").partition("[")
    assert root == str(paths.root())
    known = tomllib.loads((paths.root() / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= known.keys()
    assert not [word for word in words if "constraint" in word]
    assert sys.path == [str(paths.root()), "elsewhere"]


def test_a_failure_of_pip_stops_the_notebook(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda words: SimpleNamespace(returncode=1))
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    with pytest.raises(RuntimeError, match="stands above"):
        run_path(str(INSTALL), run_name="__main__")
    assert sys.path == ["elsewhere"]
