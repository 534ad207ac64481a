"""Rollouts inside the ensemble: a random member moves each step, all members judge it.

    s_{t+1} = f_k(s_t, a_t), k drawn anew for every sample and step        r_t = mean_k r(s_t, a_t)
    q_k = r + gamma V(f_k(s_t, a_t))                                       u_t = Var_k[q_k]                         (4)

The last step counts gamma V(s_T) in its u as every other does  [official code]: members that disagree about where the
rollout ends are not sure what it is worth. A V that knows the time is 0 there, as in the theory.

Members may predict more than the next state, a reward or an end: `reward` and `terminates` then look there. What comes
after an end counts nothing: V is 0 there for the members that see it; the episode ends where the one that moves does.

All random numbers come in from outside (`Draws`): common random numbers are the same draws given twice, and a CUDA
graph can hold the whole rollout. Time is the first axis of what comes out.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.method.uncertainty import local_uncertainty
from labkit.rl.gaussian import gaussian_log_prob
from labkit.rl.streams import Streams

Dynamics = Callable[[Tensor, Tensor], Tensor]  # (copies, batch, s), (copies, batch, a) -> (copies, members, batch, out)
Policy = Callable[[Tensor], tuple[Tensor, Tensor]]  # (copies, batch, s) -> mean, log std
Value = Callable[[Tensor, int], Tensor]  # (copies, batch, s), step -> (copies, batch)
OfOutcome = Callable[[Tensor, Tensor, Tensor], Tensor]  # s, a, what a member predicts, any leading axes -> those axes


class Draws(NamedTuple):
    """The random numbers of a set of rollouts: N(0,1) for the actions, the member that moves each step."""

    noise: Tensor  # (time, copies, rollouts, action)
    member: Tensor  # (time, copies, rollouts), 0 .. members - 1


class Rollout(NamedTuple):
    """What was imagined, each (time, copies, rollouts, ...)."""

    state: Tensor
    action: Tensor  # as the policy drew it, not clipped
    log_prob: Tensor
    reward: Tensor  # mean over members, after `transform`
    task_reward: Tensor  # mean over members, before it: in the task's units
    uncertainty: Tensor  # u_t
    value: Tensor  # V(s_t)
    done: Tensor  # the task ends with this step: what is imagined after it is to be dropped
    diverged: Tensor  # the members left the finite numbers in this step


def draw(
    streams: Streams,
    horizon: int,
    rollouts: int,
    action: int,
    members: int,
    mixture: Float[Tensor, "copies members"] | None = None,
) -> Draws:
    """Fresh random numbers, for each copy from its own stream.

    Args:
        mixture: how often each member moves, rows that sum to 1; None: all alike.

    Raises:
        InputError: fewer than one rollout or step, weights that are no distribution.
    """
    if min(horizon, rollouts) < 1 or members < 2:
        raise InputError(f"at least one step, one rollout, two members; got {horizon}, {rollouts}, {members}.")
    noise = streams.normal(horizon, rollouts, action).movedim(0, 1)
    spot = streams.uniform(horizon, rollouts).movedim(0, 1)
    if mixture is None:
        return Draws(noise.contiguous(), (spot * members).long().clamp_max(members - 1).contiguous())
    total = mixture.sum(-1)
    if mixture.shape != (len(streams), members) or bool((mixture < 0).any()) or bool(((total - 1).abs() > 1e-4).any()):
        raise InputError(f"mixture must be {len(streams)} distributions over {members} members; got {mixture}.")
    edges = mixture.to(spot).cumsum(-1)[:, None, :-1]  # one row of borders a copy
    return Draws(noise.contiguous(), (spot[..., None] >= edges).sum(-1))


@torch.no_grad()
def imagine(
    dynamics: Dynamics,
    policy: Policy,
    value: Value,
    reward: OfOutcome,
    start: Float[Tensor, "copies rollouts observation"],
    draws: Draws,
    *,
    gamma: float,
    terminates: OfOutcome | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    state_bound: float | tuple[Tensor, Tensor] = 1e5,
    action_bound: float = 1.0,
    bessel: bool = False,
) -> Rollout:
    """Follow the policy from `start` for as many steps as `draws` has.

    Args:
        value: V(s, t), t from 0 to the horizon: what V is after the last step counts in the uncertainty.
        dynamics: what every member predicts: the next state first, as long as `start`'s.
        reward: in the task's units; `transform` maps it to what V is in.
        terminates: whether the task is over after the step; None: it never is.
        state_bound: imagined states stay within +-bound, or between two tensors.  [official code]
        action_bound: the models see actions clipped to it, as the simulator does; log-probabilities do not.  [ours]
        bessel: divide by K - 1.

    Raises:
        InputError: draws for other copies or rollouts.
    """
    horizon, copies, rollouts = draws.member.shape
    if start.shape[:2] != (copies, rollouts):
        raise InputError(f"draws are for {copies} copies of {rollouts} rollouts; start has shape {tuple(start.shape)}.")
    low, high = state_bound if isinstance(state_bound, tuple) else (start.new_full((), -state_bound), None)
    high = -low if high is None else high
    state, size, steps = start, start.shape[-1], []
    never = torch.zeros_like(draws.member[0], dtype=torch.bool)
    for t in range(horizon):
        mean, log_std = policy(state)
        action = mean + log_std.exp() * draws.noise[t]
        used = action.clamp(-action_bound, action_bound)
        outcomes = dynamics(state, used)  # (copies, members, rollouts, what a member predicts)
        finite = torch.isfinite(outcomes).all(-1).all(1)
        outcomes = torch.where(finite[:, None, :, None], outcomes, _padded(state, outcomes.shape[-1])[:, None])
        states = outcomes[..., :size].clamp(low, high)
        outcomes = states if outcomes.shape[-1] == size else torch.cat([states, outcomes[..., size:]], -1)
        step = state[:, None].expand_as(states), used[:, None].expand(*states.shape[:3], -1), outcomes
        task_reward = reward(*step)
        normalized = task_reward if transform is None else transform(task_reward)
        next_value = value(states.flatten(1, 2), t + 1).view(normalized.shape) * finite[:, None]
        done = never
        if terminates is not None:
            ends = terminates(*step)
            next_value, done = next_value * ~ends, _of_member(ends[..., None], draws.member[t])[..., 0]
        uncertainty = local_uncertainty(normalized + gamma * next_value, 1, bessel=bessel)
        log_prob = gaussian_log_prob(action, mean, log_std)
        rewards = normalized.mean(1), task_reward.mean(1)
        steps.append((state, action, log_prob, *rewards, uncertainty, value(state, t), done, ~finite))
        state = _of_member(states, draws.member[t])
    return Rollout(*(torch.stack(parts) for parts in zip(*steps, strict=True)))


def _padded(state: Tensor, outputs: int) -> Tensor:
    """A state that stands still, with zeros for what else members predict."""
    return torch.nn.functional.pad(state, (0, outputs - state.shape[-1]))


@torch.no_grad()
def follow_members(
    by_member: Dynamics,
    policy: Policy,
    reward: OfOutcome,
    start: Float[Tensor, "copies rollouts observation"],
    noise: Float[Tensor, "time copies rollouts action"],
    members: int,
    *,
    state_bound: float = 1e5,
    action_bound: float = 1.0,
) -> Float[Tensor, "time copies members rollouts"]:
    """Rewards when each member is followed to the end, all with the same noise. The spread of the returns over the
    members is the direct estimate that sqrt(U) is compared with.  [ours]

    Args:
        by_member: `DynamicsEnsemble.by_member`: (copies, members, batch, .) in and out.
    """
    state = start[:, None].expand(-1, members, -1, -1)
    shape, rewards = state.shape[:3], []
    for t in range(len(noise)):
        mean, log_std = policy(state.flatten(1, 2))
        action = mean.view(*shape, -1) + log_std[:, None].exp() * noise[t][:, None]
        used = action.clamp(-action_bound, action_bound)
        next_state = by_member(state, used).clamp(-state_bound, state_bound)
        rewards.append(reward(state, used, next_state))
        state = next_state
    return torch.stack(rewards)


def _of_member(predictions: Tensor, member: Tensor) -> Tensor:
    """predictions (copies, members, batch, .) at member (copies, batch)."""
    index = member[:, None, :, None].expand(-1, 1, -1, predictions.shape[-1])
    return predictions.gather(1, index)[:, 0]
