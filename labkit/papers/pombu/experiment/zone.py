"""Zone: a point in the plane that is well known on the right and hardly known on the left.  [ours]

    s' = s + 0.1 Rot(phi(s)) a + noise,    r = -|s'|,    phi = 0 right of the border, a wild function of s left of it

A careful controller works on both sides, already near the best on the left and with a little slack on the right. One
recorded episode starts on the left, seven on the right. So there are two directions to improve: a small certain gain
(right), and a large imaginary one (left, where the models are wrong). alpha decides who gets the budget of change.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.experiment.config import Config
from labkit.papers.pombu.experiment.offline import Arms, Improved, Prepared, Setting, improve, prepare, seeds_of
from labkit.rl.streams import Streams
from labkit.workbench.runs import Run


@dataclass(frozen=True)
class Zone:
    """The task. States and actions are (..., 2); actions count within [-1, 1].

    Args:
        turn: amplitude of the steering angle on the left, rad. waves: its frequency along y, rad per unit.
        border: x left of which steering is turned and noise is larger.
        noise_left, noise_right: standard deviation of the state's noise. speed: length of a full step.
        slack: how hard the controller pulls on the right, of 1.
        left: recorded episodes that start on the left (the others on the right).
        unit: rewards are multiplied by it: the unit of measure, nothing else.
    """

    turn: float = 2.2
    waves: float = 6.0
    border: float = -0.15
    noise_left: float = 0.05
    noise_right: float = 0.01
    speed: float = 0.1
    slack: float = 0.9
    left: int = 1
    unit: float = 1.0
    state_size: int = 2
    action_size: int = 2
    horizon: int = 20
    gamma: float = 0.97
    box: float = 1.5
    reach: float = 5.0

    def angle(self, state: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """phi(s) = sigmoid(30 (border - x)) * turn * (1 + sin(waves y + 2 x))."""
        x, y = state[..., 0], state[..., 1]
        return torch.sigmoid(30 * (self.border - x)) * self.turn * (1 + torch.sin(self.waves * y + 2 * x))

    def step(
        self,
        state: Float[Tensor, "*batch 2"],
        action: Float[Tensor, "*batch 2"],
        noise: Float[Tensor, "*batch 2"] | None = None,
    ) -> Float[Tensor, "*batch 2"]:
        """The true next state; `noise` is standard normal, None for none."""
        after = state + self.speed * rotate(action.clamp(-1, 1), self.angle(state))
        if noise is None:
            return after
        return after + torch.where(state[..., :1] < self.border, self.noise_left, self.noise_right) * noise

    def reward(
        self,
        state: Float[Tensor, "*#batch 2"],
        action: Float[Tensor, "*#batch 2"],
        next_state: Float[Tensor, "*batch 2"],
    ) -> Float[Tensor, "*batch"]:
        return -self.unit * next_state.norm(dim=-1)

    def controller(self, state: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Steers against the angle straight to the origin: a = k Rot(-phi) (-s) / (|s| + 0.1)."""
        pull = torch.where(state[..., :1] < self.border, 1.0, self.slack)
        return pull * rotate(-state / (state.norm(dim=-1, keepdim=True) + 0.1), -self.angle(state))

    def starts(self, streams: Streams, count: int) -> Float[Tensor, "copies count 2"]:
        """Left, right, left, right, ...: each half the time."""
        return self._start(torch.arange(count) % 2 == 0, streams)

    def data_starts(self, streams: Streams, episodes: int) -> Float[Tensor, "copies episodes 2"]:
        """The recorded episodes: the first `left` of them from the left."""
        if not 0 <= self.left <= episodes:
            raise InputError(f"of {episodes} episodes between 0 and all can start on the left; got {self.left}.")
        return self._start(torch.arange(episodes) < self.left, streams)

    def _start(self, left: Bool[Tensor, " count"], streams: Streams) -> Float[Tensor, "copies count 2"]:
        x = torch.where(left, -1.0, 1.0) + 0.1 * streams.normal(len(left))
        y = 1.2 * streams.uniform(len(left)) - 0.6
        return torch.stack([x, y], -1)


def rotate(vector: Float[Tensor, "*batch 2"], angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
    """Turn plane vectors counter-clockwise by `angle` rad."""
    cos, sin = angle.cos(), angle.sin()
    x, y = vector[..., 0], vector[..., 1]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


@dataclass(frozen=True)
class Variation:
    """A change of the task, the setting or both. `arms` None: the config's arms for variations."""

    title: str
    task: dict[str, Any] = field(default_factory=dict)
    setting: dict[str, Any] = field(default_factory=dict)
    arms: tuple[str, ...] | None = None


_ONLY_ALPHA = ("alpha-0", "alpha-2")
_CAUTION = ("alpha-0", "alpha-0.5", "alpha-1", "alpha-2", "alpha-4", "shuffled-2")
RIGHT = 7  # recorded episodes that start on the right, in "zone" and however many there are on the left


def _with_left(episodes: int) -> Variation:
    """So many recorded episodes from the left instead of one; those from the right stay."""
    title = f"{episodes} episodes on the left"
    return Variation(title, {"left": episodes}, {"episodes": RIGHT + episodes}, _CAUTION)


VARIATIONS: dict[str, Variation] = {
    "zone": Variation("as it is"),
    "zone-action-noise": Variation("action noise, sd 0.3", setting={"action_noise": 0.3}),
    "zone-observation-noise": Variation("observation noise, sd 0.1", setting={"observation_noise": 0.1}),
    "zone-more-data": Variation("4 times the data", {"left": 8}, {"episodes": 32}),
    "zone-balanced": Variation("few data, balanced", {"left": 2}, {"episodes": 4}),
    **{f"zone-left-{episodes}": _with_left(episodes) for episodes in (2, 4, 8, 16)},
    "zone-slow": Variation("a quarter of the step size", setting={"learning_rate": 5e-4}, arms=_ONLY_ALPHA),
    "zone-reward-x10": Variation("rewards x 10, U scaled", {"unit": 10.0}, arms=_ONLY_ALPHA),
    "zone-reward-x10-official": Variation(
        "rewards x 10, U as in the official code", {"unit": 10.0}, {"u_scaling": "official"}, _ONLY_ALPHA
    ),
    "zone-reward-x0.1": Variation("rewards / 10, U scaled", {"unit": 0.1}, arms=_ONLY_ALPHA),
    "zone-reward-x0.1-official": Variation(
        "rewards / 10, U as in the official code", {"unit": 0.1}, {"u_scaling": "official"}, _ONLY_ALPHA
    ),
}


def task_of(study: str) -> Zone:
    return replace(Zone(), **_variation(study).task)


def setting_of(study: str, config: Config) -> Setting:
    """The study's numbers with those of the config in them."""
    setting = Setting(
        clone_steps=config.zone_clone_steps,
        model_steps=config.zone_model_steps,
        updates=config.zone_updates,
        evaluations=config.zone_evaluations,
    )
    return replace(setting, **_variation(study).setting)


def arms_of(study: str, config: Config) -> tuple[str, ...]:
    variation = _variation(study)
    return config.zone_arms if study == "zone" else variation.arms or config.variation_arms


def _variation(study: str) -> Variation:
    if study not in VARIATIONS:
        raise InputError(f"there is no study '{study}'; there are {', '.join(VARIATIONS)}.")
    return VARIATIONS[study]


def run_study(name: str, config: Config, run: Run) -> tuple[Zone, Prepared, Improved]:
    """Prepare and improve what `name` asks for; `run` is the study's own part of the run directory."""
    task, setting = task_of(name), setting_of(name, config)
    seeds = seeds_of(config.seed, config.zone_copies)
    prepared = prepare(task, setting, seeds)
    arms = Arms(arms_of(name, config), config.zone_copies)
    return task, prepared, improve(task, prepared, arms, setting, seeds, run)
