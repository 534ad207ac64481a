"""Side by side: RoIAlign, overlap and suppression against other ways and their floors; clips a second; mAP's time.

    labkit bench lstr                    rows, within about --seconds
    python benchmarks/lstr.py            the same, as lines

Rivals take turns in one process. On a CPU time is CPU time, which other programs on the machine do not count into.
"""

import contextlib
import importlib.util
import io
import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import paths
from labkit.kernels.roi_align import roi_align
from labkit.kernels.tubelet_iou import tubelet_iou
from labkit.kernels.tubelet_nms import tubelet_nms
from labkit.metrics.detection import Boxes, ava, frame_map
from labkit.papers.lstr.experiment import actors
from labkit.papers.lstr.experiment.config import ARMS
from labkit.papers.lstr.method.network import Lstr
from labkit.workbench.benchmark import BenchRow, compare

ROI = (128, 256, 25, 7)
"""Boxes, channels, side of the map, bins: the sheet's case."""


def best_of(candidates: dict[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, float]:
    """Best time of each in ms, taking turns."""
    clock = None if device.type == "cuda" else time.process_time
    return compare(candidates, device, rounds, warm_up=1, clock=clock)


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    rounds = max(3, min(20, int(seconds / 4)))
    yield from roi_rows(device, rounds)
    yield from overlap_rows(device, rounds)
    yield from network_rows(device, max(2, rounds // 4))
    if device.type == "cpu":
        yield from metric_rows(max(1, rounds // 10))


# -- kernels ----------------------------------------------------------------------------------------------------------


def roi_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """RoIAlign as two products against gathering every sample, against one einsum, and against its memory floor."""
    count, channels, side, bins = ROI
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, channels, side, side, generator=generator).to(device)
    corner, extent = torch.rand(2, 1, count, 2, generator=generator)
    boxes = torch.cat([corner * side * 0.7, corner * side * 0.7 + 1 + extent * side * 0.3], -1).to(device)
    out = roi_align(maps, boxes, bins)
    assert (out - gathered(maps, boxes, bins)).abs().max() < 1e-3
    assert (out - einsum(maps, boxes, bins)).abs().max() < 1e-3
    best = best_of(
        {
            "ours": lambda: roi_align(maps, boxes, bins),
            "gather": lambda: gathered(maps, boxes, bins),
            "einsum": lambda: einsum(maps, boxes, bins),
            "floor": lambda: (maps.clone(), out.clone()),  # read the maps once, write the result once
        },
        device,
        rounds,
    )
    name = f"RoIAlign, {count} boxes, {channels} maps of {side}x{side}, {bins}x{bins}"
    for rival, what in (("gather", "every sample gathered"), ("einsum", "one einsum"), ("floor", "floor: copying")):
        yield BenchRow(name, "ms", best["ours"], best[rival], what)


def gathered(maps: Tensor, boxes: Tensor, bins: int) -> Tensor:
    """The definition: bilinear samples at 2 x 2 points a bin, averaged, by `grid_sample`."""
    side = torch.tensor(maps.shape[:1:-1], device=maps.device)
    steps = (torch.arange(2 * bins, device=maps.device) + 0.5) / (2 * bins)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    extent = boxes[0, :, None, None, 2:] - boxes[0, :, None, None, :2]
    points = boxes[0, :, None, None, :2] - 0.5 + torch.stack([x, y], -1) * extent
    grid = (2 * points / (side - 1) - 1).reshape(1, -1, 2 * bins, 2)
    samples = F.grid_sample(maps, grid, padding_mode="border", align_corners=True)
    pooled = F.avg_pool2d(samples.reshape(maps.shape[1], -1, 2 * bins, 2 * bins), 2)
    return pooled.transpose(0, 1)[None]


def einsum(maps: Tensor, boxes: Tensor, bins: int) -> Tensor:
    from labkit.kernels.roi_align import axis_weights

    x1, y1, x2, y2 = boxes.unbind(-1)
    across, down = axis_weights(x1, x2, bins, maps.shape[3]), axis_weights(y1, y2, bins, maps.shape[2])
    return torch.einsum("bniy,bcyx,bnjx->bncij", down, maps, across)


def overlap_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """Overlap of tubelets against the formula in one piece; suppression against one box after the other."""
    generator = torch.Generator().manual_seed(0)
    corner, extent = torch.rand(2, 600, 8, 2, generator=generator)
    tubelets = torch.cat([corner * 200, corner * 200 + 10 + extent * 60], -1).to(device)
    whole = tubelet_iou(tubelets, tubelets)
    best = best_of(
        {
            "ours": lambda: tubelet_iou(tubelets, tubelets),
            "whole": lambda: at_once(tubelets, tubelets),
            "floor": lambda: whole.clone(),
        },
        device,
        rounds,
    )
    name = "overlap of 600 x 600 tubelets of 8 frames"
    yield BenchRow(name, "ms", best["ours"], best["whole"], "all frames in one formula")
    yield BenchRow(name, "ms", best["ours"], best["floor"], "floor: writing the result")
    boxes, scores = tubelets.flatten(0, 1)[:2000, None], torch.rand(2000, generator=generator).to(device)
    assert tubelet_nms(boxes, scores, 0.5).tolist() == one_by_one(boxes, scores, 0.5).tolist()
    best = best_of(
        {
            "ours": lambda: tubelet_nms(boxes, scores, 0.5),
            "plain": lambda: one_by_one(boxes, scores, 0.5),
            "floor": lambda: tubelet_iou(boxes, boxes),
        },
        device,
        max(2, rounds // 3),
    )
    yield BenchRow("suppression of 2000 boxes", "ms", best["ours"], best["plain"], "one row of overlaps a kept box")
    yield BenchRow("suppression of 2000 boxes", "ms", best["ours"], best["floor"], "floor: all overlaps, once")


def at_once(a: Tensor, b: Tensor) -> Tensor:
    sides = torch.minimum(a[:, None, :, 2:], b[None, :, :, 2:]) - torch.maximum(a[:, None, :, :2], b[None, :, :, :2])
    shared = sides.clamp(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    return (shared / (areas[0][:, None] + areas[1][None] - shared)).mean(-1)


def one_by_one(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """The usual short form: the best box that is left, then all that overlap it go."""
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left):
        kept.append(left[0])
        left = left[1:][tubelet_iou(boxes[left[:1]], boxes[left[1:]])[0] <= threshold]
    return torch.stack(kept)


# -- networks and metrics ---------------------------------------------------------------------------------------------


def network_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """Clips a second of the cascade, with what each relation adds to the actor's own features."""
    generated = actors.videos(16, 0, actors.TEST)
    clips, boxes = generated.clips.to(device), generated.boxes.to(device)
    valid = torch.ones(boxes.shape[:3], dtype=torch.bool, device=device)
    nets = {
        name: Lstr(ARMS[name], 6, 2).to(device).eval()
        for name in ("cascade", "roi", "short", "acrn-long", "lfb-non-local")
    }

    def call(net: Lstr) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return net(clips, boxes, valid)

        return run

    best = best_of({name: call(net) for name, net in nets.items()}, device, rounds)
    rate = {name: clips.shape[0] * clips.shape[1] / ms * 1000 for name, ms in best.items()}
    for name in ("roi", "short", "acrn-long", "lfb-non-local"):
        yield BenchRow(
            "cascade, 80 clips of 2 frames", "clips/s", rate["cascade"], rate[name], name, lower_is_better=False
        )


def metric_rows(rounds: int) -> Iterator[BenchRow]:
    """Frame-mAP of the same boxes: ours, faster-coco-eval's AP50, and pycocotools' where it is installed.

    On the whole of AVA's validation file where LABKIT_DATA has it.
    """
    truth, detections, what = tables()
    calls: dict[str, Callable[[], float]] = {
        "ours": lambda: frame_map(truth, detections).mean,
        "faster-coco-eval": lambda: faster_coco(truth, detections),
    }
    if importlib.util.find_spec("pycocotools"):
        calls["pycocotools"] = lambda: pycoco(truth, detections)
    best: dict[str, float] = {}
    for _, (name, run) in itertools.product(range(rounds), calls.items()):
        begun = time.process_time()
        run()
        best[name] = min(best.get(name, np.inf), time.process_time() - begun)
    for name in list(calls)[1:]:
        yield BenchRow(f"frame-mAP, {len(detections):,} boxes {what}", "CPU s", best["ours"], best[name], name)


def tables(most: int = 20_000) -> tuple[Boxes, Boxes, str]:
    """Truth, and detections made of it: shaken, each with a score. `most` boxes where they are drawn."""
    path = paths.data_dir() / "action" / "ava_val_v2.1.csv"
    rng = np.random.default_rng(0)
    if path.exists():
        rows = ava.read(path)
        numbers = {key: k for k, key in enumerate(dict.fromkeys(rows.keys))}
        frames = np.array([numbers[key] for key in rows.keys], dtype=np.int64)
        labels, boxes, what = rows.actions, rows.boxes * 1000, "of AVA's validation file"
    else:
        corner = rng.uniform(0, 700, (most, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(50, 300, (most, 2))], 1)
        frames, labels, what = rng.integers(0, most // 2, most), rng.integers(1, 15, most), "drawn at random"
    shaken = boxes + rng.normal(0, 20, boxes.shape)
    shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
    return Boxes(frames, labels, boxes), Boxes(frames, labels, shaken, rng.random(len(boxes))), what


def entries(table: Boxes) -> list[dict[str, object]]:
    """The boxes as COCO's annotations, or as results where they have scores."""
    rows: list[dict[str, object]] = []
    for k, (x1, y1, x2, y2) in enumerate(table.boxes.tolist()):
        row: dict[str, object] = {"id": k + 1, "image_id": int(table.frames[k]), "iscrowd": 0}
        row |= {"category_id": int(table.labels[k]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        row |= {"area": (x2 - x1) * (y2 - y1)}
        rows.append(row if table.scores is None else row | {"score": float(table.scores[k])})
    return rows


def annotations(truth: Boxes) -> dict[str, object]:
    """The truth as a COCO dataset."""
    named = {"images": [{"id": int(k)} for k in np.unique(truth.frames)]}
    named |= {"categories": [{"id": int(k)} for k in np.unique(truth.labels)]}
    return {**named, "annotations": entries(truth)}


def faster_coco(truth: Boxes, detections: Boxes) -> float:
    import faster_coco_eval as peer

    dataset = peer.COCO(annotations(truth))
    judge = peer.COCOeval_faster(
        dataset, dataset.loadRes(entries(detections)), iouType="bbox", print_function=lambda *_: None
    )
    judge.run()
    return float(judge.stats[1])


def pycoco(truth: Boxes, detections: Boxes) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset = COCO()
    dataset.dataset = annotations(truth)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        dataset.createIndex()
        judge = COCOeval(dataset, dataset.loadRes(entries(detections)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[1])


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for row in rows(device, 60.0):
        print(f"{row.workload:<60}{row.ours:10.3f} {row.unit:<8}{row.peer:10.3f}  {row.ratio:6.2f}x  {row.peer_name}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
