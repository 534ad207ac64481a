"""Trust-region policy optimisation, all copies at once: the policy step of ME-TRPO.  [peer: Kurutach et al. 2018]

    maximise E[A rho] subject to E[KL(pi_old | pi)] <= d:    theta += sqrt(2 d / x'Fx) x,   F x = grad E[A rho]

F is the Fisher matrix, x comes from conjugate gradients. Copies have no part in each other's F, so one
product with the stack is one with every copy; only the scalars of the recursion are one number a copy.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.method.improvement import Batch
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.papers.pombu.method.objective import ratio_change
from labkit.rl.gaussian import gaussian_log_prob
from labkit.rl.streams import Streams

Copies = Float[Tensor, "copies numbers"]


class TrustRegionPass:
    """One step of every copy on a whole batch; takes and ignores what only minibatches need.

    Args:
        max_kl: d. damping: added to F's diagonal. tries: halvings of the step until the KL holds and the gain is
            positive; a copy for which none does stays.
    """

    def __init__(
        self, policy: GaussianPolicy, *, max_kl: float = 0.01, damping: float = 0.1, rounds: int = 10, tries: int = 10
    ) -> None:
        if not max_kl > 0 or damping < 0 or min(rounds, tries) < 1:
            raise InputError("max_kl must be positive, damping 0 or more, rounds and tries at least 1.")
        self.policy, self.max_kl, self.damping = policy, max_kl, damping
        self.rounds, self.tries = rounds, tries
        self.parameters = list(policy.parameters())

    def __call__(self, batch: Batch, alpha: Tensor, epochs: int, minibatch: int, streams: Streams) -> None:
        with torch.no_grad():
            old_mean, old_log_std = (x.clone() for x in self.policy(batch.state))

        def kl() -> Float[Tensor, " copies"]:
            mean, log_std = self.policy(batch.state)
            return gaussian_kl(old_mean, old_log_std, mean, log_std).mean(-1)

        slope = self._flat(torch.autograd.grad(self._gain(batch).sum(), self.parameters))
        first = torch.autograd.grad(kl().sum(), self.parameters, create_graph=True)

        def fisher(x: Copies) -> Copies:
            along = sum((g.flatten(1) * part).sum() for g, part in zip(first, self._parts(x), strict=True))
            assert isinstance(along, Tensor)
            return self._flat(torch.autograd.grad(along, self.parameters, retain_graph=True)) + self.damping * x

        direction = conjugate_gradients(fisher, slope, self.rounds)
        length = (2 * self.max_kl / (direction * fisher(direction)).sum(1).clamp_min(1e-12)).sqrt()
        self._search(batch, kl, direction * length[:, None])

    @torch.no_grad()
    def _search(self, batch: Batch, kl: Callable[[], Tensor], step: Copies) -> None:
        """Lane by copy the longest of step, step/2, step/4, ... that gains and stays in the region."""
        start = self._flat(self.parameters)
        before = self._gain(batch)
        open_copies = torch.ones(len(start), dtype=torch.bool, device=start.device)
        chosen = start.clone()
        for halvings in range(self.tries):
            self._write(torch.where(open_copies[:, None], start + 0.5**halvings * step, chosen))
            good = open_copies & (self._gain(batch) > before) & (kl() <= 1.5 * self.max_kl)
            chosen = torch.where(good[:, None], start + 0.5**halvings * step, chosen)
            open_copies = open_copies & ~good
        self._write(chosen)

    def _gain(self, batch: Batch) -> Float[Tensor, " copies"]:
        mean, log_std = self.policy(batch.state)
        delta = ratio_change(gaussian_log_prob(batch.action, mean, log_std), batch.log_prob)
        return (batch.advantage * delta).mean(-1)

    def _flat(self, tensors: object) -> Copies:
        return torch.cat([t.flatten(1) for t in tensors], 1)  # type: ignore[attr-defined]

    def _parts(self, x: Copies) -> tuple[Tensor, ...]:
        return x.split([p[0].numel() for p in self.parameters], 1)

    @torch.no_grad()
    def _write(self, x: Copies) -> None:
        for parameter, part in zip(self.parameters, self._parts(x), strict=True):
            parameter.copy_(part.view_as(parameter))


def gaussian_kl(
    mean: Float[Tensor, "*copies action"],
    log_std: Float[Tensor, "*#copies action"],
    other_mean: Float[Tensor, "*copies action"],
    other_log_std: Float[Tensor, "*#copies action"],
) -> Float[Tensor, "*copies"]:
    """KL(N(mean, std^2) | N(other_mean, other_std^2)), independent components."""
    ratio = (2 * (log_std - other_log_std)).exp()
    shift = ((mean - other_mean) / other_log_std.exp()).square()
    return (other_log_std - log_std + 0.5 * (ratio + shift - 1)).sum(-1)


@torch.no_grad()
def conjugate_gradients(
    product: Callable[[Float[Tensor, "copies numbers"]], Float[Tensor, "copies numbers"]],
    right: Float[Tensor, "copies numbers"],
    rounds: int,
) -> Float[Tensor, "copies numbers"]:
    """x with F x = right, `rounds` steps in every copy; a copy that has arrived stands still."""
    x, residual = torch.zeros_like(right), right.clone()
    direction, size = right.clone(), right.square().sum(1)
    for _ in range(rounds):
        with torch.enable_grad():
            image = product(direction)
        moving = size > 1e-20
        step = torch.where(moving, size / (direction * image).sum(1).clamp_min(1e-30), 0.0)
        x = x + step[:, None] * direction
        residual = residual - step[:, None] * image
        new = residual.square().sum(1)
        direction = residual + torch.where(moving, new / size.clamp_min(1e-30), 0.0)[:, None] * direction
        size = new
    return x
