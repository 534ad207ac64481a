"""From tubelets of clips to action tubes of a video.

Viterbi [inferred]: for one class, the path through the clips, one tubelet i_t each, that maximises

    sum_t s_t(i_t) + beta sum_t IoU(last box of i_t, first box of i_{t+1})

by V_1(i) = s_1(i), V_t(i) = s_t(i) + max_j [V_{t-1}(j) + beta IoU(j, i)]. Each score counts once; counting inner ones
twice, as s_t + s_{t+1} on every edge does, is the same with beta / 2. The best path is taken, its tubelets are removed,
and so on. Then each path is trimmed: labels 1 (action) or 0, reward s_t - threshold for a 1, and a penalty where the
label changes (Potts), by the same recursion.

Greedy, online [peer code: ACT]: tubes grow clip by clip, each by the best-scored tubelet that overlaps its end enough;
tubelets that no tube takes begin new ones; a tube ends after a gap.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from labkit.errors import InputError
from labkit.metrics.detection import Tube, pairwise_iou, row_iou

Scores = Sequence[Float64[np.ndarray, "_"]]
Boxes = Sequence[Float64[np.ndarray, "_ frames 4"]]


class Path(NamedTuple):
    """first: its first clip. nodes: the tubelet in each clip from there on. score: mean of theirs."""

    first: int
    nodes: tuple[int, ...]
    score: float


def viterbi(scores: Scores, links: Sequence[Float64[np.ndarray, "_ _"]], beta: float) -> tuple[list[int], float]:
    """The best path, one node a clip, and its value. links: IoU of each node with each of the next clip.

    Of equal paths the one with the lower indices at the end is taken.
    """
    value, back = np.asarray(scores[0], dtype=np.float64), []
    for score, link in zip(scores[1:], links, strict=True):
        through = value[:, None] + beta * link
        back.append(through.argmax(0))
        value = score + through.max(0)
    node = int(value.argmax())
    path = [node]
    for came_from in reversed(back):
        path.append(int(came_from[path[-1]]))
    return path[::-1], float(value[node])


def link_viterbi(scores: Scores, boxes: Boxes, beta: float = 1.0, most: int = 10) -> list[Path]:
    """Best paths one after the other, each without the tubelets of those before it, until a clip has none left.

    Raises:
        InputError: no clips, or scores and boxes of different lengths.
    """
    _check(scores, boxes)
    links = [pairwise_iou(a[:, -1], b[:, 0]) for a, b in itertools.pairwise(boxes)]
    left = [np.arange(len(score)) for score in scores]
    paths: list[Path] = []
    while len(paths) < most and all(len(nodes) for nodes in left):
        kept_links = [link[np.ix_(a, b)] for link, a, b in zip(links, left[:-1], left[1:], strict=True)]
        chosen, _ = viterbi([score[nodes] for score, nodes in zip(scores, left, strict=True)], kept_links, beta)
        nodes = tuple(int(kept[i]) for kept, i in zip(left, chosen, strict=True))
        mean = float(np.mean([score[i] for score, i in zip(scores, nodes, strict=True)]))
        paths.append(Path(0, nodes, mean))
        left = [np.delete(kept, i) for kept, i in zip(left, chosen, strict=True)]
    return paths


def trim(scores: Float64[np.ndarray, " t"], threshold: float, penalty: float) -> Bool[np.ndarray, " t"]:
    """Which clips of a path belong to the action: the best labeling under rewards and the penalty of changes."""
    reward = np.asarray(scores, dtype=np.float64) - threshold
    steps = [np.array([0.0, value]) for value in reward]
    stay = 1.0 - np.eye(2)
    labels, _ = viterbi(steps, [-penalty * stay] * (len(steps) - 1), 1.0)
    return np.array(labels, dtype=bool)


def trimmed(path: Path, scores: Scores, threshold: float, penalty: float) -> list[Path]:
    """The pieces of a path that belong to the action; each has the mean of its own scores."""
    own = np.array([scores[path.first + t][i] for t, i in enumerate(path.nodes)])
    inside = trim(own, threshold, penalty)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(int)))
    return [
        Path(path.first + int(a), path.nodes[a:b], float(own[a:b].mean()))
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


def link_greedy(scores: Scores, boxes: Boxes, overlap: float = 0.2, most: int = 10, gap: int = 0) -> list[Path]:
    """ACT's online linking. In each clip the `most` best tubelets take part; tubes choose in the order of their scores.

    A tube that finds nothing for more than `gap` clips ends. The path holds -1 for a clip that it skipped.

    Raises:
        InputError: no clips, or scores and boxes of different lengths.
    """
    _check(scores, boxes)
    growing: list[dict[str, list[int]]] = []
    done: list[dict[str, list[int]]] = []

    def mean(tube: dict[str, list[int]]) -> float:
        values = [scores[tube["first"][0] + t][i] for t, i in enumerate(tube["nodes"]) if i >= 0]
        return float(np.mean(values))

    for t, (score, tubelets) in enumerate(zip(scores, boxes, strict=True)):
        free = list(np.argsort(-score, kind="stable")[:most])
        for tube in sorted(growing, key=mean, reverse=True):
            last = next(k for k in range(len(tube["nodes"]) - 1, -1, -1) if tube["nodes"][k] >= 0)
            end = boxes[tube["first"][0] + last][tube["nodes"][last], -1:]
            near = [i for i in free if row_iou(end, tubelets[i, :1])[0] >= overlap]
            tube["nodes"].append(int(near[0]) if near else -1)
            if near:
                free.remove(near[0])
        ended = [tube for tube in growing if all(i < 0 for i in tube["nodes"][-gap - 1 :])]
        done += ended
        growing = [tube for tube in growing if tube not in ended]
        growing += [{"first": [t], "nodes": [int(i)]} for i in free]
    return sorted(
        (_closed(tube["first"][0], tube["nodes"], mean(tube)) for tube in done + growing), key=lambda p: -p.score
    )


def _closed(first: int, nodes: list[int], score: float) -> Path:
    """Without the empty clips at its end."""
    while nodes[-1] < 0:
        nodes = nodes[:-1]
    return Path(first, tuple(nodes), score)


def tube_of(
    path: Path, boxes: Boxes, video: str, label: int, starts: Int64[np.ndarray, " clips"] | None = None
) -> Tube:
    """The boxes of a path's tubelets, frame by frame; where clips share frames, their mean [peer code: ACT].

    Frames that no clip covers are interpolated. starts: first frame of each clip; None: one follows the other.
    """
    frames = boxes[path.first].shape[1]
    if starts is None:
        starts = np.arange(len(boxes), dtype=np.int64) * frames
    begin, end = int(starts[path.first]), int(starts[path.first + len(path.nodes) - 1]) + frames
    total, count = np.zeros((end - begin, 4)), np.zeros(end - begin)
    for t, node in enumerate(path.nodes):
        if node >= 0:
            at = int(starts[path.first + t]) - begin
            total[at : at + frames] += boxes[path.first + t][node]
            count[at : at + frames] += 1
    known = np.flatnonzero(count)
    mean = total[known] / count[known, None]
    every = np.stack([np.interp(np.arange(end - begin), known, mean[:, c]) for c in range(4)], 1)
    return Tube(video, label, begin, every, path.score)


def _check(scores: Scores, boxes: Boxes) -> None:
    if not len(scores) or [len(s) for s in scores] != [len(b) for b in boxes]:
        raise InputError("linking needs at least one clip, and as many scores as tubelets in each.")
