"""The whole algorithm: collect, learn the models, improve the policy inside them, again.  [official code]

All seeds and arms run at once, as lanes: networks, models and data have a leading dimension. Lane number is
arm x replicas + replica; the arms of a replica share its seed.
"""

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, field_validator, model_validator
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.discounted_trace import discounted_trace
from labkit.papers.pombu.experiment import worlds
from labkit.papers.pombu.experiment.trust_region import TrustRegionPass
from labkit.papers.pombu.experiment.worlds import Played, World
from labkit.papers.pombu.method.ensemble import (
    DynamicsEnsemble,
    FitReport,
    FitSettings,
    TrajectorySplits,
    fit,
    set_learning_rate,
)
from labkit.papers.pombu.method.exploration import explore, mixture_weights
from labkit.papers.pombu.method.imagination import Draws, Rollout, draw, imagine
from labkit.papers.pombu.method.improvement import Batch, CriticPass, Moved, PolicyPass, batch_of, moved
from labkit.papers.pombu.method.networks import Critics, GaussianPolicy
from labkit.papers.pombu.method.objective import Objective, Scaling, dead_zone
from labkit.progress import progress
from labkit.rl.normalizer import RunningNormalizer
from labkit.rl.recorded import Recorded
from labkit.rl.streams import Streams
from labkit.seeds import derive
from labkit.workbench.runs import Run

REWARD_CLIP = 5.0  # before the division by the returns' spread  [official code]
STATE_BOUND = 1e5
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


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Hyper-parameters of the algorithm. The defaults are the official code's for half-cheetah with horizon 200."""

    iterations: int = Field(100, ge=1, description="rounds of collecting, model training and policy updates")
    episodes: int = Field(10, ge=1, description="real episodes per iteration")
    horizon: int = Field(200, ge=2, description="steps per episode, real and imagined")
    updates: int = Field(20, ge=1, description="policy updates per iteration")
    rollouts: int = Field(200, ge=1, description="imagined episodes per update")
    epochs: int = Field(10, ge=1, description="passes over the imagined data, for policy and for V and U")
    batch_size: int = Field(500, ge=1, description="imagined transitions per gradient step")
    gamma: float = Field(0.99, gt=0, le=1, description="discount; U is discounted by its square")
    lam: float = Field(1.0, ge=0, le=1, description="lambda of the traces of advantages and uncertainty")
    members: int = Field(5, ge=2, description="K, models in the ensemble")
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
    policy_hidden: tuple[int, ...] = Field((64, 64), description="widths of policy, V and U")
    model_hidden: tuple[int, ...] = Field((512, 512), description="widths of a dynamics model")
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
        if self.batch_size > self.rollouts * self.horizon:
            raise ValueError(
                f"batch_size {self.batch_size} is more than the {self.rollouts * self.horizon} imagined transitions"
            )
        return self


class LoopConfig(Settings):
    """What a run of the loop is asked for."""

    environment: str = Field("half-cheetah", description="task, see `worlds.TASKS`")
    arms: tuple[str, ...] = Field(("pombu",), description="pombu, meppo, or alpha-A for pombu with another alpha")
    replicas: int = Field(1, ge=1, description="seeds of each arm")
    seed: int = Field(0, ge=0, description="seed of all replicas")
    improver: Literal["ppo", "trpo"] = Field("ppo", description="(5) with minibatches, or ME-TRPO's trust region")
    max_kl: float = Field(0.01, gt=0, description="trpo: KL of a step")
    observation_noise: float = Field(0.0, ge=0, description="half width of uniform noise on observations")
    action_noise: float = Field(0.0, ge=0, description="half width of uniform noise on actions")
    mbpo_updates: int = Field(20, ge=1, description="mbpo: SAC steps on model data per real step [peer]")
    mbpo_rollouts: int = Field(400, ge=1, description="mbpo: model rollouts per real step [peer]")
    mbpo_schedule: tuple[int, ...] = ()
    mbpo_keep: int = Field(250, ge=1, description="mbpo: real steps between two model trainings; age of model data")

    @field_validator("environment")
    @classmethod
    def _task(cls, name: str) -> str:
        worlds.task_named(name)
        return name

    @field_validator("arms")
    @classmethod
    def _arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        if not arms or len(set(arms)) < len(arms):
            raise ValueError("name at least one arm, and each once")
        for arm in arms:
            arm_alpha(arm, 0.0)
        return arms

    @property
    def lanes(self) -> list[tuple[str, int]]:
        """(arm, replica) of each lane."""
        return [(arm, replica) for arm in self.arms for replica in range(self.replicas)]

    @property
    def seeds(self) -> list[int]:
        return [derive(self.seed, replica) for _, replica in self.lanes]

    @classmethod
    def of(cls, config: BaseModel, **changes: Any) -> "LoopConfig":
        """The fields of this name in a larger config, with changes."""
        known = {name: getattr(config, name) for name in cls.model_fields if hasattr(config, name)}
        return cls.model_validate(known | changes)


def arm_alpha(arm: str, alpha: float) -> float:
    """alpha of an arm: pombu has the config's, meppo 0, alpha-A the number A.

    Raises:
        InputError: no such arm.
    """
    if arm in ("pombu", "meppo"):
        return alpha if arm == "pombu" else 0.0
    kind, _, number = arm.partition("-")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind != "alpha" or not 0 <= value < math.inf:
        raise InputError(f"an arm is pombu, meppo or alpha-A with a number A >= 0; got '{arm}'.")
    return value


# -- what is known ----------------------------------------------------------------------------------------------------


class Experience:
    """All real transitions of every lane, the models' share of them, and the running statistics."""

    def __init__(self, task: environments.Task, lanes: int, members: int, gamma: float) -> None:
        self.task, self.lanes, self.gamma = task, lanes, gamma
        sizes = {"state": task.observation, "action": task.action, "next_state": task.observation}
        self.rows = {name: torch.zeros(lanes, 0, size) for name, size in sizes.items()}
        self.starts = torch.zeros(lanes, 0, task.observation)
        self.splits = TrajectorySplits(lanes, members)
        copies = {"copies": lanes, "floor": STD_FLOOR, "clip": math.inf}
        self.normalizers = {
            "state": RunningNormalizer(task.observation, **copies),  # type: ignore[arg-type]
            "action": RunningNormalizer(task.action, **copies),  # type: ignore[arg-type]
            "change": RunningNormalizer(task.observation, **copies),  # type: ignore[arg-type]
            "return": RunningNormalizer(1, **copies),  # type: ignore[arg-type]
        }

    def add(self, played: Played, generator: torch.Generator) -> None:
        """Take in whole episodes; the models see actions as the simulator does, clipped."""
        _, episodes, horizon, _ = played.state.shape
        new = {"state": played.state, "action": played.action.clamp(-1, 1), "next_state": played.next_state}
        flat = {name: x.flatten(1, 2) for name, x in new.items()}
        self.rows = {name: torch.cat([self.rows[name], flat[name]], 1) for name in flat}
        self.starts = torch.cat([self.starts, played.state[:, :, 0]], 1)
        self.splits.add(episodes, horizon, generator)
        self.normalizers["state"].update(flat["state"])
        self.normalizers["action"].update(flat["action"])
        self.normalizers["change"].update(flat["next_state"] - flat["state"])
        self.normalizers["return"].update(self._returns_to_go(played.reward).flatten(1)[..., None])

    def _returns_to_go(self, reward: Float[Tensor, "lanes episodes time"]) -> Float[Tensor, "lanes episodes time"]:
        paid = reward.movedim(-1, 0)
        return discounted_trace(paid, torch.zeros_like(paid), discount=self.gamma, lam=1.0).movedim(0, -1)

    def reward_scale(self) -> Float[Tensor, "lanes 1 1"]:
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
        self.rows, self.starts = state_dict["rows"], state_dict["starts"]
        self.splits.load_state_dict(state_dict["splits"])
        for name, normalizer in self.normalizers.items():
            normalizer.load_state_dict(state_dict["statistics"][name])


class Progress:
    """What was measured so far, and alpha, which may follow the steps."""

    def __init__(self, config: LoopConfig) -> None:
        self.alpha = torch.tensor([arm_alpha(arm, config.alpha) for arm, _ in config.lanes])
        self.history: list[dict[str, list[float]]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.alpha, self.history = state_dict["alpha"], state_dict["history"]


# -- the loop ---------------------------------------------------------------------------------------------------------


class Learner:
    """Networks, models, optimisers and data of all lanes; the methods are the stages of an iteration."""

    def __init__(self, config: LoopConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.world: World = worlds.make_world(
            config.environment, config.horizon, config.observation_noise, config.action_noise
        )
        self.task, seeds = self.world.task, config.seeds
        first = {p: [derive(seed, 0, p) for seed in seeds] for p in (Purpose.POLICY, Purpose.CRITICS)}
        self.policy = GaussianPolicy(
            self.task.observation, self.task.action, config.policy_hidden, first[Purpose.POLICY]
        ).to(device)
        self.critics = Critics(self.task.observation, config.policy_hidden, first[Purpose.CRITICS]).to(device)
        self.ensemble = DynamicsEnsemble(
            len(seeds), config.members, self.task.observation, self.task.action, config.model_hidden, seeds=seeds
        ).to(device)
        options = {"learning_rate": config.learning_rate, "max_norm": config.max_grad_norm, "graphs": config.compiled}
        self.improve: PolicyPass | TrustRegionPass
        if config.improver == "ppo":
            self.improve = PolicyPass(self.policy, clip=config.clip, objective=config.objective, **options)  # type: ignore[arg-type]
        else:
            self.improve = TrustRegionPass(self.policy, max_kl=config.max_kl)
        self.look = PolicyPass(self.policy, clip=config.clip, **options)  # type: ignore[arg-type]
        self.judge = CriticPass(self.critics, **options)  # type: ignore[arg-type]
        self.experience = Experience(self.task, len(seeds), config.members, config.gamma)
        self.progress = Progress(config)
        self.explores = torch.tensor([arm != "meppo" for arm, _ in config.lanes], device=device)
        self.reward_scale = torch.ones(len(seeds), 1, 1, device=device)
        self._start = torch.zeros(len(seeds), config.rollouts, self.task.observation, device=device)
        self._draws: Draws | None = None
        self._imagine = Recorded(self._imagine_here, device, config.compiled)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs; model optimisers begin anew in every iteration anyway."""
        passes = {"improve": self.improve, "look": self.look, "judge": self.judge}
        optimizers = {name: p.optimizer for name, p in passes.items() if not isinstance(p, TrustRegionPass)}
        return {
            "policy": self.policy, "critics": self.critics, "ensemble": self.ensemble,
            "experience": self.experience, "progress": self.progress, **optimizers,
        }  # fmt: skip

    # -- stages -------------------------------------------------------------------------------------------------------

    def begin(self, iteration: int) -> None:
        """Step sizes fall linearly; log sigma goes back to 0 in the first iterations."""
        c = self.config
        rate = c.learning_rate * max(c.learning_rate_span - iteration, 1) / c.learning_rate_span
        for held in (self.improve, self.look, self.judge):
            if not isinstance(held, TrustRegionPass):
                set_learning_rate(held.optimizer, rate)
        if iteration < c.std_resets:
            with torch.no_grad():
                self.policy.log_std.zero_()

    def collect(self, iteration: int) -> Float[Tensor, " lanes"]:
        """Real episodes by the policy, from iteration 1 on by exploration policies; returns each lane's mean return."""
        c = self.config
        if iteration == 0 or c.exploration == "policy" or not bool(self.explores.any()):
            played = [self.play(c.episodes, iteration, Purpose.COLLECTION)]
        else:
            streams = self.streams(iteration, Purpose.EXPLORATION)
            played = explore(
                self.policy,
                self.look,
                lambda mixture: self.imagined(streams, mixture)[0],
                lambda number: self.play(1, iteration, Purpose.COLLECTION, number),
                lambda: mixture_weights(streams, c.members),
                streams,
                policies=c.episodes, beta=c.beta, epochs=c.epochs, minibatch=c.batch_size, explores=self.explores,
            )  # fmt: skip
        merged = Played(*(torch.cat(parts, 1) for parts in zip(*played, strict=True)))
        self.experience.add(merged, torch.Generator().manual_seed(derive(c.seed, iteration, Purpose.SPLITS)))
        return merged.reward.sum(-1).mean(-1)

    def learn_models(self, iteration: int) -> FitReport:
        """Train the ensemble on everything seen; every so often from fresh weights."""
        c = self.config
        statistics = [x.to(self.device) for x in self.experience.model_statistics()]
        if iteration % c.reinitialise_every == 0:
            self.ensemble.initialise([derive(seed, iteration, Purpose.MODELS) for seed in c.seeds])
        self.ensemble.normalise_by(*statistics)
        settings = FitSettings(
            c.model_learning_rate, batch=c.model_batch, rounds=c.model_epochs, validate_every=c.validate_every,
            patience=c.patience, max_norm=c.max_grad_norm,
        )  # fmt: skip
        rows = self.experience.rows
        state, action, after = (rows[name].to(self.device) for name in ("state", "action", "next_state"))
        generator = torch.Generator(self.device).manual_seed(derive(c.seed, iteration, Purpose.MODEL_FIT))
        splits = self.experience.splits
        report = fit(self.ensemble, state, action, after, splits, generator, settings, graphs=c.compiled)
        self.ensemble.freeze()
        return report

    def refresh(self) -> None:
        """Statistics of the real data for policy, V, U and the reward; until the next iteration they stand still."""
        seen = self.experience.normalizers["state"]
        for network in (self.policy, self.critics):
            network.normalise_by(seen.mean.float().to(self.device), seen.std.float().to(self.device))
        self.reward_scale.copy_(self.experience.reward_scale())

    def improve_policy(self, iteration: int) -> dict[str, Tensor]:
        """`updates` times: imagine, fit V and U, one conservative step.

        Returns:
            Lanes each, means over the updates: how far a step went (kl, ratio_change), its worth (sigmas), the share of
            samples in the dead zone, sqrt_u as the objective has it and sqrt_u_raw in the unit of normalised rewards;
            and as they are at the end: alpha, log_std, the return that the models promise.
        """
        c, streams, found = self.config, self.streams(iteration, Purpose.IMAGINATION), []
        alpha = self.progress.alpha.to(self.device)
        for _ in range(c.updates):
            batch, promised = self.imagined(streams)
            self.judge(batch, c.epochs, c.batch_size, streams)
            self.improve(batch, alpha, c.epochs, c.batch_size, streams)
            step = moved(self.policy, batch, c.clip)
            unsure = (dead_zone(batch.advantage, batch.sqrt_u, alpha), batch.sqrt_u.mean(-1),
                      batch.uncertainty_target.sqrt().mean(-1))  # fmt: skip
            found.append((*step, *unsure))
        self.progress.alpha = alpha.cpu()
        names = (*Moved._fields, "dead_zone", "sqrt_u", "sqrt_u_raw")
        means = {
            name: torch.stack(values).mean(0)
            for name, values in zip(names, zip(*found, strict=True), strict=True)
            if name not in ("gain", "risk")  # sigmas is their ratio
        }
        log_std = self.policy.log_std.detach().mean((1, 2))
        return {**means, "alpha": alpha, "model_return": promised, "log_std": log_std}

    def evaluate(self, iteration: int) -> dict[str, Tensor]:
        """Real returns: stochastic (what papers call AverageReturn) and with the mean action."""
        c = self.config
        return {
            "stochastic_return": self.play(c.evaluations, iteration, Purpose.EVALUATION).reward.sum(-1).mean(-1),
            "mean_return": self.play(c.evaluations, iteration, Purpose.MEAN_EVALUATION, noisy=False)
            .reward.sum(-1)
            .mean(-1),
        }

    # -- parts of stages ----------------------------------------------------------------------------------------------

    def play(self, episodes: int, *keys: int, noisy: bool = True) -> Played:
        """Real episodes with the policy as it is; world and action noise have a stream each, of these keys."""
        seeds, luck_seeds = ([derive(seed, *keys, part) for seed in self.config.seeds] for part in (0, 1))
        luck = Streams(luck_seeds)

        def act(state: Tensor) -> Tensor:
            mean, log_std = self.policy(state.to(self.device))
            if not noisy:
                return mean
            return mean + log_std.exp() * luck.normal(episodes, self.task.action).to(mean)

        return worlds.play(self.world, act, seeds, episodes)

    def imagined(self, streams: Streams, mixture: Tensor | None = None) -> tuple[Batch, Float[Tensor, " lanes"]]:
        """A batch of imagined steps, and the mean return the models promise, in the task's units."""
        c = self.config
        starts = self.experience.starts
        chosen = (streams.uniform(c.rollouts).cpu() * starts.shape[1]).long().clamp_max(starts.shape[1] - 1)
        self._start.copy_(starts.gather(1, chosen[..., None].expand(-1, -1, starts.shape[2])))
        draws = draw(streams, c.horizon, c.rollouts, self.task.action, c.members, mixture)
        if self._draws is None:
            self._draws = draws
        for mine, new in zip(self._draws, draws, strict=True):
            mine.copy_(new)
        rollout, unsure = self._imagine()
        batch = batch_of(rollout, unsure, gamma=c.gamma, lam=c.lam, scaling=c.u_scaling)
        return batch, rollout.paid.sum(0).mean(-1)

    def _imagine_here(self) -> tuple[Rollout, Tensor]:
        assert self._draws is not None
        rollout = imagine(
            self.ensemble,
            self.policy,
            lambda state, _: self.critics.value(state),
            lambda state, action, _: self.task.reward(state, action),
            self._start,
            self._draws,
            gamma=self.config.gamma,
            transform=lambda paid: paid.clamp(-REWARD_CLIP, REWARD_CLIP) / self.reward_scale,
            state_bound=STATE_BOUND,
            bessel=self.config.bessel,
        )
        time, lanes, rollouts, size = rollout.state.shape
        with torch.no_grad():
            flat = rollout.state.movedim(0, 1).reshape(lanes, -1, size)
            unsure = self.critics.uncertainty(flat).view(lanes, time, rollouts).movedim(1, 0)
        return rollout, unsure

    def streams(self, iteration: int, purpose: Purpose) -> Streams:
        """Random numbers of this iteration and purpose, one stream a lane: nothing to save."""
        return Streams([derive(seed, iteration, purpose) for seed in self.config.seeds], self.device)


def run_loop(
    config: LoopConfig, run: Run, device: torch.device | None = None, on_iteration: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """All iterations of all lanes in `run`; resumes after the last finished iteration, ends as if never killed (CPU).

    Returns:
        {"environment", "arms": {arm: {name: one list a replica, one number an iteration}}, "steps": real steps of a
        lane after each iteration}
    """
    if run.result is not None:
        return run.result
    learner = Learner(config, device or torch.device("cpu"))
    state = learner.state()
    first = run.resume(state)
    if first:
        learner.refresh()
        learner.ensemble.freeze()
    for iteration in progress(range(first, config.iterations), run.directory.name, config.iterations, first):
        learner.begin(iteration)
        collected = learner.collect(iteration)
        learner.refresh()
        report = learner.learn_models(iteration)
        found = {"collected_return": collected, "validation_error": _per_lane(report.best, config)}
        found |= learner.improve_policy(iteration) | learner.evaluate(iteration)
        numbers = {name: value.cpu().tolist() for name, value in found.items()}
        learner.progress.history.append(numbers)
        for lane, (arm, replica) in enumerate(config.lanes):
            run.log(iteration, **{f"{arm}/{replica}/{name}": values[lane] for name, values in numbers.items()})
        run.save_if_due(iteration + 1, state)
        if on_iteration is not None:
            on_iteration(iteration)
    return run.finish(summarise(config, learner.progress.history))


def summarise(config: LoopConfig, history: list[dict[str, list[float]]]) -> dict[str, Any]:
    """The history, by arm."""
    arms: dict[str, dict[str, list[list[float]]]] = {arm: {name: [] for name in history[0]} for arm in config.arms}
    for lane, (arm, _) in enumerate(config.lanes):
        for name in history[0]:
            arms[arm][name].append([numbers[name][lane] for numbers in history])
    steps = [config.episodes * config.horizon * (i + 1) for i in range(len(history))]
    return {"environment": config.environment, "arms": arms, "steps": steps}


def _per_lane(copies: Tensor, config: LoopConfig) -> Tensor:
    return copies.view(-1, config.members).mean(1)
