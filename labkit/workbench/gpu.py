"""Everything a machine with a GPU is for, in one command: the GPU tests, the benchmarks, the `gpu`-scale training.

Made for a machine that is lent by the minute. Each step is a process of its own with a common deadline; what is
finished stays in the folder `out`, so that the same command given again goes on where the time ran out:

    out/tests.json, bench-<slug>.json, <slug>-<scale>-<device>.json   finished steps; the last is a copy of the record
    out/<step>.log                                                    what each step printed
    out/runs/<slug>/                                                  run directories with their checkpoints
"""

import contextlib
import importlib.util
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labkit import paths
from labkit.errors import InputError
from labkit.files import write_json

State = Literal["done", "failed", "time is up", "not possible here"]

PROGRAM = ["-m", "labkit"]  # how the steps call labkit; tests put a small program of their own here
GRACE = 10.0  # seconds between the polite end of a step and the other one
LEAST = 3.0  # seconds that must be left to begin a step


@dataclass(frozen=True)
class Step:
    """One step: `command` is run by this Python; `finish` keeps its result, given what it wrote to stdout."""

    name: str
    result: str
    command: list[str]
    finish: Callable[[str], None]
    impossible: str = ""
    limit: float = math.inf  # seconds that this step may take of the common time


@dataclass(frozen=True)
class Report:
    """How a step stands."""

    step: str
    state: State
    seconds: float
    detail: str = ""


def run(slugs: Sequence[str], minutes: float, out: Path, scale: str = "gpu", seeds: str = "0") -> list[Report]:
    """Do as much as `minutes` allow of the steps for the papers `slugs`, and report on every step.

    Raises:
        InputError: no time at all, or `out` is a file.
    """
    if not 0 < minutes < math.inf:
        raise InputError(f"--minutes must be above 0; got {minutes:g}.")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out needs a folder, and {out} is a file.")
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * minutes
    reports = [_do(step, out, deadline) for step in _steps(slugs, out, scale, seeds, 60 * minutes)]
    summary = [report.__dict__ for report in reports]
    write_json(out / "summary.json", summary)
    return reports


def _steps(slugs: Sequence[str], out: Path, scale: str, seeds: str, seconds: float) -> Iterator[Step]:
    yield _tests(out)
    for slug in slugs:
        yield _bench(slug, out, seconds / (3 * len(slugs)))  # whatever happens, training has the larger part
    for slug in slugs:
        yield _train(slug, out, scale, seeds)


def _tests(out: Path) -> Step:
    import torch

    impossible = ""
    if not torch.cuda.is_available():
        impossible = "no CUDA GPU here"
    elif importlib.util.find_spec("pytest") is None:
        impossible = "pytest is not installed"
    elif not (paths.root() / "tests" / "gpu").exists():
        impossible = "the tests are not here; run it in a checkout"

    def finish(printed: str) -> None:
        write_json(out / "tests.json", {"summary": printed.strip().splitlines()[-1].strip("= ")})

    # no cache: its folder would be written into a checkout that may be read-only
    command = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(paths.root() / "tests" / "gpu")]
    return Step("tests", "tests.json", command, finish, impossible)


def _bench(slug: str, out: Path, limit: float) -> Step:
    from labkit.workbench.benchmark import script  # it brings torch, and `labkit list` imports this file

    name = f"bench-{slug}.json"

    def finish(printed: str) -> None:
        write_json(out / name, json.loads(printed[printed.index("[") :]))

    command = [*PROGRAM, "bench", slug, "--json", "--seconds", f"{min(60.0, limit / 2):.0f}"]
    impossible = "" if script(slug).exists() else f"no benchmarks/{slug}.py"
    return Step(f"bench {slug}", name, command, finish, impossible, limit)


def _train(slug: str, out: Path, scale: str, seeds: str) -> Step:
    """`labkit record` in run directories below `out`, so that a later call goes on from the last checkpoint."""
    command = [*PROGRAM, "record", slug, "--scale", scale, "--seeds", seeds]
    began = time.time()

    def finish(printed: str) -> None:
        written = [f for f in (paths.records_dir() / slug).glob(f"{scale}-*.json") if f.stat().st_mtime >= began - 2]
        for record in written:
            shutil.copyfile(record, out / f"{slug}-{record.name}")

    command += ["--run-dir", str((out / "runs" / slug / scale).resolve())]
    return Step(f"train {slug}", f"{slug}-{scale}-*.json", command, finish)


def _do(step: Step, out: Path, deadline: float) -> Report:
    """Run one step unless it is finished, impossible, or there is no time left for it."""
    if any(out.glob(step.result)):
        return Report(step.name, "done", 0.0, "in an earlier call")
    if step.impossible:
        return Report(step.name, "not possible here", 0.0, step.impossible)
    if deadline - time.monotonic() < LEAST:
        return Report(step.name, "time is up", 0.0, "not begun")
    print(f"-- {step.name}", flush=True)
    start = time.monotonic()
    printed, code = _call(step.command, out / f"{step.name.replace(' ', '-')}.log", min(deadline, start + step.limit))
    seconds = round(time.monotonic() - start, 1)
    if code is None:
        return Report(step.name, "time is up", seconds, "stopped; runs go on from their last checkpoint")
    if code == 0:
        step.finish(printed)
        return Report(step.name, "done", seconds)
    return Report(step.name, "failed", seconds, f"exit code {code}, see {step.name.replace(' ', '-')}.log")


def _call(command: list[str], log: Path, deadline: float) -> tuple[str, int | None]:
    """Run Python with `command`, show and log what it prints. Returns its stdout and exit code (None: stopped)."""
    environment = {"LABKIT_PROGRESS": "0", "PYTHONUNBUFFERED": "1", **os.environ}
    path = (str(paths.root()), os.environ.get("PYTHONPATH"))  # labkit need not be installed
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    lines: list[str] = []
    with (
        open(log, "a") as copy,
        subprocess.Popen(
            [sys.executable, *command],
            cwd=paths.root(),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that the processes it starts can be ended with it
        ) as process,
    ):
        readers = [
            threading.Thread(target=_follow, args=(stream, copy, kept))
            for stream, kept in ((process.stdout, lines), (process.stderr, []))
        ]
        for reader in readers:
            reader.start()
        try:
            while (code := process.poll()) is None and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            _end(process)
            for reader in readers:
                reader.join(timeout=GRACE)
    return "".join(lines), code


def _follow(stream: Any, copy: Any, kept: list[str]) -> None:
    for line in stream:
        kept.append(line)
        copy.write(line)
        copy.flush()
        print(line, end="", flush=True)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and those it started. Runs can be resumed from any moment, so nothing is lost but some steps."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, kind)
            process.wait(timeout=GRACE)


def summary(reports: Sequence[Report], command: Sequence[str]) -> str:
    """One line a step, what remains, and the command to go on."""
    lines = [f"{r.step:<20} {r.state:<18} {r.seconds:7.1f} s  {r.detail}".rstrip() for r in reports]
    remains = [report.step for report in reports if report.state in ("time is up", "failed")]
    if remains:
        lines.append(f"remains: {', '.join(remains)}. Go on with: {shlex.join(command)}")
    else:
        lines.append("nothing remains.")
    return "\n".join(lines)
