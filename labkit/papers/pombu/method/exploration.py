"""Exploration policies: trained for A + beta sqrt(U) in random mixtures of the models; then the policy is put back.

For each exploration policy: draw weights over the K models, imagine with that mixture, one PPO pass on
A' = A + beta sqrt(U), one real episode, restore pi. Only the weights are restored: the exploration optimiser keeps its
moments from one policy to the next.  [official code]
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.method.episodes import Episodes
from labkit.papers.pombu.method.improvement import Batch, PolicyPass
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.rl.streams import Streams


def mixture_weights(streams: Streams, members: int) -> Float[Tensor, "copies members"]:
    """Uniform numbers, normalised  [official code]. A member moves with its weight as probability.  [inferred]"""
    drawn = streams.uniform(members)
    return drawn / drawn.sum(-1, keepdim=True)


def exploration_advantage(
    advantage: Float[Tensor, "copies samples"], sqrt_u: Float[Tensor, "copies samples"], beta: float
) -> Float[Tensor, "copies samples"]:
    """A' = A + beta sqrt(U), both in standard deviations of A.

    Raises:
        InputError: beta < 0, which would shun the unknown.
    """
    if beta < 0:
        raise InputError(f"beta must be 0 or more; got {beta}.")
    return advantage + beta * sqrt_u


def explore(
    policy: GaussianPolicy,
    policy_pass: PolicyPass,
    imagined: Callable[[Float[Tensor, "copies members"]], Batch],
    play_one: Callable[[int], Episodes],
    streams: Streams,
    *,
    policies: int,
    members: int,
    beta: float,
    epochs: int,
    minibatch: int,
) -> list[Episodes]:
    """One real episode with each of `policies` exploration policies; afterwards the policy is as before.

    Args:
        policy_pass: the exploration's own, with its own Adam.
        imagined: mixture -> what the current policy does in it.
        play_one: number of the exploration policy -> a real episode of every copy with the policy as it is.
        streams: of the mixtures and the minibatches.
        members: K, models in a mixture.
    """
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    episodes = []
    no_penalty = torch.zeros(policy.log_std.shape[0], device=policy.log_std.device)
    for number in range(policies):
        batch = imagined(mixture_weights(streams, members))
        bonus = batch._replace(advantage=exploration_advantage(batch.advantage, batch.sqrt_u, beta))
        policy_pass(bonus, no_penalty, epochs, min(minibatch, batch.advantage.shape[1]), streams)
        episodes.append(play_one(number))
        with torch.no_grad():
            for parameter, value in zip(policy.parameters(), before, strict=True):
                parameter.copy_(value)  # in place: optimisers and CUDA graphs keep their tensors
    return episodes
