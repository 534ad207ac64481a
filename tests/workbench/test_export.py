"""Export: a run of a small room that exists in this test only becomes a folder that a stranger can load."""

import dataclasses
import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
import toy_paper
import yaml
from huggingface_hub import ModelCard
from toy_paper import ToyConfig

from labkit import cli, papers
from labkit.cli.app import join_pairs
from labkit.cli.options import asked
from labkit.errors import InputError, RunError
from labkit.files import write_folder
from labkit.workbench import export
from labkit.workbench.runs import Run

ROOM = "from {room}.experiment.export import load\n"
EXPORT = """
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from torch import nn

from labkit import tensor_files
from toy_paper import build_model


class Header(BaseModel, frozen=True, extra="forbid", strict=True):
    format: Literal["a toy"] = "a toy"
    widths: tuple[int, ...]


def arms(config, run):
    return tuple(name for name in ("noisy", "plain") if (run.directory / name / "weights.safetensors").exists())


def export(config, run, arm, directory):
    model = build_model(config)
    run.part(arm).read_weights(model)
    tensor_files.write(directory / "model.safetensors", model.state_dict(), Header(widths=config.widths))


def load(path):
    path = Path(path)
    tensors, header = tensor_files.read(path / "model.safetensors" if path.is_dir() else path, Header)
    from toy_paper import ToyConfig

    model = build_model(ToyConfig(widths=header.widths))
    model.load_state_dict(tensors)
    return model.eval()
"""


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """The toy with a room on disk, the only paper there is; records lie in the test's folder."""
    room = f"room_{abs(hash(str(tmp_path))) % 10**8}"
    (tmp_path / room / "experiment").mkdir(parents=True)
    (tmp_path / room / "__init__.py").write_text(ROOM.format(room=room))
    (tmp_path / room / "experiment" / "__init__.py").touch()
    (tmp_path / room / "experiment" / "export.py").write_text(EXPORT)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    paper = dataclasses.replace(toy_paper.PAPER, room=room, arxiv="1234.56789")
    monkeypatch.setattr(papers, "names", lambda: [room])
    monkeypatch.setattr(papers, "load", lambda slug: paper)
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path / "records"))
    yield paper
    for name in [name for name in sys.modules if name.partition(".")[0] == room]:
        del sys.modules[name]


CONFIG = ToyConfig(steps=3, widths=(4,), note="say 'x y'", seed=5)


@pytest.fixture
def run(paper, tmp_path) -> Run:
    run = Run.open(tmp_path / "run", CONFIG)
    paper.run(CONFIG, run)
    return run


def labkit(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return int(end.value.code or 0)


def test_the_folder_loads_with_the_card_s_own_lines_and_is_what_was_trained(paper, run, tmp_path, monkeypatch, capsys):
    assert labkit("export", run.directory, tmp_path / "share" / "mine") == 0
    assert "noisy" in capsys.readouterr().out
    folder = tmp_path / "share" / "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    lines = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len([line for line in lines.splitlines() if line]) <= 3
    monkeypatch.chdir(tmp_path / "share")
    names: dict = {}
    exec(lines, names)
    wanted = toy_paper.build_model(CONFIG)
    run.part("noisy").read_weights(wanted)
    torch.testing.assert_close(names["model"].state_dict(), wanted.state_dict(), rtol=0, atol=0)


def test_another_arm_is_exported_on_demand_and_others_are_refused_by_name(run, tmp_path, capsys):
    assert labkit("export", run.directory, tmp_path / "out", "--arm", "plain") == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["arm"] == "plain"
    assert labkit("export", run.directory, tmp_path / "more", "--arm", "fancy") == 2
    assert "--arm must be one of noisy, plain; got 'fancy'" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def test_the_card_is_one_that_the_hub_reads_and_says_what_the_ledger_says(paper, run, tmp_path):
    folder = tmp_path / "out"
    assert export.export(paper, CONFIG, run, folder) == "noisy"
    text = (folder / "README.md").read_text()
    about = ModelCard(text).data.to_dict()
    assert about == {
        "license": "apache-2.0",
        "library_name": "labkit",
        "tags": ["labkit", paper.slug, "arxiv:1234.56789"],
    }
    assert yaml.safe_load(text.split("---")[1]) == about
    for verdict in (*paper.verdicts(run.result, "smoke")[:1], *paper.verdicts()):
        assert verdict.sentence in text
        assert f"{verdict.effect} |" in text
    assert str(tmp_path) not in text + (folder / "config.json").read_text()
    kept = json.loads((folder / "config.json").read_text())
    assert kept["config"] == json.loads(json.dumps(run.identity))
    assert (kept["library"], kept["paper"], kept["scale"]) == ("labkit", paper.slug, "smoke")


def test_the_card_s_command_makes_the_run(paper):
    """Catches: a nested or quoted value that the command line reads as another one."""
    line = export.command(paper, CONFIG)
    assert line.startswith(f"labkit train {paper.slug} --scale smoke -p ")
    pairs = [word for word in join_pairs(shlex.split(line)[5:]) if word != "-p"]
    assert asked(paper.slug, "smoke", pairs, None, None)[1] == CONFIG


def test_nothing_is_written_over_and_nothing_is_left_of_a_failure(paper, run, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("mine")
    assert labkit("export", run.directory, tmp_path / "full") == 2
    assert "is not empty" in capsys.readouterr().err
    assert labkit("export", run.directory, tmp_path / "full" / "letter") == 2
    assert labkit("export", run.directory, tmp_path / "full" / "letter" / "below") == 1
    assert (tmp_path / "full" / "letter").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter"]
    (tmp_path / "empty").mkdir()
    assert labkit("export", run.directory, tmp_path / "empty") == 0
    monkeypatch.setattr(export, "card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.export(paper, CONFIG, run, tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_cannot_be_exported_is_refused_by_name(paper, run, tmp_path, capsys):
    def refusal(*words: object) -> str:
        assert labkit("export", *words, tmp_path / "out") == 2
        assert not (tmp_path / "out").exists()
        return " ".join(capsys.readouterr().err.split())

    unfinished = Run.open(tmp_path / "unfinished", CONFIG)
    assert "is not finished" in refusal(unfinished.directory)
    assert "holds no run" in refusal(tmp_path / "nowhere")
    assert "is the part 'plain' of a run" in refusal(run.directory / "plain")
    assert "no NUL" in refusal("a\0b")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text('{"steps": 3}')
    assert f"fits none of {paper.slug}: another version" in refusal(tmp_path / "old")
    for name in ("noisy", "plain"):
        (run.directory / name / "weights.safetensors").unlink()
    assert "holds nothing that" in refusal(run.directory)
    (run.directory / "result.json").write_text("{}")
    assert labkit("export", run.directory, tmp_path / "out") == 1
    assert "result.json is damaged" in capsys.readouterr().err


def test_a_folder_that_does_not_load_is_not_handed_out(paper, run, tmp_path, monkeypatch):
    path = run.directory / "noisy" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match="damaged"):
        export.export(paper, CONFIG, run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_room_without_an_export_is_refused_by_name(run, tmp_path):
    with pytest.raises(InputError, match=r"toy has nothing to export: its room lacks experiment/export\.py"):
        export.export(toy_paper.PAPER, CONFIG, run, tmp_path / "out")


def test_a_folder_is_there_with_everything_or_not_at_all(tmp_path):
    def half(folder: Path) -> None:
        (folder / "a").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "deep" / "target", half)
    assert list((tmp_path / "deep").iterdir()) == []
