"""The uncertainty of Q: the models' disagreement at one step, and its sum along a rollout.

    Var_p[Q^h(s,a)] <= U^h(s,a) = u^h(s,a) + gamma^2 E_{s' ~ P_mean, a' ~ pi}[U^{h+1}(s',a')],   U^H = 0        [paper]
    u^h(s,a) = Var_p[r(s,a) + gamma sum_s' P(s'|s,a) V_mean^{h+1}(s')]                                          (1)

A standard deviation adds up with gamma, a variance with gamma^2. Time is the first axis of every rollout here.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.discounted_trace import discounted_trace


def local_uncertainty(
    q: Float[Tensor, "*shape"], dim: int = 0, *, bessel: bool = False
) -> Float[Tensor, "*without_members"]:
    """u = 1/K sum_k (q_k - mean q)^2, with q_k = r(s, a, f_k(s,a)) + gamma V(f_k(s,a)).  (4) [official code]

    The divisor K under-estimates: E[u] is (K-1)/K of the variance the members are drawn with, 0.8 of it for K = 5.

    Args:
        dim: the axis of the K members.
        bessel: divide by K - 1 instead, which has no such bias.  [ours]

    Raises:
        InputError: fewer than two members.
    """
    members = q.shape[dim] if -q.dim() <= dim < q.dim() else 0
    if members < 2:
        raise InputError(f"disagreement needs two members or more in axis {dim}; got shape {tuple(q.shape)}.")
    return disagreement(q, dim, correction=1 if bessel else 0)


def disagreement(q: Tensor, dim: int = 0, correction: int = 0) -> Tensor:
    """u = Var_k[q_k], the variance over the K models: sum_k (q_k - mean q)^2 / (K - correction)."""
    return q.var(dim, correction=correction)


class UVTrace(NamedTuple):
    """Targets of one rollout, each (time, *copies); rows after the end of an episode are 0 and are to be dropped."""

    advantage: Tensor  # A
    value_target: Tensor  # A + V
    uncertainty_advantage: Tensor  # AU
    uncertainty_target: Tensor  # AU + U, the U(s,a) of the conservative objective; never below 0


def propagate(
    reward: Float[Tensor, "time *copies"],
    uncertainty: Float[Tensor, "time *copies"],
    value: Float[Tensor, "time *copies"] | None = None,
    uncertainty_value: Float[Tensor, "time *copies"] | None = None,
    *,
    gamma: float,
    lam: float = 1.0,
    lam_u: float | None = None,
    done: Bool[Tensor, "time *copies"] | None = None,
) -> UVTrace:
    """The uv-trace: advantages with gamma, uncertainties with gamma^2.  [official code]

        delta_t  = r_t + gamma V(s_{t+1}) - V(s_t)        A_t  = delta_t  + gamma   lam A_{t+1}
        deltaU_t = u_t + gamma^2 U(s_{t+1}) - U(s_t)      AU_t = deltaU_t + gamma^2 lam AU_{t+1}

    V and U after the last step are 0. With lam = 1 the targets are the plain sums of gamma^j r and gamma^2j u.

    Args:
        reward, uncertainty: r_t and u_t >= 0 of each imagined step, (time, *copies); any copies.
        value, uncertainty_value: V(s_t) and U(s_t); None is 0. A negative U counts as 0.
        lam_u: lam of the uncertainty; None: the same.
        done: the episode ends with step t; later steps count nothing.

    Raises:
        InputError: shapes that differ, a gamma or lam outside [0, 1].
    """
    for name, other in (("uncertainty", uncertainty), ("value", value), ("uncertainty_value", uncertainty_value)):
        if other is not None and other.shape != reward.shape:
            raise InputError(f"{name} must have the shape of reward, {tuple(reward.shape)}; got {tuple(other.shape)}.")
    if not 0 <= gamma <= 1:
        raise InputError(f"gamma must lie in [0, 1]; got {gamma}.")
    value = torch.zeros_like(reward) if value is None else value
    u_value = torch.zeros_like(reward) if uncertainty_value is None else uncertainty_value.clamp_min(0)
    if done is not None:
        within, zero = alive(done), reward.new_zeros(())
        reward, uncertainty, value, u_value = (
            torch.where(within, x, zero) for x in (reward, uncertainty, value, u_value)
        )
    advantage = discounted_trace(reward, value, discount=gamma, lam=lam, done=done)
    lam_u = lam if lam_u is None else lam_u
    u_advantage = discounted_trace(uncertainty, u_value, discount=gamma**2, lam=lam_u, done=done)
    # A sum of terms >= 0; computed as AU + U, rounding can leave a hair below 0, of which the root is not a number.
    u_target = (u_advantage + u_value.detach()).clamp_min(0)
    return UVTrace(advantage, advantage + value.detach(), u_advantage, u_target)


def alive(done: Bool[Tensor, "time *copies"]) -> Bool[Tensor, "time *copies"]:
    """Steps that belong to an episode: no earlier step ended it. The step with `done` itself belongs."""
    ended = done.long().cumsum(0) - done.long()
    return ended == 0
