"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from labkit.papers.stmc.teaching import checks
from labkit.workbench.exercises import Exercise

# -- steps ------------------------------------------------------------------------------------------------------------


def steps(time: int) -> int:
    for _ in range(2):
        time = (time - 4) // 2
    return time


def paths(time: int, n: int) -> int:
    return math.comb(time + n, 2 * n)


# -- collapse ---------------------------------------------------------------------------------------------------------


def collapse(path: Sequence[int]) -> tuple[int, ...]:
    kept = [label for k, label in enumerate(path) if k == 0 or label != path[k - 1]]
    return tuple(label for label in kept if label != 0)


def blanks_first(path: Sequence[int]) -> tuple[int, ...]:
    spoken = [label for label in path if label != 0]
    return tuple(label for k, label in enumerate(spoken) if k == 0 or label != spoken[k - 1])


# -- find the bug -----------------------------------------------------------------------------------------------------


def first_cell(row: float, column: float, side: int, size: int) -> tuple[int, int]:
    def along(j: float) -> int:
        return min(max(round((side - 1) * j) - (size // 2 - 1), 0), side - size)

    return along(row), along(column)


def broken_window(row: float, column: float, side: int, size: int) -> tuple[int, int]:
    """First row and first column of a window of `size` cells around the point J = (row, column), both from 0 to 1.

    side: of the map, in cells. The whole window must lie on the map.
    """

    def along(j: float) -> int:
        centre = round((side - 1) * j)
        return min(max(centre - (size // 2 - 1), 0), side - 1)

    return along(row), along(column)


def swapped(row: float, column: float, side: int, size: int) -> tuple[int, int]:
    return first_cell(column, row, side, size)


# -- a fifth cue ------------------------------------------------------------------------------------------------------


def motion(points: torch.Tensor) -> torch.Tensor:
    wrists = points.detach()[:, 5:].flatten(1)
    return torch.cat([torch.zeros_like(wrists[:1]), wrists.diff(dim=0)])


def motion_with_gradient(points: torch.Tensor) -> torch.Tensor:
    wrists = points[:, 5:].flatten(1)
    return torch.cat([torch.zeros_like(wrists[:1]), wrists.diff(dim=0)])


def motion_around_the_end(points: torch.Tensor) -> torch.Tensor:
    wrists = points.detach()[:, 5:].flatten(1)
    return wrists - wrists.roll(1, 0)


FOOLS = np.array([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3]])

EXERCISES = (
    Exercise(
        key="steps",
        kind="fill in",
        task="Write $T'$, the number of steps that `TemporalMultiCue` makes of $T$ frames without padding: a "
        "convolution of width 5, a maximum over pairs, and both once more. `T` is a whole number of 16 or more.",
        properties={"counts the steps": checks.check_steps},
        solution=steps,
        wrong={
            "as if padded": lambda time: time // 4,
            "no rounding between": lambda time: math.ceil((time - 12) / 4),
            "one block": lambda time: (time - 4) // 2,
        },
        difficulty=1,
        minutes=5,
        hints=(
            "How many places does a window of width 5 have in a row of T? And what does a maximum over pairs do "
            "with an odd number?",
            "One block: $\\lfloor (T-4)/2 \\rfloor$. Apply it twice.",
        ),
    ),
    Exercise(
        key="collapse",
        kind="fill in",
        task="Write B: from a path (a sequence of whole numbers, 0 is the blank) to its labelling, a tuple. Repeats "
        "become one, and then the blanks go.",
        properties={"is B": checks.check_collapse},
        solution=collapse,
        wrong={"blanks first": blanks_first, "keeps repeats": lambda path: tuple(v for v in path if v)},
        difficulty=1,
        minutes=5,
        hints=(
            "The order of the two parts matters: what becomes of a gloss that is signed twice?",
            "Keep `path[k]` where `k` is 0 or `path[k] != path[k - 1]`; drop the zeros afterwards.",
        ),
    ),
    Exercise(
        key="paths",
        kind="fill in",
        task="How many paths of $T$ steps collapse to a given labelling of $n$ *different* labels? Write a function of "
        "`(T, n)`.",
        properties={"counts the paths": checks.check_paths},
        solution=paths,
        wrong={
            "without blanks": lambda time, n: math.comb(time - 1, n - 1) if time >= n else 0,
            "free choice": lambda time, n: (n + 1) ** time,
        },
        difficulty=3,
        minutes=15,
        hints=(
            "A path is a walk along blank, l1, blank, l2, ..., blank that may stand still, and may step over blanks. "
            "Each label lasts one step or more, each blank none or more.",
            "n parts of at least 1 and n + 1 parts of at least 0 that sum to T: give every blank one step more, and "
            "count the ways to cut T + n + 1 into 2 n + 1 parts of at least 1.",
        ),
    ),
    Exercise(
        key="window",
        kind="find the bug",
        task="`broken_window` says where a crop begins on map A. Around most points it is right. Correct it. "
        "The answer is a function of `(row, column, side, size)` that returns two whole numbers.",
        properties={"right everywhere": checks.check_corners},
        solution=first_cell,
        wrong={"the bug": broken_window, "row and column change places": swapped},
        difficulty=2,
        minutes=10,
        hints=(
            "Try points near the four edges of the map, and write down the last row of each window, too.",
            "A window that begins at `first` ends at `first + size - 1`. Which is the largest `first` "
            "that keeps that on the map?",
        ),
    ),
    Exercise(
        key="fool-greedy",
        kind="open",
        task="Make up posteriors, a table of probabilities with up to four rows (steps) and two or three columns "
        "(blank first), for which the labelling of the best path is not the most probable labelling.",
        properties={"greedy is fooled": checks.check_fools_greedy},
        solution=FOOLS,
        wrong={
            "too sure": np.array([[0.9, 0.1], [0.2, 0.8]]),
            "no distribution": np.array([[0.4, 0.3], [0.4, 0.3]]),
            "one step": np.array([[0.5, 0.3, 0.2]]),
        },
        difficulty=2,
        minutes=10,
        hints=(
            "One path must be the best, but a labelling with several middling paths must add up to more.",
            "Two steps in which the blank is the likeliest each time. How many paths has the labelling (1)?",
        ),
    ),
    Exercise(
        key="teachers",
        kind="predict, then run",
        task="Which of these teach the pose branch, that is: after backpropagation from which of them does it have a "
        'gradient? The names: "hand feature", "face feature", "pose feature", "key points\' loss", "hand feature, soft '
        'crops". Answer with a set of names.',
        properties={"measured on a network": checks.check_gradients},
        solution=frozenset({"key points' loss", "hand feature, soft crops"}),
        wrong={
            "all of them": frozenset(checks.SOURCES),
            "its own loss alone": frozenset({"key points' loss"}),
            "the pose feature, too": frozenset({"key points' loss", "hand feature, soft crops", "pose feature"}),
        },
        difficulty=2,
        minutes=10,
        hints=(
            "Look for `round` and for `detach` in the sources of section 4.",
            "A whole number has no derivative. Bilinear interpolation between cells has one.",
        ),
    ),
    Exercise(
        key="fifth-cue",
        kind="open",
        task="Give the network a fifth cue: how the hands move. Write a function of $J$, a tensor `(time, 7, 2)`, that "
        "returns a feature `(time, 4)`: by how much point 5 went down and right since the frame before, then the same "
        "of point 6; zeros in the first frame. It must no more train the pose branch than the pose feature does. "
        "The check puts it beside the four other cues, into a `TemporalBlock` with five paths.",
        properties={"says how the hands move": checks.check_motion, "has its own path": checks.check_fifth_path},
        solution=motion,
        wrong={
            "trains the pose branch": motion_with_gradient,
            "where the hands are": lambda points: points.detach()[:, 5:].flatten(1),
            "the last frame before the first": motion_around_the_end,
            "the other way round": lambda points: -motion(points),
            "elbows": lambda points: motion(points[:, [0, 1, 2, 5, 6, 3, 4]]),
            "a frame is missing": lambda points: motion(points)[1:],
        },
        difficulty=2,
        minutes=10,
        hints=(
            "Two slices of J, one without its first frame and one without its last, differ by what you look for. "
            "How does the pose feature keep its gradient out of J? Its source stands in section 4.",
            "`wrists = points.detach()[:, 5:].flatten(1)` has a row a frame; `wrists.diff(dim=0)` lacks the first row.",
        ),
    ),
)
