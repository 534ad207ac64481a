"""Properties that hold exactly. One check, three uses: test, exercise, and wrong answers that must not pass."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.metrics.detection import pairwise_iou
from labkit.papers.lstr.method.linking import viterbi
from labkit.workbench.exercises import close


def tubelets(n: int = 6, frames: int = 3, seed: int = 0) -> np.ndarray:
    """Random tubelets (n, frames, 4) that overlap often."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 12, (n, frames, 2))
    return np.concatenate([corner, corner + rng.uniform(6, 14, (n, frames, 2))], -1)


# -- overlap of tubes -------------------------------------------------------------------------------------------------


def check_tube_overlap(overlap: Callable[[int, np.ndarray, int, np.ndarray], float]) -> None:
    """Spans [0, 9] and [5, 14], both ends inclusive: 5 common frames of 15."""
    still = np.tile(np.array([0.0, 0.0, 20.0, 20.0]), (10, 1))
    beside = still + np.array([5.0, 0.0, 5.0, 0.0])
    for first, second, wanted in (
        ((0, still), (0, still), 1.0),
        ((0, still), (5, still), 1 / 3),
        ((0, still), (5, beside), 1 / 3 * 0.6),
        ((5, beside), (0, still), 1 / 3 * 0.6),
        ((0, still), (10, still), 0.0),
        ((0, still), (2, still[:4]), 0.4),
    ):
        given = float(overlap(*first, *second))
        message = (
            f"spans [{first[0]}, {first[0] + len(first[1]) - 1}] and [{second[0]}, {second[0] + len(second[1]) - 1}]:"
        )
        close(given, wanted, message, 1e-9)


def check_tube_overlap_counts_boxes(overlap: Callable[[int, np.ndarray, int, np.ndarray], float]) -> None:
    """Boxes are compared in the frames both have, not first with first."""
    moving = np.stack([np.array([t, 0.0, t + 10, 10.0]) for t in range(6)])
    given = float(overlap(0, moving, 3, moving[3:]))
    close(given, 0.5, "the same moving boxes in frames 3 to 5, of a span of 6 frames:", 1e-9)


# -- attention --------------------------------------------------------------------------------------------------------

Attention = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def attention_inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """query (3, 8), key (5, 8), value (5, 4), bias (3, 5), float64."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return some(3, 8), some(5, 8), some(5, 4), some(3, 5)


def check_rows_sum_to_one(attend: Attention) -> None:
    _, weights = attend(*attention_inputs())
    close(weights.sum(-1), torch.ones(3, dtype=torch.float64), "each actor's weights must sum to 1.")


def check_attention(attend: Attention) -> None:
    query, key, value, bias = attention_inputs(1)
    given, _ = attend(query, key, value, bias)
    close(given, torch.softmax(query @ key.T / 8**0.5 + bias, -1) @ value, "r must be the weighted sum of the values.")


def check_permutation(attend: Attention) -> None:
    """The order of positions is no information."""
    query, key, value, bias = attention_inputs(2)
    order = torch.tensor([3, 0, 4, 1, 2])
    close(
        attend(query, key[order], value[order], bias[:, order])[0],
        attend(query, key, value, bias)[0],
        "positions in another order must give the same r.",
    )


# -- the graph --------------------------------------------------------------------------------------------------------


def check_past_mask(mask: Callable[[Tensor], Tensor]) -> None:
    """Nodes of earlier clips and oneself, for any numbers of nodes a clip."""
    for clip in (torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 1, 2])):
        given = torch.as_tensor(mask(clip))
        n = len(clip)
        assert given.shape == (n, n), f"the mask must have shape ({n}, {n}); got {tuple(given.shape)}"
        for i, j in itertools.product(range(n), repeat=2):
            wanted = i == j or bool(clip[j] < clip[i])
            assert bool(given[i, j]) == wanted, (
                f"clips {clip.tolist()}: may node {i} listen to node {j}? {wanted}; your mask says {bool(given[i, j])}"
            )


# -- linking ----------------------------------------------------------------------------------------------------------


def linking_problem(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Scores of 4 clips with 3 tubelets, and the overlaps of each with each of the next clip."""
    rng = np.random.default_rng(seed)
    boxes = [tubelets(3, 2, seed * 10 + c) for c in range(4)]
    links = [pairwise_iou(a[:, -1], b[:, 0]) for a, b in itertools.pairwise(boxes)]
    return list(rng.random((4, 3))), links


def check_viterbi(link: Callable[[Any, Any, float], Any]) -> None:
    """Against all 81 paths, at several weights of the overlap."""
    for seed, beta in itertools.product(range(6), (0.0, 0.5, 3.0)):
        scores, links = linking_problem(seed)
        path = list(link(scores, links, beta))
        wanted, _ = viterbi(scores, links, beta)
        assert path == wanted, f"seed {seed}, beta {beta}: the best path is {wanted}; yours is {path}"


# -- bytes ------------------------------------------------------------------------------------------------------------


def check_corners(corners: Callable[[np.ndarray], np.ndarray]) -> None:
    """Boxes x, y, w, h in bytes: 200 + 100 is 300 and not 44."""
    boxes = np.array([[10, 20, 30, 40], [200, 150, 100, 90]], np.uint8)
    given = np.asarray(corners(boxes.copy()), dtype=np.float64)
    close(given, [[10, 20, 40, 60], [200, 150, 300, 240]], "x1, y1, x2, y2 of these boxes are other numbers.")
