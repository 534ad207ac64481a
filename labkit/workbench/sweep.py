"""Many runs of one paper, over all combinations of some fields: each run is a process with a notebook of its own.

Where the processes run is an engine's business: threads of this process, Ray, Slurm. All engines call `work`, which
starts `labkit run` on the job's folder, and again with --resume when the process was killed. What is finished is not
run again, so that a stopped sweep goes on when it is given once more.
"""

import csv
import io
import itertools
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labkit.errors import InputError, RunError
from labkit.files import not_through_links, write_atomically, write_json
from labkit.metrics.intervals import Interval, student
from labkit.workbench.claims import effect_of, read
from labkit.workbench.experiment import Paper
from labkit.workbench.run_files import read_object

PROGRAM = [sys.executable, "-m", "labkit", "run"]  # what a job starts; its options follow
MOST_JOBS = 10_000
LOOK = 0.1  # seconds between two looks at a process
RAY_STARTS = 3  # attempts at a Ray of our own
PAUSE = 2.0  # seconds before another attempt: a notebook's kernel ends a second after the process that started it
# Linux ends a process with the one that started it when asked to: else a killed worker's run would go on beside the
# run that takes its place
TOGETHER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])
"""
CANNOT_START = 2  # exit code of labkit: the input is wrong, and will be wrong again

Report = Callable[["Job", str], None]


@dataclass(frozen=True)
class Job:
    """One combination: what is typed for it, the folder of its run, and the program that takes both."""

    values: Mapping[str, str]
    command: tuple[str, ...]
    directory: str
    program: tuple[str, ...]

    @property
    def name(self) -> str:
        return Path(self.directory).name

    @property
    def finished(self) -> bool:
        return (Path(self.directory) / "result.json").exists()


@dataclass(frozen=True)
class Ended:
    """How a job ended: exit code of its last process, 0 for done; and how many processes it took, 0 if it was done."""

    directory: str
    code: int
    attempts: int


# -- which runs -------------------------------------------------------------------------------------------------------


def alternatives(text: str) -> list[str]:
    """What a field takes in turn: '5,10,20', or whole numbers '0..4', or both; commas within [] or "" do not separate.

    Raises:
        InputError: nothing between two commas, a range that runs backwards, or a value twice.
    """
    values: list[str] = []
    for part in _split(text):
        first, dots, last = part.partition("..")
        if dots and first.lstrip("-").isdigit() and last.lstrip("-").isdigit():
            if int(last) < int(first):
                raise InputError(f"the range {part} runs backwards; write {last}..{first}.")
            if int(last) - int(first) >= MOST_JOBS:
                raise InputError(f"the range {part} holds more than {MOST_JOBS:,} values.")
            values.extend(map(str, range(int(first), int(last) + 1)))
        else:
            values.append(part)
    if not all(values):
        raise InputError(f"'{text}' has nothing between two commas, or at an end.")
    if len(set(values)) < len(values):
        raise InputError(f"'{text}' holds a value twice. The same run twice tells nothing new.")
    return values


def _split(text: str) -> list[str]:
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "[{") - (letter in "]}")
        if letter == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def plan(paper: Paper, scale: str, grid: Mapping[str, Sequence[str]], device: str | None, root: Path) -> list[Job]:
    """A job for every combination, each config checked: every mistake is named before anything starts.

    Raises:
        ConfigError: a field does not exist, or a value is not allowed.
        InputError: too many combinations.
    """
    if (count := math.prod(map(len, grid.values()))) > MOST_JOBS:
        raise InputError(f"these are {count:,} combinations, and {MOST_JOBS:,} is the most.")
    jobs = []
    for number, combination in enumerate(itertools.product(*grid.values())):
        values = dict(zip(grid, combination, strict=True))
        paper.config(scale).override_text({**values, **({"device": device} if device else {})})
        words = [paper.slug, "--scale", scale, *(word for pair in values.items() for word in ("-p", "=".join(pair)))]
        words += ["--device", device] if device else []
        jobs.append(Job(values, tuple(words), str(root / f"{number:04d}"), tuple(PROGRAM)))
    return jobs


def claim_folder(root: Path, jobs: Sequence[Job]) -> None:
    """Write down what the sweep in `root` consists of; the one that is there already must be the same.

    Raises:
        InputError: `root` holds another sweep.
    """
    plan = {"jobs": [{"values": dict(job.values), "command": list(job.command)} for job in jobs]}
    path = root / "sweep.json"
    if path.exists() and read_object(path) != plan:
        raise InputError(f"{root} holds another sweep. Give its own parameters to go on with it, or another --out.")
    if not path.exists():
        write_json(path, plan)


# -- running one ------------------------------------------------------------------------------------------------------


def work(
    job: Job, retries: int, environment: Mapping[str, str] | None = None, stopped: threading.Event | None = None
) -> Ended:
    """Run the job in a process, again while it is killed; what it prints goes to `log.txt` in its folder.

    Args:
        retries: how often a process that was killed or failed is started again; what it had saved is used.
        environment: added to this process's own.
        stopped: once it is set, the process is ended, and none is started.
    """
    stopped = stopped or threading.Event()
    directory = Path(job.directory)
    if job.finished:
        return Ended(job.directory, 0, 0)
    directory.mkdir(parents=True, exist_ok=True)
    code, attempt = -signal.SIGINT, 0
    while attempt <= retries and not stopped.wait(PAUSE if attempt else 0):
        attempt += 1
        code = _process(job, {**os.environ, **(environment or {}), "LABKIT_PROGRESS": "0"}, stopped)
        if code in (0, CANNOT_START):
            break
    return Ended(job.directory, code, attempt)


def _process(job: Job, environment: Mapping[str, str], stopped: threading.Event) -> int:
    directory = Path(job.directory)
    resume = ["--resume"] if (directory / "config.json").exists() else []
    with open(directory / "log.txt", "ab", opener=not_through_links) as log:
        child = subprocess.Popen(
            [sys.executable, "-c", TOGETHER, *job.program, *job.command, "--run-dir", str(directory), *resume],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None:
                if stopped.wait(LOOK):
                    break
        finally:
            _end(child)  # and what it started: a kernel may outlive the process that started it
    return child.wait()


def _end(child: subprocess.Popen) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all of its group have ended


# -- engines ----------------------------------------------------------------------------------------------------------


def in_threads(jobs: Sequence[Job], at_once: int, retries: int, gpus: Sequence[str], report: Report) -> list[Ended]:
    """A process per job, `at_once` at a time, on this machine; with `gpus` each job has one to itself."""
    free: queue.Queue[str] = queue.Queue()
    for gpu in gpus:
        free.put(gpu)
    threads = str(max(1, (os.cpu_count() or 1) // at_once))

    stopped = threading.Event()

    def one(job: Job) -> Ended:
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
        gpu = free.get() if gpus else None
        try:
            return work(job, retries, {**environment, **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}, stopped)
        finally:
            if gpu:
                free.put(gpu)

    with ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(one, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                report(futures[future], outcome(future.result()))
        except BaseException:  # Ctrl-C: the processes end, and what they have saved stays
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def on_ray(jobs: Sequence[Job], at_once: int, retries: int, gpus: float, address: str, report: Report) -> list[Ended]:
    """A Ray task per job, on this machine's own Ray or on the cluster at `address`, whose nodes share the folders.

    A worker or a node that dies is replaced by Ray, and the job goes on from its checkpoint. A Ray of our own listens
    on the loopback address alone.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not address:  # read when Ray is imported: without a cluster it listens on the loopback address
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = _module("ray", "ray")
    with _cluster(ray, address, at_once):
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=retries)(_elsewhere)
        waiting = {task.remote(asdict(job), retries): job for job in jobs}
        ended: dict[str, Ended] = {}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(done)
            try:
                ended[job.directory] = Ended(**ray.get(done))
            except ray.exceptions.RayError as error:
                write_atomically(Path(job.directory) / "ray.txt", f"{error}\n".encode())
                ended[job.directory] = Ended(job.directory, 1, retries + 1)
            report(job, outcome(ended[job.directory]))
    return [ended[job.directory] for job in jobs]


def _elsewhere(job: Mapping[str, Any], retries: int) -> dict[str, Any]:
    """A job in a process of the engine's own, which may be on another machine."""
    return asdict(work(Job(**job), retries))


def _start(ray: Any, **options: Any) -> None:
    """A Ray of our own. It gives its processes thirty seconds, which a busy machine may not have at first."""
    for _ in range(RAY_STARTS):
        try:
            ray.init(**options)
            return
        except Exception as error:  # a bare one is what Ray raises
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
    raise RunError(
        f"Ray did not start within 30 seconds, {RAY_STARTS} times: this machine is too busy. Give the command again "
        "later, or without --engine ray."
    )


@contextmanager
def _cluster(ray: Any, address: str, at_once: int) -> Iterator[None]:
    if address:
        ray.init(address=address, log_to_driver=False)
    else:
        _start(ray, num_cpus=at_once, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def on_slurm(
    jobs: Sequence[Job], at_once: int, retries: int, gpus: int, options: Mapping[str, Any], root: Path, report: Report,
    cluster: str = "slurm",
) -> list[Ended]:  # fmt: skip
    """A job array of Slurm through submitit, `at_once` of its jobs at a time; the nodes share the folders.

    Args:
        options: of submitit's `update_parameters`, such as slurm_partition or timeout_min.
        cluster: submitit's name of the scheduler; "local" starts the same processes on this machine.
    """
    submitit = _module("submitit", "submitit")
    array = {"slurm_array_parallelism": at_once} if cluster == "slurm" else {}
    try:
        executor = submitit.AutoExecutor(folder=root / "slurm", cluster=cluster)
        executor.update_parameters(**{"name": "labkit-sweep", "gpus_per_node": gpus, **array, **options})
    except (RuntimeError, NameError, AssertionError) as error:  # no Slurm here, an unknown option, a wrong type
        raise InputError(f"submitit: {error}") from error
    tasks = executor.map_array(_elsewhere, map(asdict, jobs), [retries] * len(jobs))
    waiting = dict(zip(tasks, jobs, strict=True))
    ended: dict[str, Ended] = {}
    try:
        while waiting:
            for task in [task for task in waiting if task.done()]:
                job = waiting.pop(task)
                failure = task.exception()
                ended[job.directory] = Ended(job.directory, 1, retries + 1) if failure else Ended(**task.result())
                report(job, outcome(ended[job.directory]))
            time.sleep(0.5 if waiting else 0)
    except BaseException:
        for task in waiting:
            task.cancel(check=False)
        raise
    return [ended[job.directory] for job in jobs]


def _module(name: str, package: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise InputError(
            f"this engine needs {package}: pip install 'labkit[cluster]'. Without: --engine threads"
        ) from None


def outcome(ended: Ended) -> str:
    """In words, for a progress line."""
    if ended.code == 0:
        again = f" after {ended.attempts} attempts" if ended.attempts > 1 else ""
        return "was finished" if ended.attempts == 0 else f"done{again}"
    why = f"killed by {signal.Signals(-ended.code).name}" if ended.code < 0 else f"exit code {ended.code}"
    return f"failed: {why}, see {ended.directory}/log.txt"


# -- what came out ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A combination without its seed, and the interval over seeds of every effect that was measured."""

    values: Mapping[str, str]
    effects: Mapping[str, Interval]


def gather(paper: Paper, jobs: Sequence[Job], measures: Sequence[str]) -> list[Row]:
    """One row a combination.

    Args:
        measures: numbers of the result by their path, such as "SHER.success"; none: the effects of the paper's claims,
            at whatever scale.

    Raises:
        InputError: no result has a number there.
        RunError: a result has not the form that a claim reads.
    """
    groups: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
    for job in jobs:
        values = tuple((name, value) for name, value in job.values.items() if name != "seed")
        groups.setdefault(values, []).append(read_object(Path(job.directory) / "result.json") or {})
    rows = [Row(dict(values), _effects(paper, results, measures)) for values, results in groups.items()]
    for path in measures:
        if not any(path in row.effects for row in rows):
            raise InputError(f"no result of this sweep has a number at '{path}'; they hold {_examples(groups)}, ...")
    return rows


def _effects(paper: Paper, results: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> dict[str, Interval]:
    """What was measured: numbers by their path, or as in the ledger."""
    if not measures:
        effects = {claim.key: effect_of(claim, results, "a result of this sweep") for claim in paper.claims}
        return {name: effect for name, effect in effects.items() if effect}
    values = {path: [read(result, *path.split(".")) for result in results] for path in measures}
    numbers = {path: [float(value) for value in each if _is_number(value)] for path, each in values.items()}
    return {path: student(each) for path, each in numbers.items() if each}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _examples(groups: Mapping[Any, Sequence[Mapping[str, Any]]]) -> str:
    def leaves(value: Any, path: tuple[str, ...]) -> Iterator[str]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from leaves(inner, (*path, key))
        elif _is_number(value):
            yield ".".join(path)

    results = (result for group in groups.values() for result in group)
    return ", ".join(itertools.islice((leaf for result in results for leaf in leaves(result, ())), 5))


def as_csv(rows: Sequence[Row]) -> str:
    """A line a combination and effect: the fields, effect, mean, ends of the 95 % interval, seeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(rows[0].values) if rows else []
    writer.writerow([*names, "effect", "mean", "low", "high", "seeds"])
    for row in rows:
        for name, interval in row.effects.items():
            writer.writerow([*row.values.values(), name, *interval])
    return text.getvalue()


def figure(rows: Sequence[Row], title: str) -> Any:
    """The intervals of every effect, a panel each, a dot a combination; matplotlib."""
    from matplotlib.figure import Figure

    effects = list(dict.fromkeys(name for row in rows for name in row.effects))
    if not effects:
        raise RunError("nothing was measured in this sweep.")
    labels = [", ".join(f"{name}={value}" for name, value in row.values.items()) or "all" for row in rows]
    drawn = Figure(figsize=(3.6 * min(3, len(effects)), 0.6 + 2.4 * -(-len(effects) // 3)), layout="constrained")
    panels = drawn.subplots(-(-len(effects) // 3), min(3, len(effects)), squeeze=False).flat
    for axes, name in itertools.zip_longest(panels, effects):
        if name is None:
            axes.set_visible(False)
            continue
        at = [k for k, row in enumerate(rows) if name in row.effects]
        intervals = [rows[k].effects[name] for k in at]
        reach = [[max(0.0, i.value - i.low) if i.replicates > 1 else 0.0 for i in intervals],
                 [max(0.0, i.high - i.value) if i.replicates > 1 else 0.0 for i in intervals]]  # fmt: skip
        axes.errorbar(at, [interval.value for interval in intervals], yerr=reach, fmt="o", color="#1f6fb4", capsize=3)
        axes.set_title(name, size=9)
        axes.set_xticks(range(len(rows)), labels, rotation=30, ha="right", size=7)
        axes.grid(axis="y", alpha=0.3)
    drawn.suptitle(title, size=10)
    return drawn


def report_files(rows: Sequence[Row], title: str, root: Path) -> tuple[Path, Path]:
    """The table and the plot, in the sweep's folder."""
    table, plot = root / "sweep.csv", root / "sweep.png"
    write_atomically(table, as_csv(rows).encode())
    picture = io.BytesIO()
    figure(rows, title).savefig(picture, format="png", dpi=160)
    write_atomically(plot, picture.getvalue())
    return table, plot
