"""Success at the last step, over fixed test episodes: with the mean action, and as the released code does it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.papers.sher.experiment.config import Experiment
from labkit.papers.sher.experiment.evaluation import success_rate
from labkit.papers.sher.experiment.rollout import Act
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment, Observation
from labkit.papers.sher.method import soft_tabular
from labkit.papers.sher.method.agent import Agent, explore
from labkit.papers.sher.method.soft_actor_critic import SoftActorCritic, SoftActorCritic2
from labkit.rl.streams import Streams

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


def deterministic(agent: Agent) -> Act:
    """tanh of the mean, or the best index. This is what we report."""

    def act(t: int, now: Observation) -> Tensor:
        return agent.act(agent.inputs(now["observation"], now["desired_goal"]), None)

    return act


def official(agent: Agent, world: GoalEnvironment, episodes: int, seed: int) -> Act:
    """A sample of the policy, and 5 % random actions: the released code tests as it trains. [official code]"""
    device = agent.inputs.observation.mean.device
    streams = Streams([seed] * len(agent.lanes))
    shape = (world.horizon, episodes, world.action_size)
    noise, random = streams.normal(*shape).to(device), streams.uniform(*shape).to(device)
    coin = streams.uniform(*shape[:2]).to(device)
    nothing = torch.zeros(len(agent.lanes), 1, device=device)

    def act(t: int, now: Observation) -> Tensor:
        action = agent.act(agent.inputs(now["observation"], now["desired_goal"]), noise[:, t])
        return explore(
            action, noise[:, t], coin[:, t], 2 * random[:, t] - 1, nothing, nothing + OFFICIAL_EPSILON
        )  # fmt: skip

    return act


def summarise(agent: Any, world: GoalEnvironment, experiment: Experiment, curve: Curve) -> dict[str, Any]:
    """Per arm: final success per layout and seed, the curve, the same in the official way, the temperature.

    {arm: {"success": {layout: [per seed]}, "official": {...}, "curve": {layout: [[per seed] per evaluation]},
    "alpha": {layout: [...]}}}; the last three only where the agent has them.
    """
    final = curve.rates[-1]
    columns: dict[str, Sequence[float]] = {"success": final}
    if isinstance(agent, (SoftActorCritic, SoftActorCritic2)):
        tests = experiment.test_episodes
        rates = success_rate(official(agent, world, tests, seed=11), world, len(agent.lanes), tests)
        columns["official"] = rates.tolist()
        columns["alpha"] = agent.temperature().flatten().tolist()
    found: dict[str, Any] = {}
    for row, lane in enumerate(agent.lanes):
        arm = found.setdefault(lane.name, {name: {} for name in (*columns, "curve")})
        for name, values in columns.items():
            arm[name].setdefault(lane.layout, []).append(round(float(values[row]), 4))
        arm["curve"].setdefault(lane.layout, []).append([rates[row] for rates in curve.rates])
    return found


GRID = ("....", ".##.", "....", "...G")


def exact_lab(bits: int = 6, gamma: float = 0.98) -> dict[str, Any]:
    """Two worlds solved exactly: how far soft values lie from hard ones, and what the clip at 0 cuts off at the goal.

    Bits: gap and bound. Grid: its goal is a corner, where three of five actions hold it, so that there is entropy to
    be had at the goal; the clip takes it away.
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
