"""Side-by-side timings. The rivals take turns in one process, so that a busy machine slows them all alike."""

import importlib.util
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from labkit import paths
from labkit.devices import kind_of
from labkit.errors import InputError
from labkit.workbench.records import Record
from labkit.workbench.runs import environment


@dataclass(frozen=True)
class BenchRow:
    """One workload, ours against one peer. A ratio above 1 means that we are ahead."""

    workload: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    lower_is_better: bool = True

    @property
    def ratio(self) -> float:
        return self.peer / self.ours if self.lower_is_better else self.ours / self.peer


def milliseconds(call: Callable[[], object], device: torch.device, clock: Callable[[], float] | None = None) -> float:
    """Wall time of one call (or what `clock` counts, in seconds); on a GPU from an idle device to an idle device."""
    clock = clock or time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (clock() - start)


def compare(
    candidates: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int = 30,
    warm_up: int = 3,
    clock: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Best time of each candidate in milliseconds. They take turns; the minimum is the least disturbed measurement.

    Every second round goes backwards: what one leaves in cache and memory would else always meet the same other.
    Calls longer than the scheduler's time slice are never undisturbed on a busy machine: for those that compute in one
    process on the CPU, `clock=time.process_time` counts the CPU-seconds of this process alone.
    """
    for _, call in itertools.product(range(warm_up), candidates.values()):
        call()
    best = dict.fromkeys(candidates, math.inf)
    turns = list(candidates.items())
    for k in range(rounds):
        for name, call in turns[:: -1 if k % 2 else 1]:
            best[name] = min(best[name], milliseconds(call, device, clock))
    return best


def script(slug: str) -> Path:
    """`benchmarks/<slug>.py`, which stands outside of the package because it may use any peer."""
    return paths.root() / "benchmarks" / f"{slug}.py"


def rows(slug: str, device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """What the benchmark of a paper measures in about `seconds`.

    Raises:
        InputError: the paper has no benchmark, or no time is given to it.
    """
    if not 0 < seconds < math.inf:
        raise InputError(f"--seconds must be above 0; got {seconds:g}.")
    path = script(slug)
    if not path.exists():
        raise InputError(f"there is no benchmark for '{slug}' (looked for benchmarks/{slug}.py).")
    spec = importlib.util.spec_from_file_location(f"benchmark_{slug}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass or a pickle in it would look
    spec.loader.exec_module(module)
    yield from module.rows(device, seconds)


def record(slug: str, device: torch.device, seconds: float, repeats: int, command: str) -> Record:
    """Measure a paper's benchmark several times, and write data/records/<slug>/bench-<device>.json.

    Claims of the scale "bench" are judged by it. A record's "seeds" are the repetitions, its results hold the rows.

    Raises:
        InputError: the paper has no benchmark.
        RunError: the record cannot be written.
    """
    results, spent = [], []
    for _ in range(repeats):
        start = time.monotonic()
        lines = [asdict(row) | {"ratio": row.ratio} for row in rows(slug, device, seconds)]
        results.append({"device": device.type, "rows": lines})
        spent.append(round(time.monotonic() - start, 1))
    measured = Record(
        paper=slug,
        scale="bench",
        device=kind_of(device),
        seeds=list(range(repeats)),
        results=results,
        config={"seconds": seconds, "threads": torch.get_num_threads()},
        environment=environment(),
        wall_seconds=spent,
        command=command,
        recorded=time.strftime("%Y-%m-%d"),
    )
    measured.write()
    return measured
