"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.papers.lstr.experiment import actors
from labkit.papers.lstr.experiment.actors import Actors
from labkit.papers.lstr.method.backbone import SmallBackbone
from labkit.papers.lstr.teaching import checks
from labkit.workbench.exercises import Exercise, number

# -- 1 attention ------------------------------------------------------------------------------------------------------


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.softmax(query @ key.T / math.sqrt(query.shape[-1]) + bias, -1)
    return weights @ value, weights


def over_actors(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.softmax(query @ key.T / math.sqrt(query.shape[-1]) + bias, 0)
    return weights @ value, weights


def unscaled(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.softmax(query @ key.T + bias, -1)
    return weights @ value, weights


def without_bias(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return attend(query, key, value, bias * 0)


# -- 3 the mask -------------------------------------------------------------------------------------------------------


def past(clip: Tensor) -> Tensor:
    return (clip[None] < clip[:, None]) | torch.eye(len(clip), dtype=torch.bool)


def broken_mask(clip: Tensor) -> Tensor:
    """Which node j node i may listen to: those of earlier clips and itself, (nodes, nodes).  clip: of each node."""
    return clip[None] <= clip[:, None]


# -- 4 tubes ----------------------------------------------------------------------------------------------------------


def overlap(first_start: int, first: np.ndarray, second_start: int, second: np.ndarray) -> float:
    begin, end = max(first_start, second_start), min(first_start + len(first), second_start + len(second))
    if end <= begin:
        return 0.0
    a, b = first[begin - first_start : end - first_start], second[begin - second_start : end - second_start]
    span = max(first_start + len(first), second_start + len(second)) - min(first_start, second_start)
    return float((end - begin) / span * row_iou(a, b).mean())


def row_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    shared = sides.prod(1)
    return shared / ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared)


def ends_exclusive(first_start: int, first: np.ndarray, second_start: int, second: np.ndarray) -> float:
    """The last frame of each tube is left out."""
    return overlap(first_start, first[:-1], second_start, second[:-1])


def without_time(first_start: int, first: np.ndarray, second_start: int, second: np.ndarray) -> float:
    begin, end = max(first_start, second_start), min(first_start + len(first), second_start + len(second))
    if end <= begin:
        return 0.0
    return float(row_iou(first[begin - first_start : end - first_start],
                         second[begin - second_start : end - second_start]).mean())  # fmt: skip


def first_with_first(first_start: int, first: np.ndarray, second_start: int, second: np.ndarray) -> float:
    """Time is right, but box 0 is compared with box 0 whatever their frames."""
    begin, end = max(first_start, second_start), min(first_start + len(first), second_start + len(second))
    if end <= begin:
        return 0.0
    span = max(first_start + len(first), second_start + len(second)) - min(first_start, second_start)
    return float((end - begin) / span * row_iou(first[: end - begin], second[: end - begin]).mean())


# -- 5 Viterbi --------------------------------------------------------------------------------------------------------


def best_path(scores: Sequence[np.ndarray], links: Sequence[np.ndarray], beta: float) -> list[int]:
    value, back = scores[0], []
    for score, link in zip(scores[1:], links, strict=True):
        through = value[:, None] + beta * link
        back.append(through.argmax(0))
        value = score + through.max(0)
    path = [int(value.argmax())]
    for came_from in reversed(back):
        path.append(int(came_from[path[-1]]))
    return path[::-1]


def greedy_path(scores: Sequence[np.ndarray], links: Sequence[np.ndarray], beta: float) -> list[int]:
    path = [int(scores[0].argmax())]
    for score, link in zip(scores[1:], links, strict=True):
        path.append(int((score + beta * link[path[-1]]).argmax()))
    return path


def backwards(scores: Sequence[np.ndarray], links: Sequence[np.ndarray], beta: float) -> list[int]:
    return best_path(scores, links, beta)[::-1]


# -- 7 generous boxes -------------------------------------------------------------------------------------------------


def fair(settings: Any) -> None:
    assert isinstance(settings, Actors), f"an Actors(...) is asked for; got {type(settings).__name__}"
    assert settings.radius == actors.STANDARD.radius, "leave the actor's radius as it is"
    assert settings.size <= 64, f"frames of at most 64 pixels; got {settings.size}"
    videos = actors.videos(2, 0, actors.TRAIN, settings)
    assert len(videos) == 2


def just_out_of_sight(settings: Actors) -> None:
    least = actors.least_reach(settings, SmallBackbone.stride, SmallBackbone.receptive_field)
    nearest = settings.reach - 2
    assert nearest > least, f"the object's edge is {nearest:g} pixels away, and the box sees {least:g}"


def larger_box(settings: Actors) -> None:
    assert settings.box >= 6.5, f"the box's half side must be at least 6.5; got {settings.box:g}"


EXERCISES = (
    Exercise(
        key="attention",
        kind="fill in",
        task="Write the attention of the short-term relation. Given are `query` (actors, d), `key` (positions, d), "
        "`value` (positions, width) and `bias` (actors, positions), the geometry $g(\\rho_{ij})$. Return the pair "
        "$(r, a)$: each actor's weighted sum of the values, and the weights.",
        properties={
            "rows sum to one": checks.check_rows_sum_to_one,
            "weighted sum": checks.check_attention,
            "any order of positions": checks.check_permutation,
        },
        solution=attend,
        wrong={"softmax over actors": over_actors, "not scaled": unscaled, "no geometry": without_bias},
        difficulty=1,
        minutes=8,
        hints=(
            "Scores first: all dot products at once are one matrix product.",
            "`torch.softmax(query @ key.T / d**0.5 + bias, -1)`, and r is these weights times `value`.",
        ),
    ),
    Exercise(
        key="ceiling",
        kind="predict, then run",
        task="Somebody sees all events of a video but cannot tell the two actors apart. Each actor has its event with "
        "probability 1/2, in clip 0, 1 or 2 with equal chance. How often is the best guess of L right in clip 4? Give "
        "a number between 0 and 1.",
        properties={
            "the probability": number(
                0.75, 0.005, "count the events before clip 4: none, one, or two of them. In which case does one guess?"
            )
        },
        solution=0.75,
        wrong={"always right": 1.0, "a coin": 0.5, "right unless there was any event": 0.25},
        difficulty=2,
        minutes=8,
        hints=(
            "Three cases: no event, two events, exactly one. In two of them nothing is left to guess.",
            "Before clip 4 each actor has had its event with probability 1/2. One event of two: probability 1/2.",
        ),
    ),
    Exercise(
        key="mask",
        kind="find the bug",
        task="A graph that looks back must not use what is not known yet, nor mix up the actors of one clip: node i "
        "listens to itself and to all nodes of earlier clips. Repair the mask.",
        properties={"who may listen to whom": checks.check_past_mask},
        solution=past,
        wrong={
            "as it stands": broken_mask,
            "never oneself": lambda clip: clip[None] < clip[:, None],
            "the future": lambda clip: (clip[None] > clip[:, None]) | torch.eye(len(clip), dtype=torch.bool),
        },
        difficulty=1,
        minutes=6,
        hints=(
            "Write the mask for clips 0, 0, 1, 1 on paper. How many ones has the first row?",
            "`clip[None] < clip[:, None]` is the past; `torch.eye(n, dtype=torch.bool)` is oneself.",
        ),
    ),
    Exercise(
        key="tube-overlap",
        kind="fill in",
        task="Write the overlap of two tubes. A tube is its first frame and one box for each frame, (n, 4); its last "
        "frame belongs to it. The overlap is that of the two spans of frames (common frames over all frames), times "
        "the mean overlap of the boxes in the frames that both have. `exercises.row_iou(a, b)` compares boxes row by "
        "row.",
        properties={
            "known overlaps": checks.check_tube_overlap,
            "frame with frame": checks.check_tube_overlap_counts_boxes,
        },
        solution=overlap,
        wrong={
            "last frames left out": ends_exclusive,
            "space alone": without_time,
            "first box with first box": first_with_first,
        },
        difficulty=2,
        minutes=12,
        hints=(
            "A tube's span is `start` to `start + len(boxes)`, the second end exclusive. What do two spans share?",
            "Cut both to the common frames before you compare boxes: `first[begin - first_start : end - first_start]`.",
        ),
    ),
    Exercise(
        key="viterbi",
        kind="fill in",
        task="Find the best path through the clips: one tubelet in each, with the largest sum of scores plus `beta` "
        "times the overlaps of neighbours. `scores[t]` has one number for each tubelet, `links[t][i, j]` is the "
        "overlap of tubelet i of clip t and tubelet j of clip t + 1. Return the list of indices. What does beta = 0 "
        "give, and why?",
        properties={"best of all paths": checks.check_viterbi},
        solution=best_path,
        wrong={"one clip after the other": greedy_path, "back to front": backwards},
        difficulty=3,
        minutes=20,
        hints=(
            "Keep, for every tubelet of the present clip, the value of the best path that ends in it.",
            "$V_t(i)=s_t(i)+\\max_j[V_{t-1}(j)+\\beta\\,\\mathrm{link}(j,i)]$; remember which j it was, and walk back.",
        ),
    ),
    Exercise(
        key="bytes",
        kind="fill in",
        task="Boxes of UCF-101-24 are stored as x, y, w, h in bytes (uint8), frames are 320 pixels wide. Return "
        "corners x1, y1, x2, y2 as numbers of any type.",
        properties={"corners": checks.check_corners},
        solution=lambda boxes: np.concatenate(
            [boxes[:, :2].astype(float), boxes[:, :2] + boxes[:, 2:].astype(float)], 1
        ),
        wrong={
            "added as bytes": lambda boxes: np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
            "not added": lambda boxes: boxes.astype(float),
        },
        difficulty=1,
        minutes=4,
        hints=(
            "What is 200 + 100 in a number of eight bits? Try `np.uint8(200) + np.uint8(100)`.",
            "Widen before you add: `boxes.astype(float)`.",
        ),
    ),
    Exercise(
        key="larger-boxes",
        kind="open",
        task="Annotators often draw boxes generously. Choose an `Actors(box=..., reach=..., ...)` with boxes of half "
        "side 6.5 or more, in frames of at most 64 pixels, in which the object is still out of sight of the box's own "
        "features. Two actors with their objects must fit.",
        properties={"can be generated": fair, "larger boxes": larger_box, "out of sight": just_out_of_sight},
        solution=Actors(size=64, box=6.5, reach=18.0, apart=16.0, object_apart=24.0),
        wrong={
            "the standard": actors.STANDARD,
            "larger boxes alone": Actors(size=64, box=8.0, reach=17.0),
            "the first design": actors.NEARER,
        },
        difficulty=2,
        minutes=10,
        hints=(
            "`actors.least_reach(settings, 4, 7)` says how far the features of a box see.",
            "The object's edge is `reach - 2` away; reach may be a third of the frame at most.",
        ),
    ),
)
