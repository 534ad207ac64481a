"""Small stacks that tests train for some steps."""

from dataclasses import replace

import torch

from labkit.papers.sher.experiment.config import EXPERIMENTS, Arm
from labkit.papers.sher.method.agent import Lane, Sizes
from labkit.papers.sher.method.hindsight import Transitions

SIZES = Sizes(observation=3, goal=2, action=2)
AGENTS = ("sher", "sac", "her")


SMALL = replace(EXPERIMENTS["walls"], hidden=(16, 16))  # the lesson's setting with small networks


def lanes_of(*seeds: int, **arm: object) -> list[Lane]:
    return [Lane("arm", Arm(**arm), "gap", r, seed) for r, seed in enumerate(seeds)]  # type: ignore[arg-type]


def batch_of(copies: int, rows: int = 32, seed: int = 0) -> Transitions:
    """Made-up transitions; copy i has its own."""
    g = [torch.Generator().manual_seed(100 * seed + copy) for copy in range(copies)]

    def draw(*shape: int) -> torch.Tensor:
        return torch.stack([torch.randn(*shape, generator=one) for one in g])

    goal = draw(rows, 2)
    reward = -(draw(rows) > 0).float()
    return Transitions(draw(rows, 3), draw(rows, 2).tanh(), draw(rows, 3), goal, goal, goal, reward, reward < 0)
