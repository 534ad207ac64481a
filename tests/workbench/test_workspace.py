"""A reader's copies are made once, never overwritten and never written back."""

import json
import shutil

import nbformat
import pytest

from labkit import paths
from labkit.errors import InputError
from labkit.workbench import workspace


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A repository with two notebooks, and the place of the copies inside of it."""
    originals, copies = tmp_path / "notebooks", tmp_path / "workspace"
    originals.mkdir()
    for name in ("00_start_here", "01_toy"):
        (originals / f"{name}.py").write_text("# %%\n1\n")
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), originals / f"{name}.ipynb")
    shutil.copy(paths.root() / "pyproject.toml", tmp_path)
    monkeypatch.setattr(paths, "notebooks_dir", lambda: originals)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(copies))
    return originals, copies


def test_copies_are_made_once_and_an_answer_survives_a_new_original(folders):
    originals, copies = folders
    assert workspace.prepare() == []
    assert (copies / "01_toy.ipynb").read_bytes() == (originals / "01_toy.ipynb").read_bytes()
    (copies / "01_toy.ipynb").write_text("my answer")
    assert workspace.prepare() == []
    (originals / "01_toy.ipynb").write_text("a new original")
    assert workspace.prepare() == ["01_toy"]
    assert (copies / "01_toy.ipynb").read_text() == "my answer"


def test_a_fresh_copy_keeps_every_old_one_with_a_number(folders):
    originals, copies = folders
    assert workspace.fresh("01_toy") is None
    for number in (1, 2):
        (copies / "01_toy.ipynb").write_text(f"answer {number}")
        assert workspace.fresh("01_toy") == copies / f"01_toy.{number}.ipynb"
    assert [(copies / f"01_toy.{n}.ipynb").read_text() for n in (1, 2)] == ["answer 1", "answer 2"]
    assert (copies / "01_toy.ipynb").read_bytes() == (originals / "01_toy.ipynb").read_bytes()
    assert workspace.prepare() == []
    with pytest.raises(InputError, match="no notebook 77_none; there are 00_start_here, 01_toy"):
        workspace.fresh("77_none")


@pytest.mark.parametrize("content", ["{", "3"])
def test_a_damaged_list_of_origins_costs_a_notice_and_no_copy(folders, content):
    _, copies = folders
    workspace.prepare()
    (copies / "01_toy.ipynb").write_text("my answer")
    (copies / workspace.ORIGINALS).write_text(content)
    assert workspace.prepare() == ["00_start_here", "01_toy"]
    assert (copies / "01_toy.ipynb").read_text() == "my answer"


@pytest.mark.parametrize("inside", [True, False])
def test_saving_a_copy_in_jupyterlab_writes_no_source_beside_it(folders, inside):
    """jupytext's own contents manager, with the copies' folder or the whole repository as the server's root."""
    from jupytext.sync_contentsmanager import TextFileContentsManager

    originals, copies = folders
    workspace.prepare()
    root, prefix = (copies, "") if inside else (copies.parent, "workspace/")
    manager = TextFileContentsManager(root_dir=str(root))
    model = manager.get(f"{prefix}01_toy.ipynb")
    model["content"]["cells"][0]["source"] = "my_answer = 42"
    manager.save(model, f"{prefix}01_toy.ipynb")
    assert json.loads((copies / "01_toy.ipynb").read_text())["cells"][0]["source"] in (
        "my_answer = 42",
        ["my_answer = 42"],
    )
    assert list(copies.glob("*.py")) == []
    assert "my_answer" not in (originals / "01_toy.py").read_text()
