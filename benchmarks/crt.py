"""Side by side: the cascade against OpenCV's trackers and a box that never moves; its kernels against their floors.

    labkit bench crt                     rows, within about --seconds
    python benchmarks/crt.py             the whole table: every tracker on every frame of the five real sequences

Trackers take turns sequence by sequence, one thread each, and are timed in CPU seconds without reading frames: another
program on the machine slows nobody. Where LABKIT_DATA has no real sequences, generated clips take their place.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.data.tracking import Sequence, development
from labkit.data.tracking.development import is_there
from labkit.metrics.tracking import OnePass
from labkit.papers.crt.experiment import data
from labkit.papers.crt.experiment.tracking import arm_tracker, track_together
from labkit.papers.crt.method.cascade import Cascade
from labkit.papers.crt.method.prroi import pool, pool_whole
from labkit.papers.crt.method.ridge import fit
from labkit.tracking.peers import OpenCVTracker, StaticBox
from labkit.tracking.runner import Trajectory, one_pass_score, run
from labkit.tracking.tracker import Tracker
from labkit.workbench.benchmark import BenchRow, compare

OURS = "cascade"
PEERS = ("CSRT", "KCF", "MIL", "static")
RIDGE = ((200, 512), (500, 512), (1000, 512), (2000, 512), (500, 1024), (500, 2304), (200, 4608), (500, 4608))
"""n, d of the sheet's timing table, as far as both forms finish in a second."""

FULL_TABLE_SECONDS = 240.0
"""About what all trackers on all frames of the five sequences take on one core."""

Score = tuple[OnePass, Trajectory]


def trackers(device: torch.device) -> dict[str, Callable[[], Tracker]]:
    """What stands in the table; ours first."""
    ours = {name: functools.partial(arm_tracker, name, device) for name in (OURS, "stage-1")}
    peers = {name: functools.partial(OpenCVTracker, name) for name in ("CSRT", "KCF", "MIL")}
    return {**ours, **peers, "static": StaticBox}


def sequences(seconds: float) -> tuple[list[Sequence], str]:
    """The real sequences, cut so that the table fits into `seconds`, and in words what they are."""
    whole = development() if is_there() else data.clips("walkers", 5, seed=7)
    what = "five real sequences" if is_there() else "five generated clips"
    if seconds >= FULL_TABLE_SECONDS:
        return whole, what
    keep = max(20, int(seconds / FULL_TABLE_SECONDS * sum(map(len, whole)) / len(whole)))
    return [sequence.part(0, min(keep, len(sequence))) for sequence in whole], f"first {keep} frames of {what}"


def table(shown: list[Sequence], device: torch.device) -> dict[str, dict[str, Score]]:
    """Every tracker on every sequence, taking turns."""
    scores: dict[str, dict[str, Score]] = {}
    for sequence in shown:
        for name, make in trackers(device).items():
            result = run(make(), sequence)
            scores.setdefault(name, {})[sequence.name] = one_pass_score(result, sequence), result
    return scores


def speed(scores: dict[str, Score]) -> float:
    """Frames per CPU second over all sequences."""
    spent = sum(float(result.seconds[1:].sum()) for _, result in scores.values())
    return sum(len(result.seconds) - 1 for _, result in scores.values()) / max(spent, 1e-9)


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """Means over the sequences per peer, AUC per sequence, then kernels; two thirds of the time go to the trackers."""
    shown, what = sequences(seconds * 2 / 3)
    results = table(shown, device)
    for name in (*PEERS, "stage-1"):
        for measure, unit in (("auc", "AUC"), ("precision_at_20", "P@20")):
            ours, peer = (
                float(np.mean([getattr(s, measure) for s, _ in results[who].values()])) for who in (OURS, name)
            )
            yield BenchRow(f"{what}, mean", unit, ours, peer, name, lower_is_better=False)
        if name != "static":
            pair = speed(results[OURS]), speed(results[name])
            yield BenchRow(f"{what}, speed", "frames/CPU s", *pair, name, lower_is_better=False)
    for sequence in shown:
        pair = results[OURS][sequence.name][0].auc, results["CSRT"][sequence.name][0].auc
        yield BenchRow(f"{sequence.name}, {len(sequence)} frames", "AUC", *pair, "CSRT", lower_is_better=False)
    rounds = max(3, min(30, int(seconds / 6)))
    yield from ridge_rows(device, rounds)
    yield from prroi_rows(device, rounds)
    yield together_row(device, 64 if device.type == "cuda" else 4)


# ---- kernels --------------------------------------------------------------------------------------------------------


def best_of(candidates: dict[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, float]:
    """Best time of each in ms, taking turns: wall time on a GPU, CPU time on a CPU, which others may keep busy."""
    clock = None if device.type == "cuda" else time.process_time
    return compare(candidates, device, rounds, warm_up=1, clock=clock)


def ridge_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """The form that `fit` picks against the other one; then against its floor, the one product it cannot do without."""
    for n, d in RIDGE:
        best = best_of(ridge_rivals(n, d, device), device, rounds)
        picked, other = ("dual", "primal") if n < d else ("primal", "dual")
        yield BenchRow(f"ridge n={n} d={d}, {picked}", "ms", best[picked], best[other], other)
        yield BenchRow(f"ridge n={n} d={d}, {picked}", "ms", best[picked], best["gram"], "floor: its Gram matrix alone")
    if device.type == "cpu":
        yield sklearn_row(500, 1024, rounds)


def problem(n: int, d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(1, n, d, generator=generator).to(device),
        torch.randn(1, n, generator=generator).to(device),
    )


def ridge_rivals(n: int, d: int, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Both forms on the same rows, and the smaller Gram matrix by itself."""
    x, y = problem(n, d, device)
    return {
        "dual": lambda: fit(x, y, 0.1, form="dual"),
        "primal": lambda: fit(x, y, 0.1, form="primal"),
        "gram": lambda: x @ x.mT if n < d else x.mT @ x,
    }


def sklearn_row(n: int, d: int, rounds: int) -> BenchRow:
    """The same problem by scikit-learn, which picks the dual form there as well."""
    from sklearn.linear_model import Ridge

    x, y = problem(n, d, torch.device("cpu"))
    model, samples, labels = Ridge(alpha=0.1, fit_intercept=False, solver="cholesky"), x[0].numpy(), y[0].numpy()
    np.testing.assert_allclose(fit(x, y, 0.1)[0].numpy(), model.fit(samples, labels).coef_, atol=1e-3)
    best = best_of({"ours": lambda: fit(x, y, 0.1), "peer": lambda: model.fit(samples, labels)}, x.device, rounds)
    return BenchRow(f"ridge n={n} d={d}, dual", "ms", best["ours"], best["peer"], "scikit-learn, Cholesky")


def prroi_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """The sheet's case, 512 boxes on 256 maps; and what the cascade asks for in a frame with 12 candidates."""
    generator = torch.Generator().manual_seed(0)
    for channels, side, count, bins in ((256, 36, 512, 5), (16, 40, 108, 6)):
        maps = torch.randn(1, channels, side, side, generator=generator).to(device)
        corner = torch.rand(1, count, 2, generator=generator) * side * 0.7
        extent = torch.rand(1, count, 2, generator=generator) * side * 0.25 + 1
        boxes = torch.cat([corner, extent], -1).to(device)
        out = pool(maps, boxes, bins)
        candidates = {
            "ours": lambda maps=maps, boxes=boxes, bins=bins: pool(maps, boxes, bins),
            "whole": lambda maps=maps, boxes=boxes, bins=bins: pool_whole(maps, boxes, bins),
            "sampled": lambda maps=maps, boxes=boxes, bins=bins: sampled(maps, boxes, bins),
            # read the maps once, write the result once
            "floor": lambda maps=maps, out=out: (maps.clone(), out.clone()),
        }
        best = best_of(candidates, device, rounds)
        name = f"PrRoI pooling, {count} boxes, {channels} maps of {side}x{side}, {bins}x{bins}"
        yield BenchRow(name, "ms", best["ours"], best["whole"], "the same, products over the whole map")
        yield BenchRow(name, "ms", best["ours"], best["sampled"], "RoIAlign's way, 2x2 samples a bin")
        yield BenchRow(name, "ms", best["ours"], best["floor"], "floor: copying maps and result")


def sampled(maps: Tensor, boxes: Tensor, bins: int) -> Tensor:
    """Bilinear samples at 2 x 2 points of each bin, averaged: not differentiable in the box in the right way."""
    side = torch.tensor(maps.shape[:1:-1], device=maps.device)
    steps = (torch.arange(2 * bins, device=maps.device) + 0.5) / (2 * bins)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    points = boxes[0, :, None, None, :2] + torch.stack([x, y], -1) * boxes[0, :, None, None, 2:]
    grid = (2 * points / side - 1).reshape(1, -1, 2 * bins, 2)
    points = F.grid_sample(maps, grid, align_corners=False)
    pooled = F.avg_pool2d(points.reshape(maps.shape[1], -1, 2 * bins, 2 * bins), 2)
    return pooled.transpose(0, 1)[None]


def together_row(device: torch.device, count: int) -> BenchRow:
    """Many targets in one batch against one after the other: what batching over sequences is worth."""
    clips = data.clips("walkers", min(count, 4), seed=3, frames=9)
    clips = [replace(clips[k % len(clips)], name=f"clip {k}") for k in range(count)]
    candidates = {
        "together": lambda: track_together(Cascade(device=device), clips),
        "alone": lambda: [track_together(Cascade(device=device), [clip]) for clip in clips],
    }
    best = best_of(candidates, device, rounds=2)
    each = best["together"] / count / 9, best["alone"] / count / 9
    return BenchRow(f"{count} targets, 9 frames", "ms/target/frame", *each, "one after the other")


def main() -> None:
    """The whole table, as in the sheet: AUC / P@20 / frames per CPU second."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shown, what = sequences(math.inf)
    results = table(shown, device)
    print(f"{what}; AUC / P@20 / frames per CPU second")
    print(" " * 14 + "".join(f"{sequence.name:>24}" for sequence in shown) + f"{'mean':>24}")
    for name, scores in results.items():
        cells = [(one.auc, one.precision_at_20, result.frames_per_second) for one, result in scores.values()]
        cells.append((*np.mean([cell[:2] for cell in cells], axis=0).tolist(), speed(scores)))
        print(f"{name:<14}" + "".join(f"{f'{auc:.3f} / {p:.3f} / {rate:.0f}':>24}" for auc, p, rate in cells))
    for row in (*ridge_rows(device, 10), *prroi_rows(device, 10), together_row(device, 8)):
        print(f"{row.workload:<60}{row.ours:10.3f} {row.unit:<8}{row.peer:10.3f}  {row.ratio:6.2f}x  {row.peer_name}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
