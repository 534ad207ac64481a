"""Sweeps: which runs there are, that killed ones go on, that a stopped sweep goes on, and what is said at the end."""

import csv
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import toy_paper

from labkit.errors import ConfigError, InputError, RunError
from labkit.workbench import sweep
from labkit.workbench.runs import Run
from labkit.workbench.sweep import Job, alternatives, claim_folder, gather, in_threads, outcome, plan, work

DRIVER = [sys.executable, str(Path(__file__).parent.parent / "toy_driver.py"), "train"]


@pytest.fixture
def driver(monkeypatch):
    """Jobs start the toy's command line, without a notebook."""
    monkeypatch.setattr(sweep, "PROGRAM", DRIVER)
    monkeypatch.setattr(sweep, "PAUSE", 0.0)
    monkeypatch.setenv("TOY_SECONDS", "0")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Jobs run these lines, where `folder` is the run's: a program that needs no torch."""

    def write(lines: str) -> None:
        path = tmp_path / "program.py"
        path.write_text(
            "import os, pathlib, signal, sys, time\n"
            "folder = pathlib.Path(sys.argv[sys.argv.index('--run-dir') + 1])\n" + lines
        )
        monkeypatch.setattr(sweep, "PROGRAM", [sys.executable, str(path)])
        monkeypatch.setattr(sweep, "PAUSE", 0.0)

    return write


def jobs(root: Path, **grid: str) -> list[Job]:
    planned = plan(toy_paper.PAPER, "smoke", {name: alternatives(text) for name, text in grid.items()}, "cpu", root)
    claim_folder(root, planned)
    return planned


def silent(job: Job, words: str) -> None: ...


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0..4", ["0", "1", "2", "3", "4"]),
        ("5,10,20", ["5", "10", "20"]),
        ("-1..1,7", ["-1", "0", "1", "7"]),
        ("0.1..0.3", ["0.1..0.3"]),  # a range of what is not whole is no range
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("x", ["x"]),
    ],
)
def test_alternatives(text, values):
    assert alternatives(text) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4..0", r"runs backwards; write 0\.\.4"),
        ("1,,2", "nothing between two commas"),
        ("", "nothing between"),
        ("1,0..2", "holds a value twice"),
        ("0..99999999999", "more than 10,000"),
    ],
)
def test_bad_alternatives(text, message):
    with pytest.raises(InputError, match=message):
        alternatives(text)


def test_every_combination_is_a_run_and_the_last_field_turns_fastest(tmp_path):
    planned = jobs(tmp_path, steps="2,3", seed="0..2")
    assert [tuple(job.values.values()) for job in planned] == [
        ("2", "0"), ("2", "1"), ("2", "2"), ("3", "0"), ("3", "1"), ("3", "2"),
    ]  # fmt: skip
    assert planned[4].command == (
        "toy", "--scale", "smoke", "-p", "steps=3", "-p", "seed=1", "--device", "cpu",
    )  # fmt: skip
    assert len({job.directory for job in planned}) == 6


def test_mistakes_are_named_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match="stepz"):
        jobs(tmp_path, stepz="1,2")
    with pytest.raises(ConfigError, match="steps"):
        jobs(tmp_path, steps="5,-3")
    with pytest.raises(InputError, match=r"1,000,000 combinations"):
        jobs(tmp_path, steps="1..1000", seed="1..1000")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_sweep_is_refused(tmp_path):
    jobs(tmp_path, seed="0..1")
    jobs(tmp_path, seed="0..1")  # the same: to go on with
    with pytest.raises(InputError, match="holds another sweep"):
        jobs(tmp_path, seed="0..2")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(tmp_path, driver):
    config = toy_paper.PAPER.config("smoke", seed=3)
    toy_paper.PAPER.run(config, Run.open(tmp_path / "whole", config))
    (killed,) = jobs(tmp_path / "killed", seed="3")
    ended = work(killed, 4, {"TOY_FAULT": "step:45"})  # each attempt gets 44 of 80 steps further
    assert (ended.code, ended.attempts) == (0, 2)
    results = [(folder / "result.json").read_bytes() for folder in (tmp_path / "whole", Path(killed.directory))]
    assert results[0] == results[1]
    again = work(killed, 0)
    assert (again.code, again.attempts, outcome(again)) == (0, 0, "was finished")


def test_what_cannot_start_is_not_tried_again_and_what_dies_for_ever_is_reported(tmp_path, program):
    program("print('no such scale'); sys.exit(2) if 'huge' in sys.argv else os.kill(os.getpid(), signal.SIGKILL)")
    (job,) = jobs(tmp_path, seed="3")
    wrong = replace(job, command=("toy", "--scale", "huge"), directory=str(tmp_path / "wrong"))
    ended = work(wrong, 5)
    assert (ended.code, ended.attempts) == (2, 1)
    assert "exit code 2" in outcome(ended)
    assert (tmp_path / "wrong" / "log.txt").read_text() == "no such scale\n"
    ended = work(job, 2)
    assert (ended.code, ended.attempts) == (-signal.SIGKILL, 3)
    assert "killed by SIGKILL" in outcome(ended)


@pytest.mark.slow
def test_threads_share_the_gpus_and_skip_what_is_finished(tmp_path, program):
    """The program here writes which GPU it was given, and holds it for a while."""
    program(
        "began = time.monotonic(); time.sleep(0.2)\n"
        "gpu = os.environ['CUDA_VISIBLE_DEVICES']\n"
        '(folder / \'result.json\').write_text(f\'{{"gpu": {gpu}, "began": {began}, "ended": {time.monotonic()}}}\')\n'
    )
    planned, said = jobs(tmp_path / "sweep", seed="0..5"), []
    (Path(planned[0].directory)).mkdir()
    (Path(planned[0].directory) / "result.json").write_text("{}")
    ended = in_threads(planned, 3, 0, ["0", "1"], lambda job, words: said.append(words))
    assert [job.code for job in ended] == [0] * 6
    assert sorted(said) == ["done"] * 5 + ["was finished"]
    results = [json.loads((Path(job.directory) / "result.json").read_text()) for job in planned[1:]]
    for gpu in (0, 1):
        spans = sorted((r["began"], r["ended"]) for r in results if r["gpu"] == gpu)
        assert spans
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def test_a_stopped_sweep_ends_its_runs_and_goes_on(tmp_path, program, monkeypatch):
    program(
        "saved = folder / 'checkpoint.pt'\n"
        "if 'TOY_HANG' in os.environ: saved.touch(); time.sleep(3600)\n"
        "(folder / 'result.json').write_text(str(saved.exists()).lower())\n"
    )
    monkeypatch.setenv("TOY_HANG", "1")
    planned = jobs(tmp_path / "sweep", seed="0..3")

    def interrupt() -> None:
        while not all((Path(job.directory) / "checkpoint.pt").exists() for job in planned[:2]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C does

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the workers of a parallel test run ignore it
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            in_threads(planned, 2, 1000, [], silent)  # what was stopped is not tried again
    finally:
        signal.signal(signal.SIGINT, before)
    processes = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in processes
    monkeypatch.delenv("TOY_HANG")
    ended = in_threads(planned, 2, 0, [], silent)
    assert [job.code for job in ended] == [0] * 4
    results = [json.loads((Path(job.directory) / "result.json").read_text()) for job in planned]
    assert results == [True, True, False, False]  # two had begun


def finished(tmp_path, values: dict[str, float]) -> list[Job]:
    planned = jobs(tmp_path, steps="2,3", seed="0..2")
    for job in planned:
        accuracy = values[job.values["steps"]] + float(job.values["seed"])
        Path(job.directory).mkdir()
        result = {"plain": {"accuracy": accuracy}, "noisy": {"accuracy": accuracy - 5}, "data": "plane"}
        (Path(job.directory) / "result.json").write_text(json.dumps(result))
    return planned


def test_the_table_has_intervals_over_seeds(tmp_path):
    rows = gather(toy_paper.PAPER, finished(tmp_path, {"2": 60.0, "3": 80.0}), [])
    assert [row.values for row in rows] == [{"steps": "2"}, {"steps": "3"}]
    learns = rows[0].effects["learns"]  # accuracy - 50: 10, 11, 12
    assert (learns.value, learns.replicates) == (11.0, 3)
    assert learns.high - learns.value == pytest.approx(4.3027 / 3**0.5, abs=1e-4)  # Student, two degrees of freedom
    by_path = gather(toy_paper.PAPER, finished(tmp_path / "b", {"2": 60.0, "3": 80.0}), ["noisy.accuracy"])
    assert by_path[1].effects["noisy.accuracy"].value == 76.0
    with pytest.raises(InputError, match=r"no number at 'noisy.x'|has a number at 'noisy.x'; they hold plain.accuracy"):
        gather(toy_paper.PAPER, finished(tmp_path / "c", {"2": 1.0, "3": 2.0}), ["noisy.x"])


def test_table_and_plot_are_written(tmp_path):
    rows = gather(toy_paper.PAPER, finished(tmp_path, {"2": 60.0, "3": 80.0}), [])
    table, plot = sweep.report_files(rows, "toy", tmp_path)
    lines = list(csv.DictReader(table.read_text().splitlines()))
    assert lines[0]["effect"] == "learns"
    assert float(lines[0]["mean"]) == 11.0
    assert len(lines) == 4
    figure = sweep.figure(rows, "toy")
    panel = figure.axes[0]
    assert panel.get_title() == "learns"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["steps=2", "steps=3"]
    assert list(panel.containers[0].lines[0].get_ydata()) == [11.0, 31.0]
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_ray_replaces_a_killed_worker_and_the_run_goes_on(tmp_path, program, monkeypatch):
    """A real Ray on the loopback address. The worker of the first run is killed, and with it its process."""
    if importlib.util.find_spec("ray") is None:  # not imported here: the engine sets what Ray reads at its import
        pytest.skip("the engine ray needs the extra `cluster`")
    killed = tmp_path / "killed"
    program(
        f"mark = pathlib.Path({str(killed)!r})\n"
        "if not mark.exists():\n"
        "    mark.write_text(str(os.getpid()))\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    time.sleep(600)\n"
        "(folder / 'result.json').write_text('{}')\n"
    )
    planned, addresses = jobs(tmp_path / "sweep", seed="0..2"), []

    def listening(job: Job, words: str) -> None:
        import ray

        addresses.extend(node["NodeManagerAddress"] for node in ray.nodes())

    module = sweep._module

    def patient(name: str, package: str):
        """Ray waits 30 seconds for itself; ten minutes here, for a busy machine."""
        ray = module(name, package)
        slow = SimpleNamespace(**{**vars(time), "monotonic": lambda: time.monotonic() / 20})
        monkeypatch.setattr("ray._private.node.time", slow)
        return ray

    monkeypatch.setattr(sweep, "_module", patient)
    ended = sweep.on_ray(planned, 2, 2, 0.0, "", listening)
    assert [job.code for job in ended] == [0, 0, 0]
    assert set(addresses) == {"127.0.0.1"}
    first = int(killed.read_text())
    for _ in range(600):  # the process of the killed worker has ended, too: nothing goes on beside its successor
        if subprocess.run(["ps", "-o", "stat=", "-p", str(first)], capture_output=True, text=True).stdout[:1] in "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the killed worker's run goes on")


class SlowRay:
    """Starts at its `starts`-th attempt; before that it fails as Ray does on a machine that is too busy."""

    def __init__(
        self, starts: int, words: str = "The current node timed out during startup. This could happen ..."
    ) -> None:
        self.starts, self.words, self.attempts, self.shut_down = starts, words, 0, 0

    def init(self, **options: object) -> None:
        self.attempts += 1
        if self.attempts < self.starts:
            raise Exception(self.words)

    def shutdown(self) -> None:
        self.shut_down += 1


def test_a_ray_that_is_late_is_started_again():
    ray = SlowRay(starts=3)
    sweep._start(ray, num_cpus=1)
    assert (ray.attempts, ray.shut_down) == (3, 2)


def test_a_ray_that_never_starts_is_given_up():
    ray = SlowRay(starts=9)
    with pytest.raises(RunError, match="too busy"):
        sweep._start(ray, num_cpus=1)
    assert ray.attempts == sweep.RAY_STARTS


def test_another_failure_of_ray_stays_itself():
    ray = SlowRay(starts=2, words="no memory")
    with pytest.raises(Exception, match="no memory"):
        sweep._start(ray, num_cpus=1)
    assert ray.attempts == 1


@pytest.mark.slow
def test_slurms_engine_by_submitits_local_scheduler(tmp_path, program):
    pytest.importorskip("submitit", reason="the engine slurm needs the extra `cluster`")
    program("(folder / 'result.json').write_text('{}')\n")
    planned = jobs(tmp_path, seed="0..1")
    ended = sweep.on_slurm(planned, 2, 0, 0, {"timeout_min": 5}, tmp_path, silent, cluster="local")
    assert [job.code for job in ended] == [0, 0]
    assert all(job.finished for job in planned)


def test_an_engine_that_is_not_installed_says_how(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'labkit\[cluster\]'"):
        sweep._module("ray", "ray")
