"""Small stacks that tests train for some steps, in double precision: rounding must not decide a comparison."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from labkit.papers.sher.experiment.baselines import DeterministicActorCritic, SoftActorCritic2
from labkit.papers.sher.method.agent import Settings, Sizes
from labkit.papers.sher.method.hindsight import Transitions
from labkit.papers.sher.method.soft_actor_critic import SoftActorCritic

SIZES = Sizes(observation=3, goal=2, action=2)
SMALL = Settings(gamma=0.95, hidden=(16, 16), final_gain=0.1, log_std=(-5.0, 2.0), normalize=False)
AGENTS = {"sher": SoftActorCritic, "sac": SoftActorCritic2, "her": DeterministicActorCritic}


def agent_of(name: str, seeds: Sequence[int], values: Sequence[float | None], **settings):
    """A stack with these initial seeds and temperatures (HER: weights of the penalty)."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return AGENTS[name](SIZES, replace(SMALL, **settings), values, generators).double()


def transitions(copies: int, rows: int = 32, seed: int = 0) -> Transitions:
    """Made-up transitions; copy i has its own."""
    g = [torch.Generator().manual_seed(100 * seed + copy) for copy in range(copies)]

    def draw(*shape: int) -> torch.Tensor:
        return torch.stack([torch.randn(*shape, generator=one, dtype=torch.float64) for one in g])

    goal = draw(rows, 2)
    reward = -(draw(rows) > 0).double()
    ended = draw(rows) > 1.5
    return Transitions(draw(rows, 3), draw(rows, 2).tanh(), draw(rows, 3), goal, goal, goal, reward, reward < 0, ended)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
