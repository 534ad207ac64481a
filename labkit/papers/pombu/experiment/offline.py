"""One phase of policy improvement in a fixed ensemble: no new data, so every illusion of the models stays.

A safe hand-made controller is cloned into a policy, a few real episodes are recorded, an ensemble is trained on them.
From there every arm (a value of alpha, a control) improves the policy in the ensemble alone. Copies are arms x seeds,
copy number arm * seeds + seed; the arms of one seed share first policy, data, ensemble and random numbers.  [ours]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.kernels.discounted_trace import discounted_trace
from labkit.papers.pombu.experiment.config import parse_arm
from labkit.papers.pombu.method.ensemble import DynamicsEnsemble, FitSettings, TrajectorySplits, fit, make_adam
from labkit.papers.pombu.method.imagination import Dynamics, Rollout, draw, imagine
from labkit.papers.pombu.method.improvement import Batch, PolicyPass
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.papers.pombu.method.objective import Scaling, scale_uncertainty, standardize
from labkit.papers.pombu.method.uncertainty import propagate
from labkit.progress import progress
from labkit.rl.networks import StackedLinear, StackedMLP, clip_grad_norm_per_copy
from labkit.rl.streams import Streams
from labkit.seeds import derive
from labkit.workbench.runs import Run, State

Copies = TypeVar("Copies", bound=nn.Module)

SNAPSHOTS = 5  # updates between two policies that are kept


@runtime_checkable
class OfflineTask(Protocol):
    """A small world whose rewards are known and whose dynamics are to be learnt. Actions count within [-1, 1]."""

    @property
    def state_size(self) -> int: ...
    @property
    def action_size(self) -> int: ...
    @property
    def horizon(self) -> int: ...
    @property
    def gamma(self) -> float: ...
    @property
    def box(self) -> float: ...  # the controller is cloned on states within +-box
    @property
    def reach(self) -> float: ...  # imagined states are kept within +-reach

    def __hash__(self) -> int: ...
    def starts(self, streams: Streams, count: int) -> Float[Tensor, "copies count state"]: ...
    def data_starts(self, streams: Streams, episodes: int) -> Float[Tensor, "copies episodes state"]: ...
    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Tensor: ...
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor: ...
    def controller(self, state: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Setting:
    """Everything but the task. Defaults are those of the Zone study.

    Args:
        episodes: real episodes that are recorded.
        action_noise, observation_noise: standard deviations, in the data and in the evaluation alike.
        hidden, std: policy and V; the policy's first standard deviation.
        members, model_hidden, model_steps: the ensemble and its Adam steps.
        updates, rollouts, epochs, minibatches, clip, learning_rate, lam: the policy's improvement.
        value_steps, prefit: Adam steps of V after each update, and before the first.
        u_scaling, u_max: see `objective.scale_uncertainty`. bessel: see `uncertainty.local_uncertainty`.
    """

    episodes: int = 8
    action_noise: float = 0.0
    observation_noise: float = 0.0
    hidden: int = 32
    std: float = 0.3
    clone_steps: int = 1500
    members: int = 5
    model_hidden: int = 48
    model_steps: int = 1000
    updates: int = 30
    rollouts: int = 32
    epochs: int = 6
    minibatches: int = 4
    clip: float = 0.2
    learning_rate: float = 2e-3
    lam: float = 0.95
    value_steps: int = 20
    prefit: int = 300
    u_scaling: Scaling = "paper"
    u_max: float = 25.0
    bessel: bool = False
    evaluations: int = 200

    def __post_init__(self) -> None:
        counts = ("episodes", "hidden", "model_hidden", "model_steps", "updates", "rollouts", "epochs", "minibatches")
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.evaluations < 2 or self.members < 2:
            raise InputError("at least 2 evaluations (left and right) and 2 members (to disagree) are needed.")
        if min(self.std, self.clip, self.learning_rate) <= 0 or min(self.action_noise, self.observation_noise) < 0:
            raise InputError("std, clip and learning_rate must be positive, noise at least 0.")


@torch.no_grad()
def steep_weights(net: StackedMLP, last_gain: float, generators: Sequence[torch.Generator]) -> StackedMLP:
    """Weights N(0, 1 / inputs), biases 0, in place. With two or three inputs the first layer is then steep enough for a
    function that turns several times within the box; Xavier's would be three times as flat.  [ours]"""
    for copy, generator in enumerate(generators):
        for layer in net.layers:
            assert isinstance(layer, StackedLinear)
            assert layer.bias is not None
            layer.weight[copy] = torch.randn(layer.inputs, layer.outputs, generator=generator) / layer.inputs**0.5
            layer.bias[copy] = 0.0
    last = net.layers[-1]
    assert isinstance(last, StackedLinear)
    last.weight.mul_(last_gain)
    return net


def _unused(count: int) -> list[torch.Generator]:
    """For weights that are overwritten at once: torch's global generator is left alone."""
    return [torch.Generator() for _ in range(count)]


def repeat_copies(source: nn.Module, target: Copies, times: int) -> Copies:
    """Every copy of `source` into `target`: all of them once, then all again, `times` in all."""
    target.load_state_dict({name: value.repeat(times, 1, 1) for name, value in source.state_dict().items()})
    return target


def repeat_policy(policy: GaussianPolicy, times: int) -> GaussianPolicy:
    copies, (inputs, *hidden, outputs) = policy.mean.copies, policy.mean.sizes
    return repeat_copies(policy, GaussianPolicy(inputs, outputs, hidden, [0] * (copies * times)), times)


class TimedValue(nn.Module):
    """V^h(s): the time h / horizon is an input. In units of the first returns; 0 after the last step."""

    mean: Tensor
    std: Tensor

    def __init__(self, copies: int, task: OfflineTask, hidden: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        sizes = (task.state_size + 1, hidden, hidden, 1)
        self.horizon = task.horizon
        self.net = steep_weights(StackedMLP(copies, sizes, "tanh", generators=generators), 0.1, generators)
        self.register_buffer("mean", torch.zeros(copies, 1, 1))
        self.register_buffer("std", torch.ones(copies, 1, 1))

    def forward(self, state: Float[Tensor, "copies rows state"], time: float | Tensor) -> Float[Tensor, "copies rows"]:
        """The network's own output, standardised; `time` in steps, one for all or (rows, 1)."""
        clock = torch.as_tensor(time / self.horizon, dtype=state.dtype).expand(*state.shape[:-1], 1)
        return self.net(torch.cat([state, clock], -1))[..., 0]

    def value(self, state: Float[Tensor, "copies rows state"], time: int) -> Float[Tensor, "copies rows"]:
        if time >= self.horizon:
            return state.new_zeros(state.shape[:-1])
        return self(state, float(time)) * self.std[..., 0] + self.mean[..., 0]


# -- what all arms of a seed share ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Prepared:
    """The first policy, the recorded transitions and the ensemble, one copy a seed."""

    policy: GaussianPolicy
    states: Float[Tensor, "copies rows state"]
    actions: Float[Tensor, "copies rows action"]
    next_states: Float[Tensor, "copies rows state"]
    ensemble: DynamicsEnsemble
    validation: float  # mean validation error of the members, in units of the targets' variance


def seeds_of(seed: int, copies: int) -> tuple[int, ...]:
    """The seed of each of a run's copies. Another run's seed gives others."""
    return tuple(derive(seed, copy) for copy in range(copies))


class Purpose(IntEnum):
    """What a copy's random numbers are drawn for: each purpose is a stream of its own."""

    DATA = 0  # cloning the controller and recording episodes with the clone
    MEMBER = 1  # first weights of an ensemble's member; the member's number is a further key
    MODEL_FIT = 2  # splits, bootstrap samples and minibatches of the members
    VALUE = 3  # first weights of V
    VALUE_ROLLOUTS = 4
    VALUE_FIT = 5  # minibatches of V before the first update
    REFEREE = 6
    IMPROVEMENT = 7
    IMPROVEMENT_FIT = 8  # minibatches of V after each update
    QUERIES = 9
    FAKE_MODELS = 10


def streams_for(seeds: Sequence[int], purpose: Purpose) -> Streams:
    """One generator a copy."""
    return Streams([derive(seed, purpose) for seed in seeds])


def generator_for(seeds: Sequence[int], purpose: Purpose) -> torch.Generator:
    """One generator for all copies, from the first copy's seed."""
    return torch.Generator().manual_seed(derive(seeds[0], purpose))


LATER = ("updates", "rollouts", "epochs", "minibatches", "clip", "learning_rate", "lam", "value_steps", "prefit",
         "u_scaling", "u_max", "bessel", "evaluations")  # fmt: skip


def prepare(task: OfflineTask, setting: Setting, seeds: tuple[int, ...]) -> Prepared:
    """Clone the controller, record real episodes with the clone, train the ensemble on them.

    Nobody changes the result: studies that differ only in what comes `LATER` get the same one without the work.
    """
    first = Setting()
    return _prepare(task, replace(setting, **{name: getattr(first, name) for name in LATER}), seeds)


@lru_cache(maxsize=2)
def _prepare(task: OfflineTask, setting: Setting, seeds: tuple[int, ...]) -> Prepared:
    streams = streams_for(seeds, Purpose.DATA)
    policy = clone_controller(task, setting, streams)
    states, actions, next_states = record_episodes(task, policy, setting, streams)
    ensemble, validation = train_ensemble(task, setting, seeds, states, actions, next_states)
    return Prepared(policy, states, actions, next_states, ensemble, validation)


def clone_controller(task: OfflineTask, setting: Setting, streams: Streams) -> GaussianPolicy:
    """A network that does what the controller does, by regression on states within the box."""
    policy = GaussianPolicy(task.state_size, task.action_size, (setting.hidden,) * 2, [0] * len(streams))
    net = steep_weights(policy.mean, 0.01, streams.generators)
    policy.log_std.data.fill_(math.log(setting.std))
    optimizer = make_adam(net.parameters(), 3e-3, eps=1e-5)
    for _ in progress(range(setting.clone_steps), "cloning the controller"):
        state = task.box * (2 * streams.uniform(128, task.state_size) - 1)
        optimizer.zero_grad(set_to_none=True)
        (net(state) - task.controller(state)).square().mean((1, 2)).sum().backward()
        optimizer.step()
    return policy


@torch.no_grad()
def record_episodes(
    task: OfflineTask, policy: GaussianPolicy, setting: Setting, streams: Streams
) -> tuple[Float[Tensor, "copies rows s"], Float[Tensor, "copies rows a"], Float[Tensor, "copies rows s"]]:
    """Real transitions as the learner gets them: noisy observations, actions before their noise."""
    episodes, state = setting.episodes, task.data_starts(streams, setting.episodes)
    observations, actions = [], []
    for _ in range(task.horizon):
        observation = state + setting.observation_noise * streams.normal(episodes, task.state_size)
        mean, log_std = policy(observation)
        action = mean + log_std.exp() * streams.normal(episodes, task.action_size)
        applied = action + setting.action_noise * streams.normal(episodes, task.action_size)
        state = task.step(state, applied, streams.normal(episodes, task.state_size))
        observations.append(observation)
        actions.append(action.clamp(-1, 1))
    observations.append(state + setting.observation_noise * streams.normal(episodes, task.state_size))
    states = torch.stack(observations, 2)  # (copies, episodes, horizon + 1, state)
    return states[:, :, :-1].flatten(1, 2), torch.stack(actions, 2).flatten(1, 2), states[:, :, 1:].flatten(1, 2)


def train_ensemble(
    task: OfflineTask, setting: Setting, seeds: Sequence[int], states: Tensor, actions: Tensor, next_states: Tensor
) -> tuple[DynamicsEnsemble, float]:
    """Plain tanh networks, each with a cut of its own and a bootstrap sample of its side.  [ours]"""
    sizes = (task.state_size, task.action_size, (setting.model_hidden,) * 2)
    ensemble = DynamicsEnsemble(len(seeds), setting.members, *sizes, "tanh", weight_norm=False, seeds=seeds)
    assert isinstance(ensemble.net, StackedMLP)
    keys = [derive(seed, Purpose.MEMBER, member) for seed in seeds for member in range(setting.members)]
    steep_weights(ensemble.net, 0.3, [torch.Generator().manual_seed(key) for key in keys])
    inputs, change = torch.cat([states, actions], -1), next_states - states
    ensemble.normalize_by(inputs.mean(1), inputs.std(1) + 1e-3, change.mean(1), change.std(1) + 1e-4)
    generator = generator_for(seeds, Purpose.MODEL_FIT)
    splits = TrajectorySplits(len(seeds), setting.members)
    splits.add(setting.episodes, task.horizon, generator)
    schedule = FitSettings(
        learning_rate=2e-3,
        final_learning_rate=2e-4,
        batch=64,
        by_epoch=False,
        rounds=setting.model_steps,
        validate_every=50,
        patience=setting.model_steps,
        max_norm=math.inf,
    )
    report = fit(ensemble, states, actions, next_states, splits.resampled(generator), generator, schedule,
                 description="training the models")  # fmt: skip
    return ensemble.requires_grad_(False), float(report.best.mean())


# -- imagination ------------------------------------------------------------------------------------------------------


def shared_by_arms(dynamics: Dynamics, seeds: int) -> Dynamics:
    """The models of the seeds for copies of all arms: the arms' rows stand side by side."""

    def predict(state: Tensor, action: Tensor) -> Tensor:
        copies, rows, _ = state.shape
        arms = copies // seeds
        both = [x.view(arms, seeds, rows, -1).transpose(0, 1).reshape(seeds, arms * rows, -1) for x in (state, action)]
        predictions = dynamics(*both)  # (seeds, members, arms * rows, state)
        predictions = predictions.view(seeds, -1, arms, rows, state.shape[-1]).permute(2, 0, 1, 3, 4)
        return predictions.reshape(copies, -1, rows, state.shape[-1])

    return predict


def roll_out(
    task: OfflineTask,
    setting: Setting,
    policy: GaussianPolicy,
    dynamics: Dynamics,
    value: "TimedValue",
    streams: Streams,
    rollouts: int,
) -> Rollout:
    """Imagined episodes from fresh starts; copies whose streams have one seed get the same draws."""
    start = task.starts(streams, rollouts)
    draws = draw(streams, task.horizon, rollouts, task.action_size, setting.members)
    return imagine(
        dynamics, policy, value.value, task.reward, start, draws,
        gamma=task.gamma, state_bound=task.reach, bessel=setting.bessel,
    )  # fmt: skip


def fit_value(
    value: TimedValue,
    optimizer: torch.optim.Adam,
    rollout: Rollout,
    gamma: float,
    steps: int,
    order: torch.Generator,
) -> None:
    """Regress V on the returns that were imagined."""
    returns = returns_of(rollout, gamma)
    horizon, _, rows = returns.shape
    state = rollout.state.transpose(0, 1).flatten(1, 2)
    clock = torch.arange(horizon, dtype=state.dtype).repeat_interleave(rows)[:, None]
    target = (returns.transpose(0, 1).flatten(1) - value.mean[..., 0]) / value.std[..., 0]
    for _ in range(steps):
        rows_now = torch.randint(horizon * rows, (min(256, horizon * rows),), generator=order)
        optimizer.zero_grad(set_to_none=True)
        error = value(state[:, rows_now], clock[rows_now]) - target[:, rows_now]
        error.square().mean(1).sum().backward()
        clip_grad_norm_per_copy(value.parameters(), 1.0)
        optimizer.step()


def returns_of(rollout: Rollout, gamma: float) -> Float[Tensor, "time copies rows"]:
    """Discounted sums of what is still to come."""
    return discounted_trace(rollout.reward, torch.zeros_like(rollout.reward), discount=gamma, lam=1.0)


def first_value(
    task: OfflineTask,
    setting: Setting,
    policy: GaussianPolicy,
    dynamics: Dynamics,
    seeds: Sequence[int],
    rollouts: int = 0,
) -> TimedValue:
    """V of the first policy in the models; its scale is set by these returns and kept. rollouts 0: the setting's."""
    value = TimedValue(len(seeds), task, setting.hidden, streams_for(seeds, Purpose.VALUE).generators)
    optimizer = make_adam(value.parameters(), 2e-3, eps=1e-5)
    streams = streams_for(seeds, Purpose.VALUE_ROLLOUTS)
    rollout = roll_out(task, setting, policy, dynamics, value, streams, rollouts or setting.rollouts)
    returns = returns_of(rollout, task.gamma)
    value.mean.copy_(returns.mean((0, 2))[:, None, None])
    value.std.copy_(returns.std((0, 2))[:, None, None])
    fit_value(value, optimizer, rollout, task.gamma, setting.prefit, generator_for(seeds, Purpose.VALUE_FIT))
    return value


# -- improvement ------------------------------------------------------------------------------------------------------


def shuffled(sqrt_u: Float[Tensor, "copies samples"], streams: Streams) -> Float[Tensor, "copies samples"]:
    """A control: the same penalties in other places, so the same caution without knowing where."""
    return sqrt_u.gather(1, streams.uniform(sqrt_u.shape[1]).argsort(1))


def averaged(sqrt_u: Float[Tensor, "copies samples"]) -> Float[Tensor, "copies samples"]:
    """A control: the mean penalty everywhere."""
    return sqrt_u.mean(-1, keepdim=True).expand_as(sqrt_u)


@dataclass(frozen=True)
class Arms:
    """What is compared. Copies of an arm stand next to each other, one per seed."""

    names: tuple[str, ...]
    seeds: int

    @property
    def alpha(self) -> Float[Tensor, " copies"]:
        return torch.tensor([parse_arm(name)[1] for name in self.names]).repeat_interleave(self.seeds)

    def penalties(self, sqrt_u: Float[Tensor, "copies samples"], streams: Streams) -> Float[Tensor, "copies samples"]:
        """sqrt(U) as each arm uses it."""
        uses = {"alpha": sqrt_u, "shuffled": shuffled(sqrt_u, streams), "constant": averaged(sqrt_u)}
        parts = [
            uses[parse_arm(name)[0]][number * self.seeds : (number + 1) * self.seeds]
            for number, name in enumerate(self.names)
        ]
        return torch.cat(parts)


def batch_for_arms(
    task: OfflineTask, setting: Setting, arms: Arms, rollout: Rollout, streams: Streams
) -> tuple[Batch, Tensor]:
    """What the policy learns from, and sqrt(U) / std(A) of each copy. U is the plain sum (lam 1), without a network."""
    trace = propagate(rollout.reward, rollout.uncertainty, rollout.value, gamma=task.gamma, lam=setting.lam, lam_u=1.0)
    targets = (trace.advantage, trace.value_target, trace.uncertainty_target)
    parts = (rollout.state, rollout.action, rollout.log_prob, *targets)
    state, action, log_prob, advantage, value_target, u = (x.transpose(0, 1).flatten(1, 2) for x in parts)
    sqrt_u = scale_uncertainty(u, advantage, setting.u_scaling, high=setting.u_max, clip_first=False)
    batch = Batch(
        state,
        action,
        log_prob,
        standardize(advantage, clip_first=False),
        arms.penalties(sqrt_u, streams),
        value_target,
        u,
    )
    return batch, u.sqrt().mean(1) / advantage.std(1)


class Referee:
    """The real world's verdict: returns of stochastic episodes, the same noise at every call and for all arms."""

    def __init__(self, task: OfflineTask, setting: Setting, seeds: Sequence[int]) -> None:
        streams = streams_for(seeds, Purpose.REFEREE)
        self.task, self.setting, count = task, setting, setting.evaluations
        self.start = task.starts(streams, count)
        sizes = {
            "policy": task.action_size, "action": task.action_size,
            "state": task.state_size, "observation": task.state_size,
        }  # fmt: skip
        self.noise = {
            name: streams.normal(task.horizon, count, size).transpose(0, 1) for name, size in sizes.items()
        }  # each (time, seeds, episodes, size)

    @torch.no_grad()
    def returns(self, policy: GaussianPolicy) -> Float[Tensor, "copies episodes"]:
        """Undiscounted sums of rewards."""
        arms = policy.log_std.shape[0] // self.start.shape[0]
        state = self.start.repeat(arms, 1, 1)
        total = torch.zeros(state.shape[:2])
        for t in range(self.task.horizon):
            noise = {name: values[t].repeat(arms, 1, 1) for name, values in self.noise.items()}
            observation = state + self.setting.observation_noise * noise["observation"]
            mean, log_std = policy(observation)
            action = mean + log_std.exp() * noise["policy"]
            applied = action + self.setting.action_noise * noise["action"]
            next_state = self.task.step(state, applied, noise["state"])
            total = total + self.task.reward(state, action, next_state)
            state = next_state
        return total


class History:
    """What was measured before every update and after the last: name -> list of tensors, one an update."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def add(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value.detach().clone())

    def __getitem__(self, name: str) -> Float[Tensor, "moments *shape"]:
        return torch.stack(self.values[name])

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = state_dict["kept"]


@dataclass(frozen=True, eq=False)
class Improved:
    """What came out: real and imagined returns before every update and after the last, and the policies."""

    history: History
    policy: GaussianPolicy
    first_value: TimedValue  # V of the policy that all arms start from, one copy a seed


def improve(
    task: OfflineTask,
    prepared: Prepared,
    arms: Arms,
    setting: Setting,
    seeds: Sequence[int],
    run: Run,
) -> Improved:
    """`setting.updates` policy updates in the ensemble, all arms and seeds at once; resumes from the run's checkpoint.

    The history holds, per copy: real (left half of the starts, right half), model, ratio = mean sqrt(U) / std(A), and
    every `SNAPSHOTS` updates the policies' parameters of the first seed.
    """
    referee, count = Referee(task, setting, seeds), len(arms.names)
    first = first_value(task, setting, prepared.policy, prepared.ensemble, seeds)
    policy = repeat_policy(prepared.policy, count)
    value = repeat_copies(
        first, TimedValue(policy.mean.copies, task, setting.hidden, _unused(policy.mean.copies)), count
    )
    improvement = PolicyPass(policy, learning_rate=setting.learning_rate, clip=setting.clip, max_norm=0.5)
    value_optimizer = make_adam(value.parameters(), 2e-3, eps=1e-5)
    streams = streams_for(list(seeds) * count, Purpose.IMPROVEMENT)
    order = streams_for(seeds[:1], Purpose.IMPROVEMENT_FIT)
    history, dynamics = History(), shared_by_arms(prepared.ensemble, len(seeds))
    state: State = {"policy": policy, "optimizer": improvement.optimizer, "value": value, "streams": streams,
                    "value_optimizer": value_optimizer, "order": order, "history": history}  # fmt: skip
    first_update = run.resume(state)
    numbers = range(first_update, setting.updates + 1)
    for number in progress(numbers, "policy updates in the models", setting.updates + 1, first_update):
        rollout = roll_out(task, setting, policy, dynamics, value, streams, setting.rollouts)
        batch, ratio = batch_for_arms(task, setting, arms, rollout, streams)
        real, model = referee.returns(policy), rollout.reward.sum(0).mean(1)
        history.add(left=real[:, 0::2].mean(1), right=real[:, 1::2].mean(1), model=model, ratio=ratio)
        if number % SNAPSHOTS == 0 or number == setting.updates:
            history.add(**{f"policy/{name}": x[:: len(seeds)] for name, x in policy.state_dict().items()})
        if number < setting.updates:
            improvement(batch, arms.alpha, setting.epochs, batch.advantage.shape[1] // setting.minibatches, streams)
            fit_value(value, value_optimizer, rollout, task.gamma, setting.value_steps, order.generators[0])
        run.log(number, real=float(real.mean()), model=float(model.mean()))
        run.save_if_due(number + 1, state)
    return Improved(history, policy, first)
