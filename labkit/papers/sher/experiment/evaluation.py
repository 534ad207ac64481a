"""Success as the papers count it: at the LAST step of an episode. Reaching the goal and leaving again is a failure."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from labkit.papers.sher.experiment.rollout import Act, rollout
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment
from labkit.papers.sher.method.hindsight import Episodes

TEST_SEED = 7  # every agent and every copy meets the same test episodes


def success_at_end(episodes: Episodes, world: GoalEnvironment) -> Bool[Tensor, "copies episodes"]:
    """Is the goal achieved at the last moment?"""
    return world.is_success(episodes.achieved[:, :, -1], episodes.desired)


def success_ever(episodes: Episodes, world: GoalEnvironment) -> Bool[Tensor, "copies episodes"]:
    """Was the goal achieved at any moment? For worlds that end an episode there, like bit flipping [peer code]."""
    desired = episodes.desired[:, :, None].expand_as(episodes.achieved)
    return world.is_success(episodes.achieved, desired).any(-1)


def same_generators(copies: int, seed: int = TEST_SEED) -> list[Generator]:
    """One generator per copy, all in the same state: the same starts and goals for everybody."""
    return [torch.Generator().manual_seed(seed) for _ in range(copies)]


def play_test(act: Act, world: GoalEnvironment, copies: int, episodes: int, seed: int = TEST_SEED) -> Episodes:
    """The fixed test episodes, played by `act`."""
    return rollout(act, world, copies, episodes, same_generators(copies, seed), training=False)


def success_rate(
    act: Act, world: GoalEnvironment, copies: int, episodes: int, seed: int = TEST_SEED, ever: bool = False
) -> Float[Tensor, " copies"]:
    """Share of the fixed test episodes that end at their goal (or, `ever`, that pass it), per copy."""
    played = play_test(act, world, copies, episodes, seed)
    return (success_ever if ever else success_at_end)(played, world).float().mean(1)


def area_under_curve(curve: Sequence[Sequence[float]]) -> list[float]:
    """Mean over the evaluations of a success curve, per copy: how soon, not only how well."""
    rows = torch.tensor([list(row) for row in curve], dtype=torch.float64)
    return [float(value) for value in rows.mean(0)]
