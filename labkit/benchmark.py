"""Side-by-side timings. The rivals take turns in one process, so that a busy machine slows them all alike."""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


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


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call; on a GPU from an idle device to an idle device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - start)


def compare(
    candidates: dict[str, Callable[[], object]], device: torch.device, rounds: int = 30, warm_up: int = 3
) -> dict[str, float]:
    """Best time of each candidate in milliseconds. They take turns; the minimum is the least disturbed measurement."""
    for _, call in itertools.product(range(warm_up), candidates.values()):
        call()
    best = dict.fromkeys(candidates, math.inf)
    for _, (name, call) in itertools.product(range(rounds), candidates.items()):
        best[name] = min(best[name], milliseconds(call, device))
    return best
