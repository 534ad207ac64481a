"""Tubes: Viterbi against all paths, trimming, greedy linking, boxes of a path."""

import itertools

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.metrics.detection import pairwise_iou
from labkit.papers.lstr.method.linking import Path, link_greedy, link_viterbi, trim, trimmed, tube_of, viterbi


def some(seed: int, clips: int = 4, k: int = 4, frames: int = 2):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 12, (clips, k, frames, 2))
    boxes = np.concatenate([corner, corner + 10], -1)
    return list(rng.random((clips, k))), list(boxes)


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(5))
def test_viterbi_is_the_best_of_all_paths(seed, beta):
    """Sheet check 7."""
    scores, boxes = some(seed)
    links = [pairwise_iou(a[:, -1], b[:, 0]) for a, b in itertools.pairwise(boxes)]

    def value(path):
        nodes = sum(score[i] for score, i in zip(scores, path, strict=True))
        return nodes + beta * sum(link[a, b] for link, (a, b) in zip(links, itertools.pairwise(path), strict=True))

    best = max(itertools.product(range(4), repeat=4), key=value)
    path, total = viterbi(scores, links, beta)
    assert total == pytest.approx(value(best), abs=1e-12)
    assert tuple(path) == best
    assert link_viterbi(scores, boxes, beta)[0].nodes == best
    if beta == 0:
        assert path == [int(score.argmax()) for score in scores]


def test_paths_share_no_tubelet_and_end_when_a_clip_is_empty():
    scores, boxes = some(1)
    scores[2], boxes[2] = scores[2][:2], boxes[2][:2]
    paths = link_viterbi(scores, boxes)
    assert len(paths) == 2
    assert all(a != b for a, b in zip(paths[0].nodes, paths[1].nodes, strict=True))
    assert link_viterbi(scores, boxes, most=1) == paths[:1]
    assert link_viterbi([np.zeros(0)], [np.zeros((0, 2, 4))]) == []


def test_two_walkers_are_told_apart():
    scores = [np.array([0.9, 0.8]), np.array([0.8, 0.9]), np.array([0.9, 0.8])]
    left, right = np.array([0.0, 0, 10, 10]), np.array([30.0, 0, 40, 10])
    boxes = [np.stack([[left, left], [right, right]]), np.stack([[right, right], [left, left]])]
    boxes.append(boxes[0])
    assert [path.nodes for path in link_viterbi(scores, boxes, beta=5.0)] == [(0, 1, 0), (1, 0, 1)]
    assert [path.nodes for path in link_greedy(scores, boxes)] == [(0, 1, 0), (1, 0, 1)]


def test_trimming():
    assert trim(np.array([0.9, 0.9, 0.1, 0.1]), 0.5, 0.2).tolist() == [True, True, False, False]
    assert trim(np.array([0.9, 0.4, 0.9]), 0.5, 0.3).all()  # a short dip costs less than two changes
    assert trim(np.array([0.9, 0.1, 0.9]), 0.5, 0.05).tolist() == [True, False, True]
    scores = [np.array([0.9]), np.array([0.1]), np.array([0.1]), np.array([0.8])]
    assert trimmed(Path(0, (0, 0, 0, 0), 0.5), scores, 0.5, 0.1) == [Path(0, (0,), 0.9), Path(3, (0,), 0.8)]
    assert trimmed(Path(0, (0, 0, 0, 0), 0.5), scores, 0.95, 0.1) == []


@pytest.mark.parametrize("seed", range(5))
def test_trimming_is_the_best_labeling(seed):
    rng = np.random.default_rng(seed)
    scores = rng.random(6)

    def value(labels):
        return sum(s - 0.4 for s, on in zip(scores, labels, strict=True) if on) - 0.15 * np.abs(np.diff(labels)).sum()

    best = max(itertools.product((0, 1), repeat=6), key=value)
    assert trim(scores, 0.4, 0.15).astype(int).tolist() == list(best)


def test_greedy_tubes_begin_end_and_bridge():
    here, there = np.tile(np.array([0.0, 0, 10, 10]), (1, 1, 1)), np.tile(np.array([50.0, 0, 60, 10]), (1, 1, 1))
    scores, boxes = [np.array([0.9])] * 4, [here, there, here, here]
    assert [p.nodes for p in link_greedy(scores, boxes)] == [(0,), (0,), (0, 0)]
    bridged = link_greedy(scores, boxes, gap=1)
    assert (0, -1, 0, 0) in [p.nodes for p in bridged]
    tube = tube_of(Path(0, (0, -1, 0, 0), 0.9), boxes, "v", 1)
    assert np.array_equal(tube.boxes, np.tile(here[0, 0], (4, 1)))


def test_the_boxes_of_a_path():
    boxes = [np.arange(8.0).reshape(1, 2, 4), 10 + np.arange(8.0).reshape(1, 2, 4)]
    plain = tube_of(Path(0, (0, 0), 0.5), boxes, "v", 2)
    assert np.array_equal(plain.boxes, np.concatenate([boxes[0][0], boxes[1][0]]))
    shared = tube_of(Path(0, (0, 0), 0.5), boxes, "v", 2, np.array([0, 1]))
    assert shared.boxes[1].tolist() == ((boxes[0][0, 1] + boxes[1][0, 0]) / 2).tolist()
    apart = tube_of(Path(0, (0, 0), 0.5), boxes, "v", 2, np.array([3, 6]))
    assert (apart.start, len(apart.boxes)) == (3, 5)
    assert apart.boxes[2].tolist() == ((boxes[0][0, 1] + boxes[1][0, 0]) / 2).tolist()  # the frame between
    late = tube_of(Path(1, (0,), 0.5), boxes, "v", 2)
    assert late.start == 2


def test_nothing_to_link_is_refused():
    for scores, boxes in (([], []), ([np.zeros(2)], [np.zeros((1, 2, 4))])):
        for link in (link_viterbi, link_greedy):
            with pytest.raises(InputError, match="at least one clip"):
                link(scores, boxes)
