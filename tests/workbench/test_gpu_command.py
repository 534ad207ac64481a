"""`labkit gpu`: in a box of time, resumable, one summary; tried on a CPU at the scale of a test.

Time stands still in these tests until what they wait for has happened: no machine is too busy for them.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from labkit import paths
from labkit.errors import InputError
from labkit.workbench import gpu


@pytest.fixture
def box(toy, tmp_path, monkeypatch):
    """The command on the toy with scale smoke; `minutes` as given."""
    driver = str(paths.root() / "tests" / "toy_driver.py")
    monkeypatch.setattr(gpu, "PROGRAM", [driver])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return lambda minutes, **options: gpu.run(["toy"], minutes, tmp_path / "out", "smoke", **options)


@pytest.fixture
def clock(monkeypatch):
    """`clock(happened, after)`: seconds pass for the command only when `happened()`; then it is `after` o'clock."""

    def set_clock(happened: Callable[[], bool], after: float = math.inf) -> None:
        guard = time.monotonic() + 600  # against hanging

        def now() -> float:
            return after if happened() or time.monotonic() > guard else 0.0

        monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=now, sleep=time.sleep, time=time.time))

    return set_clock


def states(reports) -> dict[str, str]:
    return {report.step: report.state for report in reports}


@pytest.mark.slow
def test_it_does_what_can_be_done_and_writes_the_record(box, tmp_path, capfd):
    reports = box(10.0, seeds="0")
    assert states(reports) == {"tests": "not possible here", "bench toy": "not possible here", "train toy": "done"}
    record = json.loads((tmp_path / "records" / "toy" / "smoke-cpu.json").read_text())
    assert record == json.loads((tmp_path / "out" / "toy-smoke-cpu.json").read_text())
    assert record["command"].startswith("labkit record toy --scale smoke --seeds 0")
    assert "seed 0 done" in capfd.readouterr().out  # shown while it runs
    assert "seed 0 done" in (tmp_path / "out" / "train-toy.log").read_text()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())[2]["state"] == "done"
    text = gpu.summary(reports, ["labkit", "gpu"])
    assert "no CUDA GPU here" in text
    assert text.endswith("nothing remains.")
    again = box(10.0)
    assert states(again)["train toy"] == "done"
    assert again[2].detail == "in an earlier call"


def test_when_the_time_is_up_the_checkpoint_is_kept_and_the_next_call_goes_on(box, clock, tmp_path, monkeypatch):
    """The program here saves what it has and hangs; the second time it goes on from there and writes the record."""
    saved = tmp_path / "out" / "runs" / "toy" / "smoke" / "saved"
    program = (
        "import pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--run-dir') + 1])\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "begun = (folder / 'saved').exists()\n"
        "(folder / 'saved').open('a').write('.')\n"
        "begun or time.sleep(3600)\n"
    )
    monkeypatch.setattr(gpu, "PROGRAM", ["-c", program])
    clock(saved.exists)
    reports = box(10.0)
    assert states(reports)["train toy"] == "time is up"
    text = gpu.summary(reports, ["python", "-m", "labkit", "gpu", "toy"])
    assert text.endswith("remains: train toy. Go on with: python -m labkit gpu toy")
    assert not list((tmp_path / "out").glob("toy-*.json"))
    clock(lambda: False)
    assert states(box(10.0))["train toy"] == "done"
    assert saved.read_text() == ".."


def test_a_step_that_fails_is_told_with_its_code_and_tried_again(box, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PROGRAM", ["-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)"])
    reports = box(10.0)
    assert states(reports)["train toy"] == "failed"
    assert "exit code 3" in reports[2].detail
    assert "out of luck" in (tmp_path / "out" / "train-toy.log").read_text()
    assert states(box(10.0))["train toy"] == "failed"


@pytest.mark.slow
def test_with_a_gpu_the_tests_and_the_benchmarks_come_first(box, tmp_path, monkeypatch):
    """The commands are replaced by ones that print what the real ones would."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "PROGRAM", ["-c", "print('warming up'); print('[{\"ratio\": 2.0}]')"])
    (tmp_path / "root" / "tests" / "gpu").mkdir(parents=True)
    (tmp_path / "root" / "benchmarks").mkdir()
    (tmp_path / "root" / "benchmarks" / "toy.py").touch()
    (tmp_path / "root" / "tests" / "gpu" / "test_it.py").write_text(
        "import pytest\n@pytest.mark.gpu\ndef test_it(): pass\ndef test_other(): assert False\n"
    )
    (tmp_path / "root" / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs a GPU\n")
    monkeypatch.setattr(paths, "root", lambda: tmp_path / "root")
    reports = box(10.0)
    assert list(states(reports)) == ["tests", "bench toy", "train toy"]
    assert states(reports)["tests"] == "done", (tmp_path / "out" / "tests.log").read_text()
    assert "1 passed, 1 deselected" in json.loads((tmp_path / "out" / "tests.json").read_text())["summary"]
    assert json.loads((tmp_path / "out" / "bench-toy.json").read_text()) == [{"ratio": 2.0}]


def test_a_benchmark_that_takes_too_long_leaves_time_for_training(box, clock, tmp_path, monkeypatch):
    (tmp_path / "root" / "benchmarks").mkdir(parents=True)
    (tmp_path / "root" / "benchmarks" / "toy.py").touch()
    monkeypatch.setattr(paths, "root", lambda: tmp_path / "root")
    begun = tmp_path / "begun"
    program = f"import sys, time; b = sys.argv[1] == 'bench'; b and open({str(begun)!r}, 'w'); time.sleep(3600 * b)"
    monkeypatch.setattr(gpu, "PROGRAM", ["-c", program])
    clock(begun.exists, after=25.0)  # of 60 seconds a benchmark may have 20
    reports = box(1.0)
    assert states(reports)["bench toy"] == "time is up"
    assert states(reports)["train toy"] == "done"


def test_no_step_begins_when_no_time_is_left(box):
    reports = box(0.01)
    assert [report.detail for report in reports if report.state == "time is up"] == ["not begun"]


@pytest.mark.parametrize(("minutes", "out"), [(0.0, "out"), (-1.0, "out"), (1.0, "file")])
def test_bad_input_begins_nothing(toy, tmp_path, minutes, out):
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        gpu.run(["toy"], minutes, tmp_path / out)
    assert not (tmp_path / "out").exists()


def test_processes_that_a_step_started_end_with_it(clock, tmp_path):
    """A training on several GPUs is a tree of processes; all of them must let go of the machine."""
    started = tmp_path / "pid"
    code = (
        "import os, subprocess, time; child = subprocess.Popen(['sleep', '3600'])\n"
        f"open('{started}.part', 'w').write(str(child.pid)); os.rename('{started}.part', '{started}'); time.sleep(3600)"
    )
    clock(started.exists)
    assert gpu._call(["-c", code], tmp_path / "log", 1.0) == ("", None)
    guard = time.monotonic() + 60
    while is_alive(int(started.read_text())) and time.monotonic() < guard:
        time.sleep(0.01)
    assert not is_alive(int(started.read_text()))


def is_alive(pid: int) -> bool:
    """Is the process there, and more than an entry that nobody has collected yet?"""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)  # where there is no /proc
        return not Path("/proc").exists()
    return False
