"""The whole algorithm: collect, learn the models, improve the policy inside them, again.  [official code]

Seeds run at once, as stacked copies: networks, models and data have a leading dimension.
"""

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Annotated, Any, Literal, Protocol

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.discounted_trace import discounted_trace
from labkit.papers.pombu.method.ensemble import (
    DynamicsEnsemble,
    FitReport,
    FitSettings,
    TrajectorySplits,
    fit,
    set_learning_rate,
)
from labkit.papers.pombu.method.episodes import Episodes, Task, World
from labkit.papers.pombu.method.exploration import explore
from labkit.papers.pombu.method.imagination import Draws, Rollout, draw, imagine
from labkit.papers.pombu.method.improvement import Batch, CriticPass, PolicyPass, UpdateSize, batch_of, update_size
from labkit.papers.pombu.method.networks import Critics, GaussianPolicy
from labkit.papers.pombu.method.objective import Objective, Scaling, dead_zone
from labkit.papers.pombu.method.uncertainty import alive
from labkit.rl.normalizer import RunningNormalizer
from labkit.rl.recorded import Recorded
from labkit.rl.streams import Streams
from labkit.seeds import derive

STD_FLOOR = 1e-3  # of states, actions and state changes  [ours]


class Purpose(IntEnum):
    """What random numbers are drawn for: derive(seed of the copy, iteration, purpose, further keys) is their seed."""

    POLICY = 0  # first weights, as of the next two; no iteration
    CRITICS = 1
    MODELS = 2
    COLLECTION = 3  # real episodes; the number of the exploration policy is a further key
    SPLITS = 4
    MODEL_FIT = 5
    EXPLORATION = 6
    IMAGINATION = 7
    EVALUATION = 8
    MEAN_EVALUATION = 9
    CUTS = 10  # the splits of all data anew, when the models start anew


MOST = 1_000_000  # of whatever is counted in a setting
Width = Annotated[int, Field(ge=1, le=16_384)]


class Settings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Hyper-parameters of the algorithm. The defaults are the official code's for half-cheetah with horizon 200."""

    iterations: int = Field(100, ge=1, le=MOST, description="rounds of collecting, model training and policy updates")
    episodes: int = Field(10, ge=1, le=MOST, description="real episodes per iteration")
    horizon: int = Field(200, ge=2, le=MOST, description="steps per episode at most, real and imagined")
    starts: Literal["reset", "recorded"] = Field(
        "reset",
        description="where imagined episodes begin: the simulator's resets, which count as no real steps "
        "[official code], or the first states of the real episodes, where a reset has its price [ours]",
    )
    updates: int = Field(20, ge=1, le=MOST, description="policy updates per iteration")
    rollouts: int = Field(200, ge=1, le=MOST, description="imagined episodes per update")
    epochs: int = Field(10, ge=1, le=MOST, description="passes over the imagined data, for policy and for V and U")
    batch_size: int = Field(500, ge=1, description="imagined transitions per gradient step")
    gamma: float = Field(0.99, gt=0, le=1, description="discount; U is discounted by its square")
    lam: float = Field(1.0, ge=0, le=1, description="lambda of the traces of advantages and uncertainty")
    members: int = Field(5, ge=2, le=1000, description="K, models in the ensemble")
    reward_clip: float | None = Field(
        5.0,
        gt=0,
        description="bound of a reward before it is divided by the returns' spread; null: none [official code]",
    )
    alpha: float = Field(0.5, ge=0, description="standard deviations of caution in the policy's objective")
    objective: Objective = Field(
        "variance_constrain", description="penalty alpha |delta| sqrt(U); ratio to it; alpha from that ratio"
    )
    u_scaling: Scaling = Field(
        "official",
        description="the loop's U as the official code leaves it, for which its alpha 0.5 was chosen; paper: divided "
        "by the raw advantages' variance (algorithm pombu-scaled). On half-cheetah, 2,000 to 14,000 real steps, small "
        "models, one seed, alpha 0.5 moved the policy 8 to 60 times less than alpha 0 (KL of an update) with official "
        "and 12 to 190 times less with paper. Zone has a scaling of its own: paper, but in the studies named official",
    )
    bessel: bool = Field(False, description="variance over members divided by K-1 instead of K")
    clip: float = Field(0.15, gt=0, lt=1, description="PPO's clip range")
    learning_rate: float = Field(1e-4, gt=0, description="Adam step size of policy, V and U at the first iteration")
    learning_rate_span: int = Field(110, ge=1, description="iterations after which the step size would be 0")
    max_grad_norm: float = Field(0.5, gt=0, description="gradient norm at most, per network")
    exploration: Literal["mixture", "policy"] = Field(
        "mixture", description="episodes by exploration policies in random mixtures of models, or by the policy"
    )
    beta: float = Field(10.0, ge=0, description="weight of sqrt(U) in the exploration advantage")
    policy_hidden: tuple[Width, ...] = Field((64, 64), description="widths of policy, V and U")
    model_hidden: tuple[Width, ...] = Field((512, 512), description="widths of a dynamics model")
    model_learning_rate: float = Field(2e-4, gt=0, description="Adam step size of the dynamics models")
    model_batch: int = Field(1000, ge=1, description="real transitions per gradient step of a dynamics model")
    model_epochs: int = Field(10_000, ge=1, description="epochs of model training at most, per iteration")
    patience: int = Field(25, ge=1, description="epochs without a better validation loss before training stops")
    validate_every: int = Field(5, ge=1, description="epochs between two validations")
    reinitialise_every: int = Field(10, ge=1, description="iterations between two fresh starts of the models")
    std_resets: int = Field(5, ge=0, description="iterations at whose start the policy's log-std goes back to 0")
    evaluations: int = Field(20, ge=1, description="real episodes per evaluation, stochastic and again with the mean")
    compiled: bool = Field(False, description="CUDA graphs for imagination and updates; nothing on a CPU")

    @model_validator(mode="after")
    def _enough(self) -> "Settings":
        if self.rollouts * self.horizon > 100 * MOST:
            raise ValueError(f"{self.rollouts} rollouts of {self.horizon} steps fit in no memory")
        if self.batch_size > self.rollouts * self.horizon:
            raise ValueError(
                f"batch_size {self.batch_size} is more than the {self.rollouts * self.horizon} imagined transitions"
            )
        return self


# -- the data ---------------------------------------------------------------------------------------------------------


class Experience:
    """All real transitions of every copy, the models' share of them, and the running statistics.

    rows: state, action, outcome (see `Task.outcomes`), each (copies, rows, .), episode after episode.
    """

    def __init__(self, task: Task, copies: int, members: int, gamma: float) -> None:
        self.task, self.gamma = task, gamma
        outputs = task.observation + task.extra_outputs
        sizes = {"state": task.observation, "action": task.action, "outcome": outputs}
        self.rows = {name: torch.zeros(copies, 0, size) for name, size in sizes.items()}
        self.starts = torch.zeros(copies, 0, task.observation)
        self.splits = TrajectorySplits(copies, members)
        options = {"copies": copies, "floor": STD_FLOOR, "clip": math.inf}
        self.normalizers = {
            "state": RunningNormalizer(task.observation, **options),  # type: ignore[arg-type]
            "action": RunningNormalizer(task.action, **options),  # type: ignore[arg-type]
            "change": RunningNormalizer(outputs, **options),  # type: ignore[arg-type]
            "return": RunningNormalizer(1, **options),  # type: ignore[arg-type]
        }

    def add(self, new_episodes: Episodes, generator: torch.Generator) -> None:
        """Take in episodes; the models see actions as the simulator does, clipped.

        Raises:
            InputError: several copies whose episodes differ in length.
        """
        copies, episodes, horizon, _ = new_episodes.state.shape
        played = new_episodes.played()
        whole = bool(played.all())
        if copies > 1 and not whole:
            raise InputError("episodes that end by themselves differ in length: train one copy at a time.")

        def rows(x: Tensor) -> Tensor:
            return x.flatten(1, 2) if whole else x[played][None]

        new = {
            "state": rows(new_episodes.state),
            "action": rows(new_episodes.action.clamp(-1, 1)),
            "outcome": rows(self.task.outcomes(new_episodes)),
        }
        self.rows = {name: torch.cat([self.rows[name], new[name]], 1) for name in new}
        self.starts = torch.cat([self.starts, new_episodes.state[:, :, 0]], 1)
        if whole:
            self.splits.add(episodes, horizon, generator)
        else:
            for length in new_episodes.length[0].tolist():
                self.splits.add(1, length, generator)
        self.normalizers["state"].update(new["state"])
        self.normalizers["action"].update(new["action"])
        before = torch.nn.functional.pad(new["state"], (0, self.task.extra_outputs))
        self.normalizers["change"].update(new["outcome"] - before)
        self.normalizers["return"].update(rows(self._returns_to_go(new_episodes.reward)[..., None]))

    def _returns_to_go(self, reward: Float[Tensor, "copies episodes time"]) -> Float[Tensor, "copies episodes time"]:
        by_time = reward.movedim(-1, 0)
        return discounted_trace(by_time, torch.zeros_like(by_time), discount=self.gamma, lam=1.0).movedim(0, -1)

    def reward_scale(self) -> Float[Tensor, "copies 1 1"]:
        """Spread of the discounted returns from every step on, over all real episodes  [official code]; u is quadratic
        in it, so it stands still within an iteration."""
        return self.normalizers["return"].std[:, None].float()

    def model_statistics(self) -> list[Tensor]:
        state, action, change = (self.normalizers[name] for name in ("state", "action", "change"))
        return [
            torch.cat([state.mean, action.mean], -1).float(), torch.cat([state.std, action.std], -1).float(),
            change.mean.float(), change.std.float(),
        ]  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        statistics = {name: n.state_dict() for name, n in self.normalizers.items()}
        return {"rows": self.rows, "starts": self.starts, "splits": self.splits.state_dict(), "statistics": statistics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError: rows of other sizes, or not as many as the splits have."""
        self.splits.load_state_dict(state_dict["splits"])
        for name, value in {**self.rows, "starts": self.starts}.items():
            new = state_dict["starts"] if name == "starts" else state_dict["rows"][name]
            rows = new.shape[1] if name == "starts" else self.splits.rows
            if new.shape != (value.shape[0], rows, value.shape[2]) or new.dtype != value.dtype:
                raise ValueError(f"{name} has the shape {tuple(new.shape)}")
        self.rows, self.starts = {name: state_dict["rows"][name] for name in self.rows}, state_dict["starts"]
        for name, normalizer in self.normalizers.items():
            normalizer.load_state_dict(state_dict["statistics"][name])


# -- the loop ---------------------------------------------------------------------------------------------------------


class PolicyStep(Protocol):
    """One improvement of the policy from a batch of imagined steps: `PolicyPass`, or a rival's."""

    def __call__(self, batch: Batch, alpha: Tensor, epochs: int, minibatch: int, streams: Streams) -> None: ...


class Learner:
    """Networks, models, optimisers and data of all copies; `iterate` is one round of the algorithm.

    Args:
        world: where real episodes come from.
        seeds: one a copy.
        policy_step: makes the policy's improvement; None: the conservative objective (5), by minibatches.
    """

    def __init__(
        self,
        world: World,
        settings: Settings,
        seeds: Sequence[int],
        device: torch.device,
        policy_step: Callable[[GaussianPolicy], PolicyStep] | None = None,
    ) -> None:
        self.world, self.settings, self.seeds, self.device = world, settings, list(seeds), device
        c, self.task = settings, world.task
        states, actions = self.task.observation, self.task.action
        self.policy = GaussianPolicy(states, actions, c.policy_hidden, self._seeds(0, Purpose.POLICY)).to(device)
        self.critics = Critics(states, c.policy_hidden, self._seeds(0, Purpose.CRITICS)).to(device)
        self.ensemble = DynamicsEnsemble(
            len(seeds), c.members, states, actions, c.model_hidden, seeds=seeds, extra_outputs=self.task.extra_outputs
        ).to(device)
        self._state_bounds = self.task.state_bounds(device)
        options = {"learning_rate": c.learning_rate, "max_norm": c.max_grad_norm, "graphs": c.compiled}
        improve = PolicyPass(self.policy, clip=c.clip, objective=c.objective, **options)  # type: ignore[arg-type]
        self.improve: PolicyStep = improve if policy_step is None else policy_step(self.policy)
        self.exploration_pass = PolicyPass(self.policy, clip=c.clip, **options)  # type: ignore[arg-type]
        self.critics_pass = CriticPass(self.critics, **options)  # type: ignore[arg-type]
        passes = {"improve": self.improve, "exploration": self.exploration_pass, "critics_pass": self.critics_pass}
        self.optimizers = {
            name: one.optimizer for name, one in passes.items() if isinstance(one, PolicyPass | CriticPass)
        }
        self.experience = Experience(self.task, len(seeds), c.members, c.gamma)
        self.alpha = torch.full((len(seeds),), c.alpha, device=device)
        self.reward_scale = torch.ones(len(seeds), 1, 1, device=device)
        self._start = torch.zeros(len(seeds), c.rollouts, states, device=device)
        self._draws: Draws | None = None
        self._imagine = Recorded(self._imagine_from_buffers, device, c.compiled)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs; model optimisers begin anew in every iteration anyway."""
        return {
            "policy": self.policy, "critics": self.critics, "ensemble": self.ensemble, "experience": self.experience,
            **self.optimizers,
        }  # fmt: skip

    def resumed(self) -> None:
        """What follows from the state once a checkpoint is loaded."""
        self.refresh()
        self.ensemble.freeze()

    def iterate(self, iteration: int) -> dict[str, Float[Tensor, " copies"]]:
        """One round and its evaluation. Returns what was measured, one number a copy."""
        return self.train(iteration) | self.evaluate(iteration)

    def train(self, iteration: int) -> dict[str, Float[Tensor, " copies"]]:
        """One round: real episodes, models, policy."""
        self.begin(iteration)
        measured = {"collected_return": self.collect(iteration)}
        self.refresh()
        report = self.learn_models(iteration)
        measured["validation_error"] = report.best.view(-1, self.settings.members).mean(1)
        return measured | self.improve_policy(iteration)

    # -- stages -------------------------------------------------------------------------------------------------------

    def begin(self, iteration: int) -> None:
        """Step sizes fall linearly; log sigma goes back to 0 in the first iterations."""
        c = self.settings
        rate = c.learning_rate * max(c.learning_rate_span - iteration, 1) / c.learning_rate_span
        for optimizer in self.optimizers.values():
            set_learning_rate(optimizer, rate)
        if iteration < c.std_resets:
            with torch.no_grad():
                self.policy.log_std.zero_()

    def collect(self, iteration: int) -> Float[Tensor, " copies"]:
        """Real episodes by the policy, from iteration 1 on by exploration policies; each copy's mean return."""
        c = self.settings
        if iteration == 0 or c.exploration == "policy":
            parts = [self.play(c.episodes, iteration, Purpose.COLLECTION)]
        else:
            streams = self.streams(iteration, Purpose.EXPLORATION)
            parts = explore(
                self.policy,
                self.exploration_pass,
                lambda mixture: self.imagined(streams, mixture)[0],
                lambda number: self.play(1, iteration, Purpose.COLLECTION, number),
                streams,
                policies=c.episodes, members=c.members, beta=c.beta, epochs=c.epochs, minibatch=c.batch_size,
            )  # fmt: skip
        episodes = Episodes(*(torch.cat(tensors, 1) for tensors in zip(*parts, strict=True)))
        splits = torch.Generator().manual_seed(self._seeds(iteration, Purpose.SPLITS)[0])
        self.experience.add(episodes, splits)
        return episodes.reward.sum(-1).mean(-1)

    def learn_models(self, iteration: int) -> FitReport:
        """Train the ensemble on all real transitions; every so often from fresh weights, on fresh cuts of the data."""
        c = self.settings
        if iteration % c.reinitialise_every == 0:
            self.ensemble.initialize(self._seeds(iteration, Purpose.MODELS))
            self.experience.splits.redraw(torch.Generator().manual_seed(self._seeds(iteration, Purpose.CUTS)[0]))
        generator = torch.Generator(self.device).manual_seed(self._seeds(iteration, Purpose.MODEL_FIT)[0])
        return fit_models(self.ensemble, self.experience, c, generator)

    def refresh(self) -> None:
        """Statistics of the real data for policy, V, U and the reward; until the next iteration they stand still."""
        states = self.experience.normalizers["state"]
        for network in (self.policy, self.critics):
            network.normalize_by(states.mean.float().to(self.device), states.std.float().to(self.device))
        real = self.experience.rows["state"].flatten(0, 1)  # some environments leave the bounds that they name
        low, high = self._state_bounds
        low.copy_(low.minimum(real.amin(0).to(self.device)))
        high.copy_(high.maximum(real.amax(0).to(self.device)))
        self.reward_scale.copy_(self.experience.reward_scale())

    def improve_policy(self, iteration: int) -> dict[str, Tensor]:
        """`updates` times: imagine, fit V and U, one conservative step.

        Returns:
            One number a copy. Means over the updates: how far a step went (kl, ratio_change), its worth (sigmas), the
            share of samples in the dead zone, sqrt_u as the objective has it and sqrt_u_raw in the unit of normalised
            rewards. And at the end: alpha, log_std, the return that the models promise.
        """
        c, streams, updates = self.settings, self.streams(iteration, Purpose.IMAGINATION), []
        for _ in range(c.updates):
            batch, promised = self.imagined(streams)
            minibatch = min(c.batch_size, batch.advantage.shape[1])  # imagined episodes may be short
            self.critics_pass(batch, c.epochs, minibatch, streams)
            self.improve(batch, self.alpha, c.epochs, minibatch, streams)
            uncertainties = (dead_zone(batch.advantage, batch.sqrt_u, self.alpha), batch.sqrt_u.mean(-1),
                             batch.uncertainty_target.sqrt().mean(-1))  # fmt: skip
            updates.append((*update_size(self.policy, batch, c.clip), *uncertainties))
        names = (*UpdateSize._fields, "dead_zone", "sqrt_u", "sqrt_u_raw")
        means = {
            name: torch.stack(values).mean(0)
            for name, values in zip(names, zip(*updates, strict=True), strict=True)
            if name not in ("gain", "risk")  # sigmas is their ratio
        }
        log_std = self.policy.log_std.detach().mean((1, 2))
        return {**means, "alpha": self.alpha, "model_return": promised, "log_std": log_std}

    def evaluate(self, iteration: int) -> dict[str, Tensor]:
        """Real returns: stochastic (what papers call AverageReturn) and with the mean action."""
        c = self.settings
        noisy = self.play(c.evaluations, iteration, Purpose.EVALUATION)
        plain = self.play(c.evaluations, iteration, Purpose.MEAN_EVALUATION, stochastic=False)
        return {name: one.reward.sum(-1).mean(-1) for name, one in
                (("stochastic_return", noisy), ("mean_return", plain))}  # fmt: skip

    # -- parts of stages ----------------------------------------------------------------------------------------------

    def play(self, episodes: int, iteration: int, *keys: int, stochastic: bool = True) -> Episodes:
        """Real episodes with the policy as it is; world and actions have a stream each, of these keys."""
        noise = Streams(self._seeds(iteration, *keys, 1))

        def act(state: Tensor) -> Tensor:
            mean, log_std = self.policy(state.to(self.device))
            if not stochastic:
                return mean
            return mean + log_std.exp() * noise.normal(state.shape[1], self.task.action).to(mean)

        return self.world.play(act, self._seeds(iteration, *keys, 0), episodes)

    def imagined(self, streams: Streams, mixture: Tensor | None = None) -> tuple[Batch, Float[Tensor, " copies"]]:
        """A batch of imagined steps, and the mean return the models promise, in the task's units."""
        c = self.settings
        self._start.copy_(self.starts(streams))
        draws = draw(streams, c.horizon, c.rollouts, self.task.action, c.members, mixture)
        if self._draws is None:
            self._draws = draws
        for buffer, new in zip(self._draws, draws, strict=True):
            buffer.copy_(new)
        rollout, uncertainty_value = self._imagine()
        batch = batch_of(rollout, uncertainty_value, gamma=c.gamma, lam=c.lam, scaling=c.u_scaling)
        return batch, (rollout.task_reward * alive(rollout.done)).sum(0).mean(-1)

    def starts(self, streams: Streams) -> Float[Tensor, "copies rollouts observation"]:
        """Where imagined episodes begin."""
        c, recorded = self.settings, self.experience.starts
        if c.starts == "reset":
            return self.world.starts(streams.integers(), c.rollouts).float()
        chosen = (streams.uniform(c.rollouts).cpu() * recorded.shape[1]).long().clamp_max(recorded.shape[1] - 1)
        return recorded.gather(1, chosen[..., None].expand(-1, -1, recorded.shape[2]))

    def _imagine_from_buffers(self) -> tuple[Rollout, Tensor]:
        """The rollout and U_phi along it, from starts and draws that lie where a CUDA graph reads them."""
        assert self._draws is not None
        c = self.settings
        clip = math.inf if c.reward_clip is None else c.reward_clip
        rollout = imagine(
            self.ensemble,
            self.policy,
            lambda state, _: self.critics.value(state),
            self.task.imagined_reward,
            self._start,
            self._draws,
            gamma=c.gamma,
            terminates=None if self.task.terminates is False else self.task.imagined_end,
            transform=lambda reward: reward.clamp(-clip, clip) / self.reward_scale,
            state_bound=self._state_bounds,
            bessel=c.bessel,
        )
        time, copies, rollouts, size = rollout.state.shape
        with torch.no_grad():
            flat = rollout.state.movedim(0, 1).reshape(copies, -1, size)
            uncertainty_value = self.critics.uncertainty(flat).view(copies, time, rollouts).movedim(1, 0)
        return rollout, uncertainty_value

    def streams(self, iteration: int, purpose: Purpose) -> Streams:
        """Random numbers of this iteration and purpose: nothing to save."""
        return Streams(self._seeds(iteration, purpose), self.device)

    def _seeds(self, *keys: int) -> list[int]:
        """One seed a copy."""
        return [derive(seed, *keys) for seed in self.seeds]


def fit_models(
    ensemble: DynamicsEnsemble, experience: Experience, settings: Settings, generator: torch.Generator
) -> FitReport:
    """Train the members on all transitions, normalised by their statistics, and freeze them for rollouts."""
    device = ensemble.input_mean.device
    ensemble.normalize_by(*(x.to(device) for x in experience.model_statistics()))
    state, action, outcome = (experience.rows[name].to(device) for name in ("state", "action", "outcome"))
    c = settings
    fit_settings = FitSettings(
        c.model_learning_rate, batch=c.model_batch, rounds=c.model_epochs, validate_every=c.validate_every,
        patience=c.patience, max_norm=c.max_grad_norm,
    )  # fmt: skip
    report = fit(ensemble, state, action, outcome, experience.splits, generator, fit_settings, graphs=c.compiled)
    ensemble.freeze()
    return report
