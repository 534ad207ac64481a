"""Rollouts inside the ensemble: a random member moves each step, all members judge it.

    s_{t+1} = f_k(s_t, a_t), k drawn anew for every sample and step        r_t = mean_k r(s_t, a_t)
    q_k = r + gamma V(f_k(s_t, a_t))                                       u_t = Var_k[q_k]                         (4)

All random numbers come in from outside (`Draws`): common random numbers are the same draws given twice, and a CUDA
graph can hold the whole rollout. Time is the first axis of what comes out.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.method.uncertainty import local_uncertainty, local_uncertainty_ube
from labkit.rl.gaussian import gaussian_log_prob
from labkit.rl.streams import Streams

Dynamics = Callable[[Tensor, Tensor], Tensor]  # (lanes, batch, s), (lanes, batch, a) -> (lanes, members, batch, s)
Policy = Callable[[Tensor], tuple[Tensor, Tensor]]  # (lanes, batch, s) -> mean, log std
Value = Callable[[Tensor, int], Tensor]  # (lanes, batch, s), step -> (lanes, batch)
RewardOf = Callable[[Tensor, Tensor, Tensor], Tensor]  # s, a, s' with any leading axes -> leading axes


class Draws(NamedTuple):
    """The luck of a set of rollouts: N(0,1) for the actions, the member that moves."""

    noise: Tensor  # (time, lanes, rollouts, action)
    member: Tensor  # (time, lanes, rollouts), 0 .. members - 1


class Rollout(NamedTuple):
    """What was imagined, each (time, lanes, rollouts, ...)."""

    state: Tensor
    action: Tensor  # as the policy drew it, not clipped
    log_prob: Tensor
    reward: Tensor  # mean over members, after `transform`
    paid: Tensor  # mean over members, before it
    uncertainty: Tensor  # u_t
    value: Tensor  # V(s_t)
    done: Tensor  # the members left the finite numbers in this step


def draw(
    streams: Streams,
    horizon: int,
    rollouts: int,
    action: int,
    members: int,
    mixture: Float[Tensor, "lanes members"] | None = None,
) -> Draws:
    """Fresh luck; each lane from its own stream.

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
    edges = mixture.to(spot).cumsum(-1)[:, None, :-1]  # one row of borders a lane
    return Draws(noise.contiguous(), (spot[..., None] >= edges).sum(-1))


@torch.no_grad()
def imagine(
    dynamics: Dynamics,
    policy: Policy,
    value: Value,
    reward: RewardOf,
    start: Float[Tensor, "lanes rollouts observation"],
    draws: Draws,
    *,
    gamma: float,
    transform: Callable[[Tensor], Tensor] | None = None,
    state_bound: float | tuple[Tensor, Tensor] = 1e5,
    action_bound: float = 1.0,
    bessel: bool = False,
    ube_scale: float | None = None,
    first_action: Float[Tensor, "lanes rollouts action"] | None = None,
) -> Rollout:
    """Follow the policy from `start` for as many steps as `draws` has.

    Args:
        value: V(s, t); after the last step V is 0, whatever `value` says.
        reward: r(s, a, s') in the task's units; `transform` maps it to what V is in.
        state_bound: imagined states stay within +-bound, or between two tensors.  [official code]
        action_bound: the models see actions clipped to it, as the simulator does; log-probabilities do not.  [ours]
        bessel: divide by K - 1. ube_scale: u of the alternative method "UBE" with this factor.
        first_action: the action of step 0, in place of the policy's.

    Raises:
        InputError: draws for other lanes or rollouts.
    """
    horizon, lanes, rollouts = draws.member.shape
    if start.shape[:2] != (lanes, rollouts):
        raise InputError(f"draws are for {lanes} lanes of {rollouts} rollouts; start has shape {tuple(start.shape)}.")
    low, high = state_bound if isinstance(state_bound, tuple) else (start.new_full((), -state_bound), None)
    high = -low if high is None else high
    state, kept = start, []
    for t in range(horizon):
        mean, log_std = policy(state)
        action = mean + log_std.exp() * draws.noise[t]
        if t == 0 and first_action is not None:
            action = first_action
        used = action.clamp(-action_bound, action_bound)
        after = dynamics(state, used)  # (lanes, members, rollouts, observation)
        finite = torch.isfinite(after).all(-1).all(1)
        after = torch.where(finite[:, None, :, None], after, state[:, None]).clamp(low, high)
        paid = reward(state[:, None].expand_as(after), used[:, None].expand(*after.shape[:3], -1), after)
        gained = paid if transform is None else transform(paid)
        q = gained
        if t < horizon - 1:
            ahead = value(after.flatten(1, 2), t + 1).view(gained.shape)
            q = gained + gamma * ahead * finite[:, None]
        if ube_scale is None:
            unsure = local_uncertainty(q, 1, bessel=bessel)
        else:
            unsure = local_uncertainty_ube(gained, q, 1, scale=ube_scale)
        log_prob = gaussian_log_prob(action, mean, log_std)
        kept.append((state, action, log_prob, gained.mean(1), paid.mean(1), unsure, value(state, t), ~finite))
        state = _picked(after, draws.member[t])
    return Rollout(*(torch.stack(parts) for parts in zip(*kept, strict=True)))


@torch.no_grad()
def follow_members(
    by_member: Dynamics,
    policy: Policy,
    reward: RewardOf,
    start: Float[Tensor, "lanes rollouts observation"],
    noise: Float[Tensor, "time lanes rollouts action"],
    members: int,
    *,
    state_bound: float = 1e5,
    action_bound: float = 1.0,
    first_action: Float[Tensor, "lanes rollouts action"] | None = None,
) -> Float[Tensor, "time lanes members rollouts"]:
    """Rewards when each member is followed to the end, all with the same luck: the spread of the returns over the
    members is the direct estimate that sqrt(U) is compared with.  [ours]

    Args:
        by_member: `DynamicsEnsemble.by_member`: (lanes, members, batch, .) in and out.
    """
    state = start[:, None].expand(-1, members, -1, -1)
    shape, rewards = state.shape[:3], []
    for t in range(len(noise)):
        mean, log_std = policy(state.flatten(1, 2))
        action = mean.view(*shape, -1) + log_std[:, None].exp() * noise[t][:, None]
        if t == 0 and first_action is not None:
            action = first_action[:, None].expand_as(action)
        used = action.clamp(-action_bound, action_bound)
        after = by_member(state, used).clamp(-state_bound, state_bound)
        rewards.append(reward(state, used, after))
        state = after
    return torch.stack(rewards)


def _picked(after: Tensor, member: Tensor) -> Tensor:
    """after (lanes, members, batch, s) at member (lanes, batch)."""
    index = member[:, None, :, None].expand(-1, 1, -1, after.shape[-1])
    return after.gather(1, index)[:, 0]
