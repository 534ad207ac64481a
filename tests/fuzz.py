"""Everything that labkit reads, damaged again and again: only a sentence of ours or the right values may come out.

    make fuzz                                                   ten minutes, every subject
    .venv/bin/python tests/fuzz.py --minutes 60 --seed 1        longer, and other cases
    .venv/bin/python tests/fuzz.py oxuva --case 137             one case again, with its traceback

A finding is an exception that is none of ours, altered bytes that are read as good, a case that takes longer than LIMIT
seconds, more than MEMORY bytes, or the end of the process. Each is shown once, with the case that shows it again. The
last line says how many files were damaged, how many values drawn, and how much memory the largest process took.
"""

import argparse
import json
import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

LIMIT = 20.0  # seconds for one case: a hundred times what the slowest needs
START = 600.0  # seconds to make what is damaged: a smoke run, for some
MEMORY = 2 * 2**30  # bytes that a case may take on top of the libraries


@dataclass
class Tally:
    """How the cases of one subject ended; findings by what tells them apart, each with its first case and its text."""

    name: str
    ends: Counter[str] = field(default_factory=Counter)
    peak: int = 0  # bytes of the largest child, libraries included
    findings: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        return sum(self.ends.values())

    def add(self, number: int, end: str, where: str = "", text: str = "") -> None:
        self.ends[end] += 1
        if end not in ("refused", "read"):
            self.findings.setdefault(f"{end}: {where}", (number, text))


# -- the child: cases, one line each ----------------------------------------------------------------------------------


def child(name: str, seed: int, first: int, seconds: float) -> None:
    """Run cases from `first` on until the time is up. Prints the number of each before it begins, and how it ended."""
    from subjects import Trial

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        isolate(Path(folder))
        trial = Trial(find(name), Path(folder) / "trial")
        limit_memory()
        print("ready", flush=True)
        end = time.monotonic() + seconds
        number, peak = first, 0
        while time.monotonic() < end:
            print(f"begin {number}", flush=True)
            print(json.dumps([number, *attempt(trial, seed, number)]), flush=True)
            if (most := largest_memory()) > peak:
                print(f"peak {(peak := most)}", flush=True)
            number += 1


def attempt(trial, seed: int, number: int) -> tuple[str, str, str]:
    """How a case ended, where, and the traceback of a finding."""
    from subjects import Unnoticed

    from labkit.errors import LabkitError

    try:
        trial.run(seed, number)
    except LabkitError as error:
        return ("refused", "", "") if str(error).strip() else ("silent", "an error without a text", "")
    except Unnoticed as error:
        return "unnoticed", str(error), ""
    except MemoryError:
        return "memory", origin(sys.exception()), traceback.format_exc()
    except Exception as error:
        kind = "memory" if "allocate memory" in str(error) else "raw"
        return kind, f"{type(error).__name__} {origin(error)}", traceback.format_exc()
    return "read", "", ""


def origin(error: BaseException | None) -> str:
    """The line of labkit where an exception came from."""
    lines = traceback.extract_tb(error.__traceback__) if error else []
    ours = [line for line in lines if "labkit" in Path(line.filename).parts and "site-packages" not in line.filename]
    line = (ours or list(lines))[-1]
    return f"{Path(line.filename).name}:{line.lineno} {line.name}"


def find(name: str):
    from subjects import subjects

    return next(subject for subject in subjects() if subject.name == name)


def isolate(folder: Path) -> None:
    """Nothing is read from, or written to, the places of whoever calls this."""
    import torch

    from labkit.workbench import runs

    for variable in ("LABKIT_RUNS", "LABKIT_RECORDS", "LABKIT_DATA"):
        os.environ[variable] = str(folder / variable)
    os.environ["LABKIT_PROGRESS"] = "0"
    torch.set_num_threads(1)
    runs._tensorboard_missing = True  # its files are not ours to read


def largest_memory() -> int:
    """Bytes that this process has held at most; its libraries, and what made the files, are among them."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def limit_memory() -> None:
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


# -- the parent: one child after another, watched ---------------------------------------------------------------------


def watch(name: str, seed: int, seconds: float) -> Tally:
    """Children for one subject until its time is up; one that hangs is killed, and the next goes on behind it."""
    tally, number, left = Tally(name), 0, seconds
    while left > 0:
        begun = time.monotonic()
        number, alive = _one_child(tally, name, seed, number, left)
        left -= time.monotonic() - begun
        if not alive:
            break
    return tally


def _one_child(tally: Tally, name: str, seed: int, first: int, seconds: float) -> tuple[int, bool]:
    """The number to go on from, and whether it is of use to go on."""
    command = [sys.executable, __file__, name, "--child", "--seed", str(seed), "--case", str(first)]
    lines: queue.Queue[str] = queue.Queue()
    number, limit = first, START
    command += ["--minutes", str(seconds / 60)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        threading.Thread(target=lambda: [*map(lines.put, process.stdout or ()), lines.put("")], daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=limit)
            except queue.Empty:
                process.kill()
                tally.add(number, "hang", f"more than {limit:.0f} s")
                return number + 1, limit == LIMIT
            if not line:
                break
            if line.startswith("ready"):
                limit = LIMIT
            elif line.startswith("begin "):
                number = int(line.split()[1])
            elif line.startswith("peak "):
                tally.peak = max(tally.peak, int(line.split()[1]))
            elif line.startswith("["):  # libraries print, too
                tally.add(*json.loads(line))
        if not process.wait():
            return number + 1, False
        errors.seek(0)
        when = ", before it began" if limit == START else ""
        tally.add(number, "crash", f"exit code {process.returncode}{when}", errors.read()[-2000:])
        return number + 1, limit == LIMIT


def report(tallies: list[Tally], seed: int, without_files: Collection[str] = ()) -> str:
    """A line a subject, then each finding once, then what it was in all.

    without_files: the subjects that draw values in place of damaging files.
    """
    rows = [f"{'subject':<22}{'cases':>8}{'refused':>9}{'read':>8}{'findings':>10}"]
    for tally in tallies:
        counts = (tally.cases, tally.ends["refused"], tally.ends["read"], len(tally.findings))
        rows.append(f"{tally.name:<22}{counts[0]:>8}{counts[1]:>9}{counts[2]:>8}{counts[3]:>10}")
    for tally in tallies:
        for what, (number, words) in tally.findings.items():
            again = f"tests/fuzz.py {tally.name} --seed {seed} --case {number}"
            rows.append(f"\n{tally.name}, {what}\n    again: {again}\n{words}".rstrip())
    drawn = sum(tally.cases for tally in tallies if tally.name in without_files)
    files = sum(tally.cases for tally in tallies) - drawn
    findings = sum(len(tally.findings) for tally in tallies)
    peak = max(tally.peak for tally in tallies)
    rows.append(
        f"\n{files:,} damaged files and {drawn:,} drawn values in {len(tallies)} subjects: {findings} findings; the "
        f"largest process took {peak / 1e6:,.0f} MB"
    )
    return "\n".join(rows)


def again(name: str, seed: int, number: int) -> None:
    """One case in this process; raises what it raises."""
    from subjects import Trial

    with tempfile.TemporaryDirectory() as folder:
        isolate(Path(folder))
        print(Trial(find(name), Path(folder) / "trial").run(seed, number))


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Damage everything that labkit reads, and watch.")
    parser.add_argument("names", nargs="*", help="subjects; default: all")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this case alone")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.child:
        child(given.names[0], given.seed, given.case, 60 * given.minutes)
        return 0
    if given.case is not None:
        again(given.names[0], given.seed, given.case)
        return 0
    from subjects import subjects

    every = subjects()
    known = [subject.name for subject in every]
    if unknown := set(given.names) - set(known):
        parser.error(f"there is no subject {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    names = given.names or known
    seconds = 60 * given.minutes * given.jobs / len(names)
    with ThreadPoolExecutor(given.jobs) as pool:
        tallies = list(pool.map(lambda name: watch(name, given.seed, seconds), names))
    print(report(tallies, given.seed, [subject.name for subject in every if subject.draw]))
    return int(any(tally.findings for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
