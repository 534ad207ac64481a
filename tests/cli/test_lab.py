"""`labkit lab` opens a reader's copies, `--edit` the originals; nobody has to know about root's option."""

import os
import subprocess
from types import SimpleNamespace

import pytest

from labkit import cli, paths

COPIES = ("00_start_here", "01_qnet")


@pytest.fixture
def lab(tmp_path, monkeypatch, capsys):
    """`labkit lab <words>` without JupyterLab: exit code, the command that would start it, what was printed."""
    commands: list[list[str]] = []

    def pretend(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", pretend)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(tmp_path / "workspace"))

    def call(*words: str) -> tuple[int, list[str], str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["lab", *words])
        captured = capsys.readouterr()
        return int(end.value.code or 0), (commands[-1] if commands else []), captured.out + captured.err

    return call


def test_the_start_notebook_opens_as_a_copy_among_all_others(lab, tmp_path):
    code, command, reported = lab()
    folder = tmp_path / "workspace"
    assert code == 0
    assert str(folder / "00_start_here.ipynb") in command
    assert f"--ServerApp.root_dir={folder}" in command
    assert all((folder / f"{name}.ipynb").exists() for name in COPIES)
    assert "changed" not in reported


def test_a_fresh_copy_says_where_the_old_one_is(lab, tmp_path):
    lab()
    code, command, reported = lab("--fresh", "01_qnet")
    assert (code, str(tmp_path / "workspace" / "01_qnet.ipynb") in command) == (0, True)
    assert "01_qnet.1.ipynb" in reported


def test_an_update_of_the_original_is_told_with_the_way_to_it(lab, tmp_path):
    lab()
    (tmp_path / "workspace" / ".originals.json").write_text("{}")
    _, _, reported = lab()
    assert "labkit lab --fresh 01_qnet" in reported


def test_edit_opens_the_originals(lab, tmp_path):
    _, command, _ = lab("--edit")
    assert str(paths.notebooks_dir() / "00_start_here.ipynb") in command
    assert f"--ServerApp.root_dir={paths.root()}" in command
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize(("uid", "said"), [(0, True), (1000, False)])
def test_root_in_a_container_needs_no_option(lab, monkeypatch, uid, said):
    monkeypatch.setattr(os, "getuid", lambda: uid, raising=False)
    _, command, reported = lab()
    assert ("--allow-root" in command) == said
    assert ("--allow-root" in reported) == said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--edit", "--fresh"), "give one of them"),
        (("77_none",), "no notebook 77_none"),
        (("--fresh", "77_none"), "no notebook 77_none; there are 00_start_here"),
    ],
)
def test_what_cannot_be_opened_is_refused(lab, words, message):
    code, command, reported = lab(*words)
    assert (code, command) == (2, [])
    assert not paths.workspace_dir().exists(), "nothing was opened, so nothing is made"
    assert message in reported.replace("\n", " ")
