"""One improvement from imagined data: targets for V and U, then the conservative step of the policy.

Everything is per copy: minibatches are drawn for each copy from its own stream, gradients are clipped copy by copy.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.method.ensemble import make_adam
from labkit.papers.pombu.method.imagination import Rollout
from labkit.papers.pombu.method.networks import Critics, GaussianPolicy
from labkit.papers.pombu.method.objective import (
    Objective,
    Scaling,
    approximate_kl,
    gain,
    policy_loss,
    ratio_change,
    risk,
    scale_uncertainty,
    standardize,
)
from labkit.papers.pombu.method.uncertainty import alive, propagate
from labkit.rl.gaussian import gaussian_log_prob
from labkit.rl.networks import clip_grad_norm_per_copy
from labkit.rl.recorded import Recorded
from labkit.rl.streams import Streams

POLICY_EPS = 1e-5  # Adam's, for the policy only  [official code]


class Batch(NamedTuple):
    """Imagined steps of one update, copies first: (copies, samples, ...)."""

    state: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor  # standardised
    sqrt_u: Tensor  # in the advantage's units
    value_target: Tensor
    uncertainty_target: Tensor


def batch_of(
    rollout: Rollout,
    uncertainty_value: Float[Tensor, "time copies rollouts"] | None,
    *,
    gamma: float,
    lam: float,
    scaling: Scaling = "paper",
) -> Batch:
    """uv-trace, then the two scales; steps after an end are left out  [official code].

    Raises:
        InputError: the models left the finite numbers; several copies whose episodes end when they like.
    """
    done = rollout.done if bool(rollout.done.any()) else None
    kept = None if done is None else alive(done)
    if bool((rollout.diverged if kept is None else rollout.diverged & kept).any()):
        raise InputError("the models' predictions are not finite: their training diverged. Lower model_learning_rate.")
    if kept is not None and kept.shape[1] > 1:
        raise InputError("episodes that end by themselves differ in length: train one copy at a time.")

    def samples(x: Tensor) -> Tensor:
        """(time, copies, rollouts, ...) -> (copies, samples, ...)."""
        return x.movedim(0, 1).flatten(1, 2).contiguous() if kept is None else x[kept][None]

    trace = propagate(
        rollout.reward, rollout.uncertainty, rollout.value, uncertainty_value, gamma=gamma, lam=lam, done=done
    )  # fmt: skip
    advantage, u = samples(trace.advantage), samples(trace.uncertainty_target)
    return Batch(
        state=samples(rollout.state),
        action=samples(rollout.action),
        log_prob=samples(rollout.log_prob),
        advantage=standardize(advantage),
        sqrt_u=scale_uncertainty(u, advantage, scaling),
        value_target=samples(trace.value_target),
        uncertainty_target=u,
    )


class Pass:
    """Epochs of minibatches over one batch, each minibatch one call of `step` with the rows it is to use.

    The tensors that `step` reads stay where they are from one batch to the next, so that a CUDA graph can hold it.
    """

    def __init__(self, step: Callable[[Batch, Tensor], None], device: torch.device, graphs: bool) -> None:
        self._batch: Batch | None = None
        self._rows: Tensor | None = None
        self._step = step
        self._recorded = Recorded(self._step_on_buffers, device, graphs)

    def _step_on_buffers(self) -> None:
        assert self._batch is not None
        assert self._rows is not None
        self._step(self._batch, self._rows)

    def __call__(self, batch: Batch, epochs: int, minibatch: int, streams: Streams) -> None:
        """Rows that do not fill a last minibatch are left out of that epoch.

        Raises:
            InputError: fewer samples than a minibatch.
        """
        copies, samples = batch.advantage.shape
        if samples < minibatch:
            raise InputError(f"minibatches of {minibatch} need as many imagined steps; there are {samples}.")
        self._copy_to_buffers(batch)
        first = samples * torch.arange(copies, device=batch.advantage.device)[:, None]
        for _ in range(epochs):
            order = streams.uniform(samples).to(batch.advantage).argsort(1) + first
            for rows in order[:, : samples // minibatch * minibatch].split(minibatch, 1):
                if self._rows is None or self._rows.shape != rows.shape:
                    self._rows = rows.clone()
                self._rows.copy_(rows)
                self._recorded()

    def _copy_to_buffers(self, batch: Batch) -> None:
        if self._batch is None or not self._recorded.enabled:
            self._batch = Batch(*(x.clone() for x in batch)) if self._recorded.enabled else batch
        for buffer, values in zip(self._batch, batch, strict=True):
            if buffer is not values:
                buffer.copy_(values)


def rows_of(x: Float[Tensor, "copies samples *rest"], rows: Int[Tensor, "copies minibatch"]) -> Tensor:
    """Rows counted through all copies, see `Pass`."""
    return x.flatten(0, 1)[rows]


class PolicyPass:
    """The policy's optimiser and its pass; an exploration policy has one of its own."""

    def __init__(
        self,
        policy: GaussianPolicy,
        *,
        learning_rate: float,
        clip: float,
        max_norm: float,
        objective: Objective = "variance_constrain",
        graphs: bool = False,
    ) -> None:
        self.policy, self.clip, self.max_norm, self.objective = policy, clip, max_norm, objective
        self.optimizer = make_adam(policy.parameters(), learning_rate, POLICY_EPS)
        device = policy.log_std.device
        self.alpha = torch.zeros(policy.log_std.shape[0], device=device)
        self._pass = Pass(self._step, device, graphs)

    def __call__(
        self, batch: Batch, alpha: Float[Tensor, " copies"], epochs: int, minibatch: int, streams: Streams
    ) -> None:
        self.alpha.copy_(alpha)
        self._pass(batch, epochs, minibatch, streams)

    def _step(self, batch: Batch, rows: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        mean, log_std = self.policy(rows_of(batch.state, rows))
        log_prob = gaussian_log_prob(rows_of(batch.action, rows), mean, log_std)
        delta = ratio_change(log_prob, rows_of(batch.log_prob, rows))
        advantage, sqrt_u = rows_of(batch.advantage, rows), rows_of(batch.sqrt_u, rows)
        policy_loss(self.objective, delta, advantage, sqrt_u, self.alpha, self.clip).sum().backward()
        clip_grad_norm_per_copy(self.policy.parameters(), self.max_norm)
        self.optimizer.step()


class CriticPass:
    """MSE of V plus half the MSE of U.  [official code]"""

    def __init__(self, critics: Critics, *, learning_rate: float, max_norm: float, graphs: bool = False) -> None:
        self.critics, self.max_norm = critics, max_norm
        self.optimizer = make_adam(critics.parameters(), learning_rate)
        self._pass = Pass(self._step, critics.state_mean.device, graphs)

    def __call__(self, batch: Batch, epochs: int, minibatch: int, streams: Streams) -> None:
        self._pass(batch, epochs, minibatch, streams)

    def _step(self, batch: Batch, rows: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        state = rows_of(batch.state, rows)
        value = (self.critics.value(state) - rows_of(batch.value_target, rows)).square().mean(1)
        uncertainty = (self.critics.uncertainty(state) - rows_of(batch.uncertainty_target, rows)).square().mean(1)
        (value + 0.5 * uncertainty).sum().backward()
        clip_grad_norm_per_copy(self.critics.parameters(), self.max_norm)
        self.optimizer.step()


class UpdateSize(NamedTuple):
    """How far an update went, one number a copy; `sigmas` is gain / risk: how many standard deviations it is worth."""

    kl: Tensor
    ratio_change: Tensor
    gain: Tensor
    risk: Tensor
    sigmas: Tensor


@torch.no_grad()
def update_size(policy: GaussianPolicy, batch: Batch, clip: float) -> UpdateSize:
    """The policy as it is now against the one that imagined `batch`."""
    mean, log_std = policy(batch.state)
    log_prob = gaussian_log_prob(batch.action, mean, log_std)
    delta = ratio_change(log_prob, batch.log_prob)
    expected, deviation = gain(delta, batch.advantage, clip), risk(delta, batch.sqrt_u)
    return UpdateSize(
        approximate_kl(log_prob, batch.log_prob),
        delta.abs().mean(-1),
        expected,
        deviation,
        expected / (deviation + 1e-5),
    )
