"""`labkit gpu`: in a box of time, resumable, one summary; tried on a CPU at the scale of a test."""

import json
import time
from pathlib import Path

import pytest

from labkit import paths
from labkit.errors import InputError
from labkit.workbench import gpu


@pytest.fixture
def box(toy, tmp_path, monkeypatch):
    """The command on the toy with scale smoke; `minutes` as given."""
    driver = str(paths.root() / "tests" / "toy_driver.py")
    monkeypatch.setattr(gpu, "PROGRAM", [driver])
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    return lambda minutes, **options: gpu.run(["toy"], minutes, tmp_path / "out", "smoke", **options)


def states(reports) -> dict[str, str]:
    return {report.step: report.state for report in reports}


def test_it_does_what_can_be_done_and_writes_the_record(box, tmp_path, capfd):
    reports = box(1.0, seeds="0")
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
    again = box(1.0)
    assert states(again)["train toy"] == "done"
    assert again[2].detail == "in an earlier call"


def test_when_the_time_is_up_the_checkpoint_is_kept_and_the_next_call_goes_on(box, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_SLOW", "0.15")  # 80 steps take 12 s
    monkeypatch.setenv("TOY_SECONDS", "0")
    start = time.monotonic()
    reports = box(10 / 60)
    assert 9 < time.monotonic() - start < 10 + gpu.GRACE + 5
    assert states(reports)["train toy"] == "time is up"
    text = gpu.summary(reports, ["python", "-m", "labkit", "gpu", "toy"])
    assert text.endswith("remains: train toy. Go on with: python -m labkit gpu toy")
    lines = (tmp_path / "out/runs/toy/smoke/seed-0/plain/metrics.jsonl").read_text().splitlines()
    assert len(lines) > 1
    assert not list((tmp_path / "out").glob("toy-*.json"))
    monkeypatch.setenv("TOY_SLOW", "0")
    assert states(box(1.0))["train toy"] == "done"
    assert (tmp_path / "out/runs/toy/smoke/seed-0/plain/metrics.jsonl").read_text().startswith("\n".join(lines))


def test_a_step_that_fails_is_told_with_its_code_and_tried_again(box, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PROGRAM", ["-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)"])
    reports = box(1.0)
    assert states(reports)["train toy"] == "failed"
    assert "exit code 3" in reports[2].detail
    assert "out of luck" in (tmp_path / "out" / "train-toy.log").read_text()
    assert states(box(1.0))["train toy"] == "failed"


def test_with_a_gpu_the_tests_and_the_benchmarks_come_first(box, tmp_path, monkeypatch):
    """The commands are replaced by ones that print what the real ones would."""
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "PROGRAM", ["-c", "print('warming up'); print('[{\"ratio\": 2.0}]')"])
    (tmp_path / "root" / "tests" / "gpu").mkdir(parents=True)
    (tmp_path / "root" / "benchmarks").mkdir()
    (tmp_path / "root" / "benchmarks" / "toy.py").touch()
    (tmp_path / "root" / "tests" / "gpu" / "test_it.py").write_text(
        "import pytest\n@pytest.mark.gpu\ndef test_it(): pass\ndef test_other(): assert False\n"
    )
    (tmp_path / "root" / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs a GPU\n")
    monkeypatch.setattr(paths, "root", lambda: tmp_path / "root")
    reports = box(1.0)
    assert list(states(reports)) == ["tests", "bench toy", "train toy"]
    assert states(reports)["tests"] == "done", (tmp_path / "out" / "tests.log").read_text()
    assert "1 passed, 1 deselected" in json.loads((tmp_path / "out" / "tests.json").read_text())["summary"]
    assert json.loads((tmp_path / "out" / "bench-toy.json").read_text()) == [{"ratio": 2.0}]


def test_a_benchmark_that_takes_too_long_leaves_time_for_training(box, tmp_path, monkeypatch):
    (tmp_path / "root" / "benchmarks").mkdir(parents=True)
    (tmp_path / "root" / "benchmarks" / "toy.py").touch()
    monkeypatch.setattr(paths, "root", lambda: tmp_path / "root")
    monkeypatch.setattr(gpu, "PROGRAM", ["-c", "import sys, time; time.sleep(60 * (sys.argv[1] == 'bench'))"])
    reports = box(0.2)
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


def test_processes_that_a_step_started_end_with_it(tmp_path):
    """A training on several GPUs is a tree of processes; all of them must let go of the machine."""
    code = (
        "import subprocess, time; child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    start = time.monotonic()
    printed, exit_code = gpu._call(["-c", code], tmp_path / "log", start + 2)
    assert (printed, exit_code) == ("", None)
    pid = int((tmp_path / "pid").read_text())
    time.sleep(0.2)
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z", f"process {pid} lives on"
