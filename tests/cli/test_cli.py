"""The command line: what it prints, what it leaves on disk, and with which code it ends."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy_paper
import typer
from toy_paper import PAPER, ToyConfig

from labkit import cli, papers, paths
from labkit.cli import output
from labkit.cli.app import app, join_pairs
from labkit.cli.directories import way_on
from labkit.errors import DataError, RunError
from labkit.workbench import notebooks
from labkit.workbench.claims import Verdict
from labkit.workbench.runs import Run


@pytest.fixture
def here(toy, monkeypatch, capfd):
    """`labkit <words>` in this process, on the toy: exit code, stdout, stderr, those of its kernels included."""
    monkeypatch.setattr(output.console, "_width", 300)

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        captured = capfd.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("train", "toi"), ["no paper 'toi'", "toy"]),
        (("train", "toy", "--scale", "huge"), ["scale must be one of smoke, lesson, gpu, full", "'huge'"]),
        (("train", "toy", "-p", "step", "3"), ["no field 'step'", "did you mean steps"]),
        (("train", "toy", "-p", "steps", "many"), ["steps", "optimiser steps", "integer", "'many'"]),
        (("train", "toy", "-p", "steps", "-4"), ["steps", "greater than or equal to 0", "-4"]),
        (("train", "toy", "-p", "loss", "hinge"), ["loss", "'logistic' or 'ridge'", "'hinge'"]),
        (("train", "toy", "-p", "shuffle_labels", "perhaps"), ["shuffle_labels", "boolean", "'perhaps'"]),
        (("train", "toy", "-p", "steps"), ["-p takes a key and a value", "'steps'"]),
        (("train", "toy", "-p"), ["-p takes a key and a value"]),
        (("train", "toy", "--seed", "-1"), ["seed", "greater than or equal to 0", "-1"]),
        (("train", "toy", "--device", "tpu"), ["device", "auto, cpu, cuda", "'tpu'"]),
        (("train", "toy", "--device", "cuda:99"), ["99" if torch.cuda.is_available() else "--device cpu"]),
        (("train", "toy", "--resume"), ["no unfinished run of toy"]),
        (("train", "toy", "--resume", "--run-dir", "nowhere"), ["nowhere holds no run", "--resume"]),
        (("run", "toy", "-p", "steps", "many"), ["steps", "'many'"]),
        (("record", "toy", "--seeds", "0,x"), ["--seeds", "'0,x'"]),
        (("record", "toy", "--seeds", "1,1"), ["--seeds", "twice"]),
        (("record", "toy", "--label", "../x"), ["--label", "'../x'"]),
        (("claims", "toi"), ["no paper 'toi'"]),
        (("train", "toy", "-p", "devices", "1000000", "--device", "cpu"), ["devices = 1,000,000", "-p devices"]),
        (("train", "toy", "--run-dir", "a\0b"), ["--run-dir", "no NUL", "'a\\x00b'"]),
        (("train", "toy", "--run-dir", "a" * 300), ["--run-dir", "255 bytes"]),
        (("run", "toy", "--run-dir", "a\0b"), ["--run-dir", "no NUL"]),
        (("record", "toy", "--run-dir", "a\0b"), ["--run-dir", "no NUL"]),
        (("gpu", "toy", "--out", "a\0b"), ["--out", "null byte"]),
        (("gpu", "toy", "--minutes", "nan"), ["--minutes must be above 0"]),
        (("bench", "toy"), ["no benchmark for 'toy'"]),
        (("bench", "toy", "--device", "evil"), ["--device must be auto, cpu, cuda or cuda:N; got 'evil'"]),
        (("bench", "toy", "--device", "cuda:99999999999"), ["--device must be auto"]),
        (("bench", "toy", "--seconds", "nan"), ["--seconds must be above 0"]),
        (("gpu", "toi"), ["no paper 'toi'"]),
        (("gpu", "toy", "--minutes", "0"), ["--minutes must be above 0"]),
        (("train",), ["Missing argument"]),
        (("train", "toy", "--sead", "3"), ["No such option"]),
        (("notebooks", "77_none"), ["no notebook 77_none.py"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_told_before_anything_starts(here, tmp_path, monkeypatch, words, parts):
    monkeypatch.chdir(tmp_path)
    code, _, message = here(*words)
    assert code == 2
    assert "Traceback" not in message
    for part in parts:
        assert part in " ".join(message.split())
    assert tree(tmp_path) == []


@pytest.mark.slow
def test_training_ends_with_the_ledger_and_code_zero(here, tmp_path):
    code, printed, message = here("train", "toy", "--scale", "smoke", "-p", "steps", "2", "-p", "learning_rate=1e-3")
    assert (code, message) == (0, "")
    assert " learns " in printed
    run = json.loads((tmp_path / "runs/toy/smoke-001/config.json").read_text())
    assert (run["steps"], run["learning_rate"]) == (2, 0.001)
    assert (tmp_path / "runs/toy/smoke-001/result.json").exists()


def test_ctrl_c_ends_in_one_sentence(here, tmp_path, monkeypatch):
    def press(step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(toy_paper, "on_step", press)
    code, _, message = here("train", "toy", "--scale", "smoke")
    assert (code, message) == (1, "labkit: stopped. What is saved stays; go on with --resume.\n")


def test_a_run_that_fails_says_how_to_go_on(here, tmp_path, stop_at):
    """Here for want of a whole checkpoint; the line can be pasted once the cause is mended."""
    folder = tmp_path / "run"
    stop_at(folder, 18)
    (folder / "plain" / "checkpoint.pt").write_bytes(b"rubbish")
    words = ("train", "toy", "--scale", "smoke", "--run-dir", str(folder), "--resume")
    code, _, message = here(*words)
    assert code == 1
    assert message.startswith(f"labkit: '{folder}/plain/checkpoint.pt' is damaged")
    assert message.splitlines()[-1] == f"Go on with: labkit {' '.join(words)}"


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        (["-p", "a", "1"], ["-p", "a=1"]),
        (["-p", "a=1"], ["-p", "a=1"]),
        (["-p", "a", "-1", "--seed", "3"], ["-p", "a=-1", "--seed", "3"]),
        (["-p", "note", "x=y"], ["-p", "note=x=y"]),
        (["-p", "note", ""], ["-p", "note="]),
        (["-p", "a"], ["-p", "a"]),
        (["--seed", "3"], ["--seed", "3"]),
    ],
)
def test_a_key_and_a_value_are_two_words_or_one(words, pairs):
    assert join_pairs(words) == pairs


def test_an_existing_run_is_gone_on_with_only_when_asked(here, tmp_path):
    words = ("train", "toy", "--scale", "smoke", "-p", "steps", "2", "--run-dir", str(tmp_path / "run"))
    assert here(*words)[0] == 0
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("config.json", "result.json", "timing.json")}
    code, _, message = here(*words)
    assert (code, "holds a run already" in message, "--resume" in message) == (2, True, True)
    code, printed, _ = here(*words, "--resume")  # it is finished: shown, not trained again
    assert (code, " learns " in printed) == (0, True)
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}
    code, _, message = here(*words[:4], "--run-dir", str(tmp_path / "run"), "--resume")
    assert (code, "steps = 2 there, 40 here" in message) == (2, True)


def test_resume_alone_finds_the_latest_unfinished_run_of_this_config(here, tmp_path, stop_at):
    stop_at(tmp_path / "runs" / "toy" / "smoke-001", 18)
    Run.open(tmp_path / "runs" / "toy" / "smoke-002", ToyConfig(steps=3))
    assert here("train", "toy", "--scale", "smoke", "--resume")[0] == 0
    assert (tmp_path / "runs/toy/smoke-001/result.json").exists()
    assert not (tmp_path / "runs/toy/smoke-002/result.json").exists()
    assert here("train", "toy", "--scale", "smoke", "--resume")[0] == 2  # there is none left


def test_claims_as_json(here, tmp_path):
    keys = {field.name for field in dataclasses.fields(Verdict)}  # interval, seeds, unit and note are not left out
    code, printed, _ = here("claims", "--json")
    rows = json.loads(printed)
    assert code == 0
    assert [row["key"] for row in rows] == ["learns", "noise-helps"]
    assert all(row.keys() == keys for row in rows)
    assert (rows[0]["measured"], rows[0]["holds"], rows[0]["source"]) == (None, None, None)
    assert here("record", "toy", "--scale", "smoke", "--seeds", "0,1", "-p", "steps", "30")[0] == 0
    row = json.loads(here("claims", "toy", "--json")[1])[0]
    assert row["source"] == "toy/smoke-cpu.json"
    assert isinstance(row["holds"], bool)
    assert isinstance(row["measured"], float)
    assert row["seeds"] == 2
    assert row["low"] <= row["measured"] <= row["high"]
    _, printed, _ = here("claims")
    assert "noise-helps" in printed
    assert "1 not measured" in printed


def test_the_ledger_fits_80_columns_and_the_long_one_has_the_sentences(here, monkeypatch):
    monkeypatch.setattr(output.console, "_width", 80)
    assert here("record", "toy", "--scale", "smoke", "--seeds", "0,1", "-p", "steps", "30")[0] == 0
    _, short, _ = here("claims", "toy")
    assert max(map(len, short.splitlines())) <= 80
    line = next(line for line in short.splitlines() if " learns " in line)
    sentence = next(claim.sentence for claim in PAPER.claims if claim.key == "learns")
    assert line.startswith(("✓", "✗"))
    assert "≥" in line
    assert sentence not in short
    monkeypatch.setattr(output.console, "_width", 400)
    assert "[in our own words]" in sentence
    assert sentence in here("claims", "toy", "--long")[1]  # what is in brackets is not taken for markup


def test_the_ledger_as_markdown_and_as_a_page(here):
    assert here("record", "toy", "--scale", "smoke", "--seeds", "0,1", "-p", "steps", "30")[0] == 0
    markdown, page = here("claims", "--markdown")[1], here("claims", "--html")[1]
    assert markdown.startswith(f"## {PAPER.title}\n\n| |")
    assert page.startswith("<!doctype html>")
    assert page.count("<tr>") == 1 + len(PAPER.claims)
    code, _, message = here("claims", "--json", "--long")
    assert (code, "give one of them" in message) == (2, True)
    code, _, message = here("claims", "--scale", "gpu")
    assert (code, "need --run" in message) == (2, True)


def test_claims_measured_anew_leave_the_records_alone(here, tmp_path):
    assert here("record", "toy", "--scale", "smoke", "--seeds", "0,1", "-p", "steps", "30")[0] == 0
    before = (tmp_path / "records" / "toy" / "smoke-cpu.json").read_bytes()
    words = ("claims", "toy", "--run", "--scale", "smoke", "--seeds", "3", "-p", "steps", "40", "--json")
    code, printed, _ = here(*words)
    rows = json.loads(printed)
    assert (code, rows[0]["source"], rows[0]["seeds"]) == (0, "runs at smoke", 1)
    assert (tmp_path / "runs" / "toy" / "claims-smoke" / "seed-3" / "result.json").exists()
    assert (tmp_path / "records" / "toy" / "smoke-cpu.json").read_bytes() == before


def test_a_record_of_other_code_is_marked(here, tmp_path):
    assert here("record", "toy", "--scale", "smoke", "--seeds", "0,1", "-p", "steps", "30")[0] == 0
    path = tmp_path / "records" / "toy" / "smoke-cpu.json"
    record = json.loads(path.read_text())

    def stale() -> bool:
        return json.loads(here("claims", "toy", "--json")[1])[0]["stale"]

    assert not stale()
    path.write_text(json.dumps({**record, "code": "of another day"}))
    assert stale()
    assert "✓* learns" in here("claims", "toy")[1]
    assert "changed since" in here("claims", "toy", "--long")[1]
    assert "changed since" in here("claims", "toy", "--markdown")[1]
    path.write_text(json.dumps({**record, "code": ""}))  # from before there were fingerprints: nothing is known
    assert not stale()


def test_a_record_of_runs_that_were_finished_before_names_the_code_that_made_them(here, tmp_path, monkeypatch):
    """Catches: a record that names today's code for runs of yesterday's, which nothing would mark."""
    words = ("record", "toy", "--scale", "smoke", "-p", "steps", "30", "--seeds")
    assert here(*words, "0")[0] == 0
    monkeypatch.setattr(toy_paper.Toy, "code", "of tomorrow")
    assert here(*words, "0,1")[0] == 0
    record = json.loads((tmp_path / "records" / "toy" / "smoke-cpu.json").read_text())
    assert record["code"] == "of the toy+of tomorrow"
    assert json.loads(here("claims", "toy", "--json")[1])[0]["stale"]


def test_a_stopped_recording_goes_on_where_it_was(here, tmp_path, stop_at):
    root = tmp_path / "runs" / "toy" / "record-smoke"
    stop_at(root / "seed-0", 60)
    code, _, _ = here("record", "toy", "--scale", "smoke", "--seeds", "0", "--device", "cpu")
    assert code == 0
    record = json.loads((tmp_path / "records" / "toy" / "smoke-cpu.json").read_text())
    assert record["command"] == "labkit record toy --scale smoke --seeds 0 --device cpu"
    assert record["device"] == "cpu"
    assert here("record", "toy", "--scale", "smoke", "--seeds", "0,1", "--label", "two")[0] == 0
    assert (tmp_path / "records" / "toy" / "smoke-cpu-two.json").exists()


def test_bench_as_json(here, tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "toy.py").write_text(
        "from labkit.workbench.benchmark import BenchRow\n"
        "def rows(device, seconds):\n"
        "    yield BenchRow('add', 'ms', 1.0, seconds, 'a peer')\n"
        "    yield BenchRow('rate', 'images/s', 300.0, 100.0, 'another', lower_is_better=False)\n"
    )
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    code, printed, _ = here("bench", "toy", "--json", "--device", "cpu", "--seconds", "4")
    assert code == 0
    rows = json.loads(printed)
    assert rows[0] == {
        "paper": "toy", "workload": "add", "unit": "ms", "ours": 1.0, "peer": 4.0, "peer_name": "a peer", "ratio": 4.0,
        "device": "cpu",
    }  # fmt: skip
    assert rows[1]["ratio"] == 3.0
    assert "4.00" in here("bench", "--device", "cpu", "--seconds", "4")[1]
    monkeypatch.setattr(paths, "records_dir", lambda: tmp_path / "records")
    assert here("bench", "toy", "--device", "cpu", "--seconds", "4", "--record", "2")[0] == 0
    written = json.loads((tmp_path / "records" / "toy" / "bench-cpu.json").read_text())
    assert written["command"] == "labkit bench toy --record 2 --seconds 4 --device cpu"
    assert [result["rows"][0]["ratio"] for result in written["results"]] == [4.0, 4.0]
    assert written["results"][0]["device"] == "cpu"


def test_list_shows_how_the_claims_stand(here):
    code, printed, _ = here("list")
    assert code == 0
    assert "Toys Learn" in printed
    assert "0 hold, 0 do not, 2 not measured" in printed


@pytest.mark.parametrize(
    ("held", "failed", "words"),
    [
        (0, 0, "0 hold, 0 do not, 1 not measured"),
        (1, 0, "1 holds, 0 do not, 1 not measured"),
        (0, 1, "0 hold, 1 does not, 1 not measured"),
        (1, 1, "1 holds, 1 does not, 1 not measured"),
        (9, 2, "9 hold, 2 do not, 1 not measured"),
    ],
)
def test_a_tally_is_a_sentence_whatever_it_counts(held, failed, words):
    outcomes = [True] * held + [False] * failed + [None]
    assert output.tally(SimpleNamespace(holds=outcome) for outcome in outcomes) == words


def test_errors_of_ours_leave_with_their_own_code(here, monkeypatch):
    def fail(slug: str):
        raise DataError("dataset 'x' is missing. Get it: labkit data get x")

    monkeypatch.setattr(papers, "load", fail)
    assert here("claims", "toy") == (2, "", "labkit: dataset 'x' is missing. Get it: labkit data get x\n")


def test_the_line_to_go_on_with_can_be_pasted(tmp_path):
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "config.json").touch()
    given = ("train", "toy", "smoke", ["note=x y", "steps=3"], 4, "cpu")
    with pytest.raises(RunError) as failure, way_on(*given, tmp_path / "a run"):
        raise RunError("no space")
    assert str(failure.value) == (
        "no space\nGo on with: labkit train toy --scale smoke -p note 'x y' -p steps 3 --seed 4 --device cpu "
        f"--run-dir '{tmp_path}/a run' --resume"
    )
    with pytest.raises(RunError, match=r"^no space$"), way_on(*given, tmp_path):
        raise RunError("no space")


@pytest.mark.slow
def test_what_only_looks_imports_no_torch(monkeypatch):
    """Nobody waits for what a command does not need; and the doctor must be able to say that torch is broken."""
    commands = ["--help", "data list", "list", "claims", "doctor"]
    code = (
        "import sys; from labkit.cli import main\n"
        "heavy = 'torch sklearn matplotlib plotly IPython nbformat jupytext papermill tensorboard cv2 transformers'\n"
        "for words in sys.argv[1:]:\n"
        "    try: main(words.split())\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        "    print('loaded by', words, [name for name in heavy.split() if name in sys.modules])"
    )
    monkeypatch.setenv("PYTHONPATH", str(paths.root()))
    call = subprocess.run([sys.executable, "-c", code, *commands], capture_output=True, text=True)
    ends = re.findall("^loaded by .*", call.stdout, re.MULTILINE)
    assert ends == [f"loaded by {words} []" for words in commands], call.stdout + call.stderr


@pytest.mark.parametrize(("wished", "policy"), [("", "passive"), ("active", "active")])
def test_threads_that_wait_sleep_unless_something_else_is_wished_for(here, monkeypatch, wished, policy):
    monkeypatch.setenv("OMP_WAIT_POLICY", wished)  # and put back at the end
    if not wished:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    here("list")
    assert os.environ["OMP_WAIT_POLICY"] == policy


def test_it_runs_from_any_folder_as_a_module(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(paths.root())}
    call = subprocess.run(
        [sys.executable, "-m", "labkit", "--help"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert call.returncode == 0
    files = {path.stem for path in (paths.root() / "labkit" / "cli").glob("*.py")}
    for command in files - {"__init__", "app", "directories", "options", "output", "worker"}:  # one file per command
        assert command in call.stdout
    assert tree(tmp_path) == []


# -- a notebook under papermill ---------------------------------------------------------------------------------------

NOTEBOOK = {
    "parameters": "scale: str = 'lesson'\nseed: int = 0\nrun_dir: str = ''\noverrides: dict = {}",
    "set up": "import os, signal, sys\nsys.path[:0] = ['TESTS', 'ROOT']\nimport toy_paper\nPAPER = toy_paper.PAPER\n"
    "config = PAPER.config(scale, seed=seed, **overrides)\nprint('steps', config.steps)",
    "fault": "if config.note and not os.path.exists(config.note):\n"
    "    open(config.note, 'w').close()\n"
    "    toy_paper.on_step = lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == 18 else None",
    "train": "from labkit.workbench.runs import Run\n"
    "result = PAPER.run(config, Run.open(run_dir, config, checkpoint_seconds=0.0))\nprint('done')",
}


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """The toy's notebook, in a folder of its own."""
    import nbformat

    folder = tmp_path / "notebooks"
    folder.mkdir()
    written = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    tests = Path(__file__).parent.parent
    for name, source in NOTEBOOK.items():
        cell = nbformat.v4.new_code_cell(source.replace("TESTS", str(tests)).replace("ROOT", str(tests.parent)))
        cell.metadata["tags"] = [name] if name == "parameters" else []
        written.cells.append(cell)
    nbformat.write(written, folder / "99_toy.ipynb")
    monkeypatch.setattr(paths, "notebooks_dir", lambda: folder)
    return folder / "99_toy.ipynb"


@pytest.mark.slow
def test_a_killed_kernel_ends_with_code_one_a_partial_notebook_and_a_way_on(here, notebook, tmp_path):
    folder = tmp_path / "run"
    words = ("run", "toy", "--scale", "smoke", "-p", "note", str(tmp_path / "killed"), "--run-dir", str(folder))
    code, _, message = here(*words)
    assert code == 1
    assert "Traceback" not in message
    assert str(folder / "notebook.ipynb") in message
    assert "--resume" in message
    partial = (folder / "notebook.ipynb").read_text()
    assert "steps 40" in partial
    assert not (folder / "result.json").exists()
    assert (folder / "plain" / "checkpoint.pt").exists()
    code, printed, message = here(*words, "--resume")
    assert code == 0, message
    assert " learns " in printed
    assert "without encryption" not in printed + message
    assert "notebook.html" in printed
    whole = tmp_path / "undisturbed"
    assert here("train", *words[1:-1], str(whole))[0] == 0
    assert (folder / "result.json").read_bytes() == (whole / "result.json").read_bytes()


@pytest.mark.slow
def test_a_failing_cell_ends_with_code_one_and_says_what_was_wrong(here, notebook, tmp_path):
    content = json.loads(notebook.read_text())
    content["cells"][1]["source"] = "raise RuntimeError('no luck')"  # before a kernel has loaded torch
    notebook.write_text(json.dumps(content))
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / "notebook.ipynb").symlink_to(tmp_path / "mine")  # papermill would write through it
    code, _, message = here("run", "toy", "--scale", "smoke", "-p", "steps", "2", "--run-dir", str(tmp_path / "run"))
    assert code == 1
    assert "no luck" in message
    assert "Traceback" not in message
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_notebook_without_the_parameters_is_refused(here, notebook, tmp_path):
    notebook.write_text(notebook.read_text().replace("overrides: dict = {}", ""))
    code, _, message = here("run", "toy", "--scale", "smoke", "--run-dir", str(tmp_path / "run"))
    assert (code, "no parameter overrides" in message) == (2, True)


def test_names_of_notebooks_are_in_reading_order():
    assert notebooks.names() == sorted(notebooks.names())


VERBS = {
    "Check", "Compute", "Decode", "Encode", "Execute", "Find", "Follow", "Get", "List", "Measure", "Open", "Read",
    "Run", "Show", "Train", "Translate", "Write",
}  # fmt: skip
"""What commands do, one word each: the first of their help."""


def _commands(command: Any, words: tuple[str, ...] = ("labkit",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _commands(inner, (*words, name))


def test_every_help_text_is_whole_in_80_columns_and_written_in_one_way():
    """Catches: a summary that ends in dots or has no verb, an argument in small letters, a switch of the opposite."""
    for words, command in _commands(typer.main.get_command(app)):
        text = command.get_help(typer.Context(command, info_name=words[-1], terminal_width=80, max_content_width=80))
        assert command.help, words
        first = {line.split()[0] for line in (command.help, command.get_short_help_str(200))}
        assert len(words) == 1 or first <= VERBS, words
        assert not re.search(r"\w\.\.\.$", text, re.MULTILINE), text
        assert "--no-" not in text, text
        for line in text.partition("Arguments:")[2].partition("Options:")[0].splitlines():
            if re.match(r"  \S", line):
                assert line.split()[0].isupper(), line
        assert max(map(len, text.splitlines())) <= 80, text
