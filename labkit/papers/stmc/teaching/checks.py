"""Properties that hold exactly.  One check, three uses: test, exercise, and wrong answers that must not pass."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from labkit.papers.stmc.method.architecture import SMALL
from labkit.papers.stmc.method.spatial import corners
from labkit.papers.stmc.method.temporal import TemporalBlock
from labkit.text import ctc
from labkit.workbench.exercises import close


def check_steps(steps: Callable[[int], int]) -> None:
    """The formula against a convolution of 5, a maximum over 2, and both again: what really comes out."""
    for time in (16, 17, 19, 20, 37, 100, 201):
        x = torch.zeros(1, 1, time)
        for _ in range(2):
            x = F.max_pool1d(F.conv1d(x, torch.zeros(1, 1, 5)), 2)
        answer = steps(time)
        assert answer == x.shape[-1], f"{time} frames make {x.shape[-1]} steps; yours {answer}"


def check_collapse(collapse: Callable[[Sequence[int]], Any]) -> None:
    """B on paths with repeats, with a blank between equal labels, with blanks at both ends."""
    for path in ((1, 1, 2), (0, 1, 0, 1, 1, 0), (2, 2, 0, 2), (0, 0), (3,)):
        answer, wanted = tuple(collapse(path)), ctc.collapse(path)
        assert answer == wanted, f"B{path} is {wanted}, yours {answer}"


def check_paths(count: Callable[[int, int], int]) -> None:
    """n different labels in T steps, counted by writing all paths down."""
    for time, n in ((1, 1), (3, 1), (4, 2), (5, 3), (6, 2), (3, 3)):
        uniform = np.full((time, n + 1), -math.log(n + 1))
        wanted = round(math.exp(ctc.log_likelihood(uniform, range(1, n + 1))) * (n + 1) ** time)
        answer = count(time, n)
        assert answer == wanted, f"{n} labels have {wanted} paths in {time} steps, yours {answer}"


def check_fools_greedy(table: Any) -> None:
    """The best path's labelling is not the best labelling."""
    p = np.asarray(table, dtype=np.float64)
    assert p.ndim == 2, f"a table of (steps, labels) is asked for; got shape {p.shape}"
    assert p.shape[0] <= 4, f"four steps at most; got {p.shape[0]}"
    assert p.shape[1] in (2, 3), f"blank and one or two labels; got {p.shape[1]} columns"
    assert (p > 0).all(), "every probability must be above 0"
    assert np.allclose(p.sum(1), 1), f"each row must sum to 1; yours sum to {np.round(p.sum(1), 3).tolist()}"
    path, best = ctc.greedy(np.log(p)), ctc.beam_search(np.log(p), 1000)[0]
    assert path.labels != best.labels, f"both are {best.labels}: the best path already has the best labelling"


def check_corners(first: Callable[[float, float, int, int], tuple[int, int]]) -> None:
    """First row and column of a window, for points inside, at the edges, and where row and column differ."""
    for side, size in ((56, 16), (56, 24), (20, 6)):
        for row, column in ((0.5, 0.5), (0.2, 0.7), (0.0, 1.0), (1.0, 0.0), (0.03, 0.4)):
            wanted = tuple(corners(torch.tensor([[[row, column]]]), side, size)[0, 0].tolist())
            answer = tuple(first(row, column, side, size))
            assert answer == wanted, (
                f"J = ({row}, {column}), a map of {side}, a window of {size}: it begins at {wanted}, yours at {answer}"
            )


def check_gradients(answer: Any) -> None:
    """Which losses reach the pose branch, measured on a network."""
    wanted = teachers_of_the_pose_branch()
    assert isinstance(answer, set | frozenset | tuple | list), f"a set of names is asked for; got {answer!r}"
    unknown = set(answer) - set(SOURCES)
    assert not unknown, f"the names are {', '.join(SOURCES)}; got {', '.join(sorted(map(str, unknown)))}"
    missing, wrong = wanted - set(answer), set(answer) - wanted
    assert not missing, f"{len(missing)} of the names that belong into the set are missing"
    assert not wrong, f"{len(wrong)} of your names leave the pose branch without a gradient"


def check_motion(feature: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """By how much each wrist went down and right since the frame before; nothing in the first frame."""
    points = torch.rand(9, 7, 2, generator=torch.Generator().manual_seed(0))
    wanted = torch.zeros(9, 4)
    wanted[1:] = (points[1:, 5:] - points[:-1, 5:]).flatten(1)
    close(feature(points).detach(), wanted, "J drawn at random in nine frames.", 1e-6)


def check_fifth_path(feature: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Beside the four other cues in a temporal block: no gradient into J; the same for a signer elsewhere."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(20, 7, 2, generator=generator, requires_grad=True)
    assert not feature(points).requires_grad, "its gradient reaches J; the pose feature's does not"
    others = [torch.rand(1, size, 20, generator=generator) for size in SMALL.cue_sizes]
    sizes = (*SMALL.cue_sizes, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = TemporalBlock(sizes, sum(sizes), intra=8, inter=40, path="both", padding=2)

    def fifth_and_joint(points: torch.Tensor) -> torch.Tensor:
        cues = [*others, feature(points).T[None]]
        paths, joint = block(cues, torch.cat(cues, 1))
        return torch.cat([paths[4], joint], 1).detach()

    close(fifth_and_joint(points + 0.1), fifth_and_joint(points), "All points moved by the same.", 1e-4)


SOURCES = ("hand feature", "face feature", "pose feature", "key points' loss", "hand feature, soft crops")


def teachers_of_the_pose_branch() -> set[str]:
    """Backpropagate from each of `SOURCES`, and look whether the pose branch has a gradient."""
    from dataclasses import replace

    from labkit.papers.stmc.method.losses import pose_loss
    from labkit.papers.stmc.method.spatial import SpatialMultiCue

    teachers = set()
    frames = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    for name in SOURCES:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = SpatialMultiCue(replace(SMALL, crops="soft" if "soft" in name else "whole"))
        said = net(frames)
        assert said.points is not None
        if name == "key points' loss":
            loss = pose_loss(said.points, torch.zeros_like(said.points))
        else:
            loss = said.cues[("full", "hand", "face", "pose").index(name.split()[0])].square().sum()
        if loss.requires_grad:
            loss.backward()
        assert net.pose is not None
        if any(p.grad is not None and bool(p.grad.any()) for p in net.pose.parameters()):
            teachers.add(name)
    return teachers
