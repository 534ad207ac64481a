"""Plain numbers: what proposals find, what a network says of true boxes, and how good its detections and tubes are."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float64
from torch import Tensor

from labkit.kernels.tubelet_iou import tubelet_iou
from labkit.metrics.detection import OVERLAPS, Boxes, Tube, frame_map, mean_video_map, video_map
from labkit.papers.lstr.experiment import actors, data
from labkit.papers.lstr.experiment.config import Config
from labkit.papers.lstr.experiment.data import Batch, Source
from labkit.papers.lstr.experiment.tubelets import Tubelets
from labkit.papers.lstr.method import linking
from labkit.papers.lstr.method.network import Lstr
from labkit.papers.lstr.method.proposals import recall
from labkit.vision import boxes
from labkit.workbench.training import Workers

WINDOWS = 10
"""Windows that are tested together."""
FIRST_LATE = 2
"""Clips from here on may come after a rim: where memory is tested."""
TRIM, PENALTY, BETA = 0.1, 0.2, 1.0
"""Linking: threshold of a class's probability in a clip, penalty of a change, weight of the overlap."""


def batches(source: Source, workers: Workers | None = None) -> Iterator[tuple[Tensor, Batch]]:
    """The windows of a source in order, this process's share of them."""
    mine = torch.arange(len(source))
    if workers is not None:
        mine = mine[workers.rank :: workers.size]
    for index in mine.split(WINDOWS):
        batch = data.batch(source, index)
        yield index, batch.to(workers.device) if workers else batch


def gathered(rows: list[Any], workers: Workers) -> list[Any]:
    """What all processes have found, in an order that does not depend on their number where rows know their window."""
    if workers.size == 1:
        return rows
    parts: list[Any] = [None] * workers.size
    dist.all_gather_object(parts, rows)
    return sorted((row for part in parts for row in part), key=lambda row: row[0])


# -- step 1 -----------------------------------------------------------------------------------------------------------


def proposals(tubelets: Tubelets, test: Source, workers: Workers) -> dict[str, float]:
    """Share of true tubelets found at overlaps .5 and .7, and their mean best overlap."""
    rows = []
    for index, batch in batches(test, workers):
        proposed = tubelets.of(test, index, batch)
        truth, valid = batch.truth.flatten(0, 1), batch.valid.flatten(0, 1)
        if not valid.any():  # of real videos, some windows hold no whole tubelet
            continue
        overlap = tubelet_iou(proposed.tubelets, truth).masked_fill(~proposed.valid[..., None], 0.0).amax(1)[valid]
        row = (
            int(index[0]),
            int(valid.sum()),
            recall(proposed, truth, valid, 0.5),
            recall(proposed, truth, valid, 0.7),
        )
        rows.append((*row, float(overlap.mean())))
    every = np.array(gathered(rows, workers))
    at_half, at_seventy, overlap = (np.average(every[:, k], weights=every[:, 1]) for k in (2, 3, 4))
    return {"recall": float(at_half), "recall_70": float(at_seventy), "overlap": float(overlap)}


# -- step 2 -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def arm(net: Lstr, tubelets: Tubelets, test: Source, config: Config, workers: Workers) -> dict[str, Any]:
    """One trained network.

    Returns:
        frame_map and per_class, on proposals, at overlap .5; for generated videos with true boxes given: object (right
        S), late (right L in clips from the third on), accuracy (right class); video-mAP of walking videos, "video".
    """
    rows, given = [], []
    for index, batch in batches(test, workers):
        rows += list(_detections(net, tubelets, test, index, batch))
        if config.data == "actors":
            given.append((int(index[0]), _answers(net, batch)))
    result = _frame_map(gathered(rows, workers), test)
    if config.data == "actors":
        result |= _shares(np.concatenate([answers for _, answers in gathered(given, workers)]))
        if config.walking:
            result["video"] = _walking(net, tubelets, config, workers)
    return result


def scored(net: Lstr, tubelets: Tubelets, source: Source, index: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (windows, clips, k, classes), refined tubelets and which are no padding, on proposals."""
    proposed, shape = tubelets.of(source, index, batch), batch.clips.shape[:2]
    trust = proposed.scores.clamp(min=1e-6).log()
    given, valid = proposed.tubelets.unflatten(0, shape), proposed.valid.unflatten(0, shape)
    output = net(batch.clips, given, valid, trust.unflatten(0, shape))
    refined = boxes.decode(output.offsets.float(), given)
    return net.head.probabilities(output.logits.float()), refined, valid


def _detections(net: Lstr, tubelets: Tubelets, test: Source, index: Tensor, batch: Batch) -> Iterator[Any]:
    """Per window (number, truth rows, detection rows); a row is clip, frame, label, box, score."""
    probabilities, refined, valid = scored(net, tubelets, test, index, batch)
    for w, number in enumerate(index.tolist()):
        true = _rows(batch.truth[w], batch.targets[w] * batch.valid[w][..., None])
        yield number, true, _rows(refined[w], probabilities[w] * valid[w][..., None])


def _rows(tubelets: Tensor, scores: Tensor) -> Float64[np.ndarray, "n 8"]:
    """Every box of every tubelet with every class whose score is above 0: clip, frame, label, x1, y1, x2, y2, score."""
    clip, k, label = scores.nonzero(as_tuple=True)
    frames = tubelets.shape[2]
    each = torch.arange(frames, device=clip.device)
    head = torch.stack([clip, label], 1)[:, None].expand(-1, frames, -1)
    parts = [head[..., :1], each[None, :, None].expand(len(clip), -1, -1), head[..., 1:], tubelets[clip, k]]
    parts.append(scores[clip, k, label][:, None, None].expand(-1, frames, -1))
    return torch.cat([part.double() for part in parts], -1).flatten(0, 1).cpu().numpy()


def _frame_map(rows: Sequence[tuple[int, np.ndarray, np.ndarray]], test: Source) -> dict[str, Any]:
    truth = _table([(number, true) for number, true, _ in rows])
    detections = _table([(number, detected) for number, _, detected in rows])
    precision = frame_map(truth, detections, once=test.labels == "multi")  # with many labels a box: as AVA matches
    known = {test.classes[k]: value for k, value in precision.per_class.items()}
    return {"frame_map": precision.mean, "per_class": known}


def _table(parts: Sequence[tuple[int, np.ndarray]]) -> Boxes:
    """The rows of many windows as one table; a frame is a window's number, a clip and a frame of it."""
    window = np.concatenate([np.full(len(rows), number, dtype=np.int64) for number, rows in parts])
    every = np.concatenate([rows for _, rows in parts])
    clip, frame, label = every[:, :3].astype(np.int64).T
    return Boxes((window * 1000 + clip) * 1000 + frame, label, every[:, 3:7], every[:, 7])


def _answers(net: Lstr, batch: Batch) -> np.ndarray:
    """Rows (clip, wanted class, answer) of true boxes; background is no answer."""
    trust = torch.zeros(batch.valid.shape, device=batch.valid.device)
    logits = net(batch.clips, batch.given, batch.valid, trust).logits
    answer = net.head.probabilities(logits).argmax(-1)
    clip = torch.arange(answer.shape[1], device=answer.device)[None, :, None].expand_as(answer)
    return torch.stack([clip, batch.targets.argmax(-1), answer], -1)[batch.valid].cpu().numpy()


def _shares(rows: np.ndarray) -> dict[str, float]:
    clip, wanted, answer = rows.T
    late = clip >= FIRST_LATE
    return {
        "object": float((wanted // 2 == answer // 2).mean()),
        "late": float((wanted % 2 == answer % 2)[late].mean()),
        "late_majority": float(max((wanted % 2)[late].mean(), 1 - (wanted % 2)[late].mean())),
        "accuracy": float((wanted == answer).mean()),
    }


# -- tubes ------------------------------------------------------------------------------------------------------------


def _walking(net: Lstr, tubelets: Tubelets, config: Config, workers: Workers) -> dict[str, float]:
    """Video-mAP of linked tubes on walking videos, by Viterbi with trimming, and by ACT's greedy linking."""
    source = data.Generated(config.walking, config.seed, actors.WALKING, config.generator())
    truth: list[Tube] = []
    linked: list[Tube] = []
    greedy: list[Tube] = []
    for index, batch in batches(source):
        probabilities, refined, valid = scored(net, tubelets, source, index, batch.to(workers.device))
        for w, number in enumerate(index.tolist()):
            name, p, b, ok = f"{number:04d}", probabilities[w], refined[w], valid[w]
            truth += true_tubes(source.videos.boxes[number], source.videos.labels[number], name)
            linked += video_tubes(p, b, ok, name)
            greedy += video_tubes(p, b, ok, name, viterbi=False)
    values = {f"{overlap:g}": video_map(truth, linked, overlap).mean for overlap in OVERLAPS}
    return values | {"mean": mean_video_map(truth, linked), "greedy_0.5": video_map(truth, greedy, 0.5).mean}


def true_tubes(tubelets: Tensor, labels: Tensor, video: str) -> list[Tube]:
    """Of each actor (clips, 2, frames, 4) a tube for every stretch of clips with one label (clips, 2)."""
    frames, tubes = tubelets.shape[2], []
    for a in range(labels.shape[1]):
        edges = [0, *(np.flatnonzero(np.diff(labels[:, a].numpy())) + 1).tolist(), len(labels)]
        for begin, end in itertools.pairwise(edges):
            path = tubelets[begin:end, a].reshape(-1, 4).double().numpy()
            tubes.append(Tube(video, int(labels[begin, a]), begin * frames, path))
    return tubes


def video_tubes(
    probabilities: Tensor,
    tubelets: Tensor,
    valid: Tensor,
    video: str,
    viterbi: bool = True,
    beta: float = BETA,
    starts: np.ndarray | None = None,
    most: int = 10,
) -> list[Tube]:
    """The action tubes of one video, every class by itself: (clips, k, classes), (clips, k, frames, 4), (clips, k)."""
    kept = [np.flatnonzero(ok) for ok in valid.cpu().numpy()]
    placed = [b[rows] for b, rows in zip(tubelets.double().cpu().numpy(), kept, strict=True)]
    tubes: list[Tube] = []
    for label in range(probabilities.shape[-1]):
        values = probabilities[..., label].double().cpu().numpy()
        scores = [p[rows] for p, rows in zip(values, kept, strict=True)]
        if viterbi:
            paths = linking.link_viterbi(scores, placed, beta, most)
        else:
            paths = linking.link_greedy(scores, placed, most=most)
        for path in paths:
            if viterbi:
                tubes += [
                    linking.tube_of(piece, placed, video, label, starts)
                    for piece in linking.trimmed(path, scores, TRIM, PENALTY)
                ]
            elif path.score >= TRIM:
                tubes.append(linking.tube_of(path, placed, video, label, starts))
    return tubes
