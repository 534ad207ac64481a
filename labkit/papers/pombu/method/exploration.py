"""Policies that go and look: trained for A + beta sqrt(U) in random mixtures of the models, then put back.

For each exploration policy: draw weights over the K models, imagine with that mixture, one PPO pass on
A' = A + beta sqrt(U), one real episode, restore pi. Only the weights are restored: the exploration optimiser keeps its
moments from one policy to the next.  [official code]
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.experiment.worlds import Played
from labkit.papers.pombu.method.improvement import Batch, PolicyPass
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.rl.streams import Streams


def mixture_weights(streams: Streams, members: int) -> Float[Tensor, "lanes members"]:
    """Uniform numbers, normalised  [official code]. A member moves with its weight as probability.  [inferred]"""
    drawn = streams.uniform(members)
    return drawn / drawn.sum(-1, keepdim=True)


def exploration_advantage(
    advantage: Float[Tensor, "lanes samples"], sqrt_u: Float[Tensor, "lanes samples"], beta: float
) -> Float[Tensor, "lanes samples"]:
    """A' = A + beta sqrt(U), both in standard deviations of A.

    Raises:
        InputError: beta < 0, which would shun the unknown.
    """
    if beta < 0:
        raise InputError(f"beta must be 0 or more; got {beta}.")
    return advantage + beta * sqrt_u


class Remembered:
    """The policy's weights, to be put back; in place, so that optimisers and CUDA graphs keep their tensors."""

    def __init__(self, policy: GaussianPolicy) -> None:
        self._parameters = list(policy.parameters())
        self._values = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def restore(self, lanes: Tensor | None = None) -> None:
        """Put back all lanes, or those where `lanes` (bool, one a lane) is true."""
        for parameter, value in zip(self._parameters, self._values, strict=True):
            if lanes is None:
                parameter.copy_(value)
            else:
                parameter.copy_(torch.where(lanes.view(-1, *[1] * (value.dim() - 1)), value, parameter))


def explore(
    policy: GaussianPolicy,
    policy_pass: PolicyPass,
    imagined: Callable[[Float[Tensor, "lanes members"]], Batch],
    play_one: Callable[[int], Played],
    mixture: Callable[[], Float[Tensor, "lanes members"]],
    streams: Streams,
    *,
    policies: int,
    beta: float,
    epochs: int,
    minibatch: int,
    explores: Tensor | None = None,
) -> list[Played]:
    """One real episode with each of `policies` exploration policies; afterwards the policy is as before.

    Args:
        policy_pass: the exploration's own, with its own Adam.
        imagined: mixture -> what the current policy does in it.
        play_one: number of the exploration policy -> a real episode of every lane with the policy as it is.
        mixture: weights of the models for the next exploration policy, see `mixture_weights`.
        streams: of the minibatches.
        explores: one bool a lane; the others play the policy itself. None: all explore.
    """
    before, played = Remembered(policy), []
    stays = None if explores is None else ~explores
    nothing = torch.zeros(policy.log_std.shape[0], device=policy.log_std.device)
    for number in range(policies):
        batch = imagined(mixture())
        bonus = batch._replace(advantage=exploration_advantage(batch.advantage, batch.sqrt_u, beta))
        policy_pass(bonus, nothing, epochs, minibatch, streams)
        if stays is not None:
            before.restore(stays)
        played.append(play_one(number))
        before.restore()
    return played
