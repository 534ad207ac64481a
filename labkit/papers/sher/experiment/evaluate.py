"""Success at the last step, over fixed test episodes: with the mean action, and as the released code does it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from labkit.papers.sher.experiment.config import Experiment
from labkit.papers.sher.experiment.rollout import Act, rollout
from labkit.papers.sher.experiment.stacks import Stack
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment, Observation
from labkit.papers.sher.method import soft_tabular
from labkit.papers.sher.method.agent import Agent, explore
from labkit.papers.sher.method.hindsight import Episodes
from labkit.rl.streams import Streams

TEST_SEED = 7  # every agent and every copy has the same test episodes
OFFICIAL_EPSILON = 0.05  # random actions, in evaluation too [official code]


class Curve:
    """Success of every copy after some numbers of environment steps."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.rates: list[list[float]] = []

    def add(self, steps: int, rates: Float[Tensor, " copies"]) -> None:
        self.steps.append(steps)
        self.rates.append([round(float(rate), 4) for rate in rates])

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps), "rates": [list(row) for row in self.rates]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.rates = list(state_dict["steps"]), [list(row) for row in state_dict["rates"]]


# -- success ----------------------------------------------------------------------------------------------------------


def success_at_end(episodes: Episodes, world: GoalEnvironment) -> Bool[Tensor, "copies episodes"]:
    """Is the goal achieved at the last moment? An episode that reaches its goal and leaves it again is a failure."""
    return world.is_success(episodes.last_achieved, episodes.desired)


def success_ever(episodes: Episodes, world: GoalEnvironment) -> Bool[Tensor, "copies episodes"]:
    """Was the goal achieved at any moment? For worlds that end an episode there, like bit flipping [peer code]."""
    desired = episodes.desired[:, :, None].expand_as(episodes.achieved)
    return world.is_success(episodes.achieved, desired).any(-1)


def same_generators(copies: int, seed: int = TEST_SEED) -> list[Generator]:
    """One generator per copy, all in the same state: the same starts and goals for all."""
    return [torch.Generator().manual_seed(seed) for _ in range(copies)]


def play_test(act: Act, world: GoalEnvironment, copies: int, episodes: int) -> Episodes:
    """The fixed test episodes, played by `act`."""
    return rollout(act, world, copies, episodes, same_generators(copies), training=False)


def success_rate(
    act: Act, world: GoalEnvironment, copies: int, episodes: int, ever: bool = False
) -> Float[Tensor, " copies"]:
    """Share of the fixed test episodes that end at their goal (or, `ever`, that pass it), per copy."""
    played = play_test(act, world, copies, episodes)
    return (success_ever if ever else success_at_end)(played, world).float().mean(1)


# -- policies that are tested -----------------------------------------------------------------------------------------


def deterministic(agent: Agent) -> Act:
    """tanh of the mean, or the best index. This is what we report."""

    def act(t: int, now: Observation) -> Tensor:
        return agent.act(agent.inputs(now["observation"], now["desired_goal"]), None)

    return act


def official(agent: Agent, world: GoalEnvironment, copies: int, episodes: int, seed: int) -> Act:
    """A sample of the policy, and 5 % random actions: the released code tests as it trains. [official code]"""
    device = agent.inputs.observation.mean.device
    streams = Streams([seed] * copies)
    shape = (world.horizon, episodes, world.action_size)
    noise, random = streams.normal(*shape).to(device), streams.uniform(*shape).to(device)
    coin = streams.uniform(*shape[:2]).to(device)
    no_sigma = torch.zeros(copies, 1, device=device)

    def act(t: int, now: Observation) -> Tensor:
        action = agent.act(agent.inputs(now["observation"], now["desired_goal"]), noise[:, t])
        epsilon = no_sigma + OFFICIAL_EPSILON
        return explore(action, noise[:, t], coin[:, t], 2 * random[:, t] - 1, no_sigma, epsilon)

    return act


# -- results ----------------------------------------------------------------------------------------------------------


def summarize(agent: Any, stack: Stack, world: GoalEnvironment, experiment: Experiment, curve: Curve) -> dict[str, Any]:
    """Per arm: final success per layout and seed, the curve, the same in the official way, the temperature.

    {arm: {"success": {layout: [per seed]}, "official": {...}, "alpha": {...}, "curve": {layout: [[per evaluation] per
    seed]}}}; "official" and "alpha" only where the agent has a temperature.
    """
    columns: dict[str, Sequence[float]] = {"success": curve.rates[-1]}
    if hasattr(agent, "temperature"):
        tests = experiment.test_episodes
        rates = success_rate(official(agent, world, len(stack), tests, seed=11), world, len(stack), tests)
        columns["official"] = rates.tolist()
        columns["alpha"] = agent.temperature().flatten().tolist()
    arms: dict[str, Any] = {}
    for row, copy in enumerate(stack):
        arm = arms.setdefault(copy.name, {name: {} for name in (*columns, "curve")})
        for name, values in columns.items():
            arm[name].setdefault(copy.layout, []).append(round(float(values[row]), 4))
        arm["curve"].setdefault(copy.layout, []).append([rates[row] for rates in curve.rates])
    return arms


GRID = ("....", ".##.", "....", "...G")


def exact_lab(bits: int = 6, gamma: float = 0.98) -> dict[str, Any]:
    """Two worlds solved exactly: the gap between soft and hard values, and the effect of the clip at 0 at the goal.

    Bits: gap and bound. Grid: its goal is a corner, in which three of five actions stay, so that the policy has entropy
    at the goal; the clip cuts off its bonus.
    """
    flips, (maze, cells) = soft_tabular.bit_flip(bits, stay=True), soft_tabular.grid(GRID)
    hard = soft_tabular.hard_values(flips, gamma)
    goal = int((cells == torch.tensor([3, 3])).all(-1).nonzero())
    rows = {}
    for alpha in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        soft = soft_tabular.soft_values(flips, alpha, gamma)
        free, cut = (soft_tabular.soft_values(maze, alpha, gamma, clip=clip) for clip in (False, True))
        rows[f"{alpha:g}"] = {
            "gap": float((soft.v - hard.v).max()),
            "bound": soft_tabular.gap_bound(flips, alpha, gamma),
            "at_goal": float(free.v[goal]),
            "at_goal_clipped": float(cut.v[goal]),
        }
    return {"bits": bits, "gamma": gamma, "rows": rows}
