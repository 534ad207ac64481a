"""The eleven benchmarks by name: how each is read, and which protocol scores it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from labkit.data import registry
from labkit.data.tracking.lasot import lasot, trackingnet
from labkit.data.tracking.nfs import nfs
from labkit.data.tracking.otb import otb2013, otb2015, tc128
from labkit.data.tracking.oxuva import oxuva
from labkit.data.tracking.sequence import Sequence
from labkit.data.tracking.uav import uav20l, uav123
from labkit.data.tracking.vot import vot
from labkit.errors import DataError, InputError, nearest

Protocol = Literal["ope", "vot", "oxuva", "server"]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as the runner sees it.

    read: a folder in the registered layout to sequences, one after the other.
    protocol: 'ope' one pass from the first box; 'vot' with resets; 'oxuva' long-term with presence; 'server' elsewhere.
    invisible: what frames without a usable box are in one-pass scores: 'excluded', or 'missed' (counted as errors).
    window: run lengths over which VOT averages its expected overlap.
    """

    name: str
    read: Callable[[Path], Iterator[Sequence]]
    protocol: Protocol
    invisible: Literal["excluded", "missed"] = "excluded"
    window: tuple[int, int] | None = None


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("otb2013", otb2013, "ope"),
        Benchmark("otb2015", otb2015, "ope"),
        Benchmark("tc128", tc128, "ope"),
        Benchmark("uav123", uav123, "ope"),
        Benchmark("uav20l", uav20l, "ope"),
        Benchmark("nfs", nfs, "ope"),
        Benchmark("trackingnet", trackingnet, "server"),
        Benchmark("lasot", lasot, "ope", invisible="missed"),
        Benchmark("vot2018", vot, "vot", window=(100, 356)),
        Benchmark("vot2019", vot, "vot", window=(46, 291)),
        Benchmark("oxuva", oxuva, "oxuva"),
    )
}


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises InputError that names the nearest ones.
    """
    if name not in BENCHMARKS:
        near = nearest(name.lower().replace("-", ""), BENCHMARKS)
        raise InputError(f"there is no tracking benchmark '{name}'; did you mean {near}?")
    return BENCHMARKS[name]


def load(name: str, *, first: int | None = None) -> list[Sequence]:
    """A benchmark's sequences from LABKIT_DATA, `first` of them or all; frames stay on disk.

    Raises DataError when the benchmark is not there: the text says where it comes from and which layout is expected.
    """
    chosen = benchmark(name)
    if first is not None and first < 1:
        raise InputError(f"first must be 1 or more; got {first}.")
    folder = registry.require(name)
    sequences = list(islice(chosen.read(folder), first))
    if not sequences:
        raise DataError(f"{folder} holds no sequence in the layout {registry.get(name).layout}.")
    return sequences
