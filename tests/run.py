"""Every check, one after another, light ones first; goes on after a failure and ends with one table.

    make test                                      all of it
    make check                                     style, types, layers and the quick tests
    .venv/bin/python tests/run.py mypy pytest      some of it

One thread a process, unless OMP_NUM_THREADS says otherwise; ATEN_CPU_CAPABILITY and others reach the tests as they are.

The last line is `<passed> passed, <failed> failed`, tests and other gates added up. Exit code 1 if anything failed.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
WORKERS = str(max(2, min(4, os.cpu_count() or 2)))
CHECK = ("ruff check", "ruff format", "mypy", "import-linter", "quick tests")  # what a developer runs all day
COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|warnings?)\b")


@dataclass
class Outcome:
    """How a gate ended; `counts` is what pytest says of its tests, empty for the other gates."""

    gate: str
    passed: bool
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)


def gates() -> dict[str, list[str]]:
    """Name to command."""
    python = [sys.executable, "-m"]
    tests = [*python, "pytest", "-q", "-n", WORKERS, "--dist", "worksteal", "--durations=8"]
    tests += ["--jaxtyping-packages=labkit,beartype.beartype"]
    unmet = "" if has_gpu() else "not gpu"
    return {
        "ruff check": [*python, "ruff", "check"],
        "ruff format": [*python, "ruff", "format", "--check"],
        "mypy": [*python, "mypy"],
        "import-linter": [str(BIN / "lint-imports"), "--no-cache"],
        "quick tests": [*tests, "-m", " and ".join(filter(None, ("not slow", unmet)))],
        "pytest": [*tests, "-m", unmet],
        # the kernel's own deprecation warnings are not ours to mend, so they are not errors here; the time is a guard
        # against hanging, ten times what the slowest cell needs on a quiet machine
        "nbval": [
            *(*python, "pytest", "-q", "-n", "2", "--dist", "loadfile", "-W", "default", "-p", "no:cacheprovider"),
            *("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=1800"),
            *("--nbval-sanitize-with", "tests/notebooks/nbval.cfg", "notebooks/"),
        ],
    }


def has_gpu() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    import torch

    return torch.cuda.is_available()


def run(gate: str, command: list[str]) -> Outcome:
    """Run one gate with its output shown as it comes."""
    print(f"\n=== {gate}", flush=True)
    # passive: threads that spin while they wait take a busy machine's cores from the ones they wait for
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    environment = {**threads, **os.environ, "LABKIT_PROGRESS": "0", "PYTHONUNBUFFERED": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles every file again
    start, last = time.monotonic(), ""
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line if COUNTS.search(line) else last
    counts = read_counts(last) if "pytest" in command else {}
    return Outcome(gate, process.returncode == 0, time.monotonic() - start, counts)


def read_counts(line: str) -> dict[str, int]:
    """'== 1 failed, 12 passed in 3.4s ==' as numbers by word."""
    return {word.removesuffix("s") if word != "passed" else word: int(number) for number, word in COUNTS.findall(line)}


def summary(outcomes: list[Outcome]) -> str:
    """The table and the line that CI reads."""
    lines = []
    for outcome in outcomes:
        counts = ", ".join(f"{number} {word}" for word, number in outcome.counts.items())
        word = "passed" if outcome.passed else "FAILED"
        lines.append(f"{outcome.gate:<14} {word}  {outcome.seconds:6.1f} s  {counts}".rstrip())
    passed = sum(o.counts.get("passed", 0) if o.counts else int(o.passed) for o in outcomes)
    failed = 0
    for outcome in outcomes:
        bad = outcome.counts.get("failed", 0) + outcome.counts.get("error", 0)
        failed += bad or int(not outcome.passed)  # a gate that broke down without counting is one failure
    return "\n".join([*lines, f"{passed} passed, {failed} failed"])


def main(names: list[str]) -> int:
    known = gates()
    if not names:
        names = [name for name in known if name != "quick tests"]  # they are among the others
    elif names == ["check"]:
        names = list(CHECK)
    if unknown := [name for name in names if name not in known]:
        print(f"there is no gate {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    outcomes = [run(gate, command) for gate, command in known.items() if gate in names]
    print(f"\n{summary(outcomes)}", flush=True)
    return int(not all(outcome.passed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
