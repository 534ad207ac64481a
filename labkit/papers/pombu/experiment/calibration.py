"""Is sqrt(U) the error of Q? Predicted and true Q at states and actions nobody chose for the occasion.

For some (s, a) at the first step: Q in the models, its U, and the true Q from real rollouts with the same policy.
Calibrated would mean: |error| <= sqrt(U) in 68 % of the cases, 2 sqrt(U) in 95 %, and error / sqrt(U) of deviation 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.experiment.config import CALIBRATIONS, Config
from labkit.papers.pombu.experiment.offline import (
    OfflineTask,
    Purpose,
    Setting,
    TimedValue,
    clone_controller,
    first_value,
    generator_for,
    prepare,
    seeds_of,
    streams_for,
)
from labkit.papers.pombu.experiment.point import FakeEnsemble, Point
from labkit.papers.pombu.experiment.zone import setting_of, task_of
from labkit.papers.pombu.method.ensemble import DynamicsEnsemble
from labkit.papers.pombu.method.imagination import Draws, draw, follow_members, imagine
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.papers.pombu.method.uncertainty import propagate
from labkit.rl.streams import Streams

NORMAL_COVERAGE = (0.683, 0.954, 0.997)
PERSISTENT_ROLLOUTS = 16


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predicted deviation and error of Q, (seeds, queries); the same for members followed to the end."""

    predicted: Float[Tensor, "copies queries"]
    error: Float[Tensor, "copies queries"]
    persistent: Float[Tensor, "copies queries"] | None = None
    persistent_error: Float[Tensor, "copies queries"] | None = None


def calibrate(name: str, config: Config) -> Calibration:
    """One row of the calibration table.

    Raises:
        InputError: no such row.
    """
    if name not in CALIBRATIONS:
        raise InputError(f"there is no calibration '{name}'; there are {', '.join(CALIBRATIONS)}.")
    world, _, amount = name.partition("-")
    seeds = seeds_of(config.seed, config.calibration_copies)
    if world == "fake":
        return _fake(float(amount), config, seeds)
    if world == "zone":
        which = {"8": "zone", "32": "zone-more-data"}[amount]
        task: OfflineTask = task_of(which)
        setting = setting_of(which, config)
    else:
        task = Point()
        setting = Setting(
            episodes=int(amount), clone_steps=config.zone_clone_steps, model_steps=3 * config.zone_model_steps
        )
    prepared = prepare(task, setting, seeds)
    value = first_value(task, replace(setting, prefit=600), prepared.policy, prepared.ensemble, seeds, 64)
    return ask(task, prepared.policy, prepared.ensemble, value, seeds, config)


def _fake(sigma: float, config: Config, seeds: tuple[int, ...]) -> Calibration:
    """The official code's check: truth plus noise, a policy without noise, one imagined trajectory per query."""
    task, setting = Point(), Setting(clone_steps=config.zone_clone_steps, prefit=600)
    policy = clone_controller(task, setting, streams_for(seeds, Purpose.DATA))
    policy.log_std.data.fill_(-20.0)
    models = FakeEnsemble(task, sigma, setting.members, generator_for(seeds, Purpose.FAKE_MODELS))
    value = first_value(task, setting, policy, models, seeds, 64)
    streams = streams_for(seeds, Purpose.QUERIES)
    start = task.starts(streams, config.calibration_queries)
    draws = draw(streams, task.horizon, start.shape[1], task.action_size, setting.members)
    rollout = imagine(models, policy, value.value, task.reward, start, draws, gamma=task.gamma)
    path = torch.cat([task.reward(rollout.state[:-1], rollout.action[:-1], rollout.state[1:]), rollout.reward[-1:]])
    trace = propagate(path, rollout.uncertainty, gamma=task.gamma)  # rewards of the members that were followed
    return Calibration(trace.uncertainty_target[0].sqrt(), trace.value_target[0] - true_q(task, policy, start, draws))


def ask(
    task: OfflineTask,
    policy: GaussianPolicy,
    ensemble: DynamicsEnsemble,
    value: TimedValue,
    seeds: tuple[int, ...],
    config: Config,
) -> Calibration:
    """U and the error of Q for a trained ensemble; and, for comparison, the deviation over members that are each
    followed for a whole rollout."""
    streams, queries = streams_for(seeds, Purpose.QUERIES), config.calibration_queries
    state = task.starts(streams, queries)
    first = policy(state)[0].detach() + policy.log_std.detach().exp() * streams.normal(queries, task.action_size)

    def again(times: int) -> tuple[Tensor, Draws]:
        """Every query `times` times: the first action stays, everything after it is drawn anew."""
        draws = draw(streams, task.horizon, queries * times, task.action_size, ensemble.members)
        start, action = (x.repeat_interleave(times, 1) for x in (state, first))
        mean, log_std = policy(start)
        draws.noise[0] = ((action - mean) / log_std.exp()).detach()
        return start, draws

    def mean_over(times: int, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, times)).mean(-1)

    rollouts = config.calibration_rollouts
    start, draws = again(rollouts)
    rollout = imagine(
        ensemble, policy, value.value, task.reward, start, draws, gamma=task.gamma, state_bound=task.reach
    )
    trace = propagate(rollout.reward, rollout.uncertainty, gamma=task.gamma)
    q, u = (mean_over(rollouts, x[0]) for x in (trace.value_target, trace.uncertainty_target))
    start, draws = again(rollouts)
    truth = mean_over(rollouts, true_q(task, policy, start, draws, streams))
    start, draws = again(PERSISTENT_ROLLOUTS)
    rewards = follow_members(
        ensemble.by_member, policy, task.reward, start, draws.noise, ensemble.members, state_bound=task.reach
    )
    discount = task.gamma ** torch.arange(task.horizon)
    by_member = mean_over(PERSISTENT_ROLLOUTS, (discount[:, None, None, None] * rewards).sum(0))
    return Calibration(u.sqrt(), q - truth, by_member.std(1, correction=0), by_member.mean(1) - truth)


@torch.no_grad()
def true_q(
    task: OfflineTask,
    policy: GaussianPolicy,
    start: Float[Tensor, "copies queries s"],
    draws: Draws,
    streams: Streams | None = None,
) -> Float[Tensor, "copies queries"]:
    """Discounted return of one real episode per query, with the policy's draws; `streams` of the world's own noise."""
    state, total = start, torch.zeros(start.shape[:2])
    for t in range(task.horizon):
        mean, log_std = policy(state)
        action = mean + log_std.exp() * draws.noise[t]
        after = task.step(state, action, None if streams is None else streams.normal(*state.shape[1:]))
        total = total + task.gamma**t * task.reward(state, action, after)
        state = after
    return total


# -- in numbers -------------------------------------------------------------------------------------------------------


def summarize(result: Calibration) -> dict[str, Any]:
    """Ranking, coverage and scale, for sqrt(U) and for the persistent members."""
    rows = {"sqrt_u": measures(result.predicted, result.error)}
    if result.persistent is not None and result.persistent_error is not None:
        rows["persistent"] = measures(result.persistent, result.persistent_error)
    return rows


def measures(
    predicted: Float[Tensor, "copies queries"], error: Float[Tensor, "copies queries"]
) -> Mapping[str, float | list[float]]:
    """spearman: rank correlation of the prediction with |error|, one a seed. coverage: share of |error| below 1, 2, 3
    predictions. deviation: of error / prediction, 1 where calibrated. mean, mean_error: of prediction and |error|."""
    from scipy.stats import spearmanr

    ranks = [float(spearmanr(p.numpy(), e.numpy()).statistic) for p, e in zip(predicted, error.abs(), strict=True)]
    within = [float((error.abs() <= times * predicted).float().mean()) for times in (1, 2, 3)]
    return {
        "spearman": [round(rank, 4) for rank in ranks],
        "coverage": [round(share, 4) for share in within],
        "deviation": round(float((error / predicted.clamp_min(1e-9)).std()), 4),
        "mean": round(float(predicted.mean()), 5),
        "mean_error": round(float(error.abs().mean()), 5),
    }
