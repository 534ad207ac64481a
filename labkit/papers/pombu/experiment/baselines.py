"""The rivals, on the identical wrapped tasks, and a variant.

pombu-scaled POMBU with U divided by the raw advantages' variance, whatever the config says of "pombu"  [ours]
meppo        an ensemble and PPO: this code with alpha = 0 and episodes by the policy itself  [paper]
me-trpo      an ensemble and trust regions: this code with another policy step
ppo, sac     model-free, from stable-baselines3
mbpo         SAC on short rollouts of members with a variance, from real states  [peer: Janner et al. 2019]
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.experiment import worlds
from labkit.papers.pombu.experiment.worlds import Played
from labkit.papers.pombu.method.ensemble import DynamicsEnsemble, FitSettings, fit
from labkit.papers.pombu.method.loop import Experience, LoopConfig, Purpose, run_loop
from labkit.rl.streams import Streams
from labkit.seeds import derive
from labkit.workbench.runs import Run

Predict = Callable[[NDArray[np.float64], bool], NDArray[np.float32]]  # observations, deterministic? -> actions
IN_LOOP = ("pombu", "pombu-scaled", "meppo", "me-trpo")
MODEL_FREE = ("ppo", "sac")
ALGORITHMS = (*IN_LOOP, *MODEL_FREE, "mbpo")

# mbpo: from epoch, to epoch, k_min, k_max  [peer]; tasks that are not there roll out one step
SCHEDULES = {"hopper": (20, 150, 1, 15), "ant": (20, 100, 1, 25)}
ONE_STEP = (20, 150, 1, 1)  # half-cheetah's and walker2d's, too  [peer]
EPOCH = 1000  # real steps  [peer]


def config_for(algorithm: str, config: LoopConfig) -> LoopConfig:
    """The loop's config for one of its algorithms."""
    changes: dict[str, Any]
    if algorithm == "me-trpo":
        changes = {"arms": ("meppo",), "improver": "trpo", "exploration": "policy"}
    elif algorithm == "pombu-scaled":
        changes = {"arms": ("pombu",), "u_scaling": "paper"}
    elif algorithm in ("pombu", "meppo"):
        changes = {"arms": (algorithm,)}
    else:
        raise InputError(f"the loop runs {', '.join(IN_LOOP)}; got '{algorithm}'.")
    return LoopConfig.model_validate(config.model_dump() | changes)


def run_algorithm(algorithm: str, config: LoopConfig, run: Run, device: torch.device | None = None) -> dict[str, Any]:
    """Learning curves of every replica of one algorithm on config's task, with as many real steps as the loop takes.

    Returns:
        {"steps": [...], "stochastic_return": one list a replica, "mean_return": the same}

    Raises:
        InputError: no such algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"there is no algorithm '{algorithm}'; there are {', '.join(ALGORITHMS)}.")
    if algorithm in IN_LOOP:
        own = config_for(algorithm, config)
        found = run_loop(own, run.part(algorithm, loop=own.model_dump(mode="json")), device)
        return {"steps": found["steps"], **found["arms"][own.arms[0]]}
    trained = [_one(algorithm, config, replica, run, device) for replica in range(config.replicas)]
    names = ("stochastic_return", "mean_return")
    return {"steps": trained[0]["steps"], **{name: [one[name] for one in trained] for name in names}}


def _one(algorithm: str, config: LoopConfig, replica: int, run: Run, device: torch.device | None) -> dict[str, Any]:
    """One replica of an algorithm outside the loop: a part of the run of its own, skipped where it is done.

    stable-baselines3 keeps no replay buffer in its checkpoints: a replica that was killed begins anew.
    """
    part = run.part(f"{algorithm}-{replica}", loop=config.model_dump(mode="json"))
    if part.result is not None:
        return part.result
    curve = Curve(config, derive(config.seed, replica), part)
    with _own_luck():
        if algorithm == "mbpo":
            model_based_sac(config, curve, device or torch.device("cpu"))
        else:
            model_free(algorithm, config, curve, device or torch.device("cpu"))
    return part.finish(curve.as_json())


@contextlib.contextmanager
def _own_luck() -> Iterator[None]:
    """stable-baselines3 seeds every global generator; afterwards they are as before."""
    numbers, plain = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(numbers)
            random.setstate(plain)


class Curve:
    """Evaluations of a policy along its training, by the loop's protocol: episodes with noise, and with the mean."""

    def __init__(self, config: LoopConfig, seed: int, run: Run) -> None:
        self.config, self.seed, self.run = config, seed, run
        self.world = worlds.make_world(
            config.environment, config.horizon, config.observation_noise, config.action_noise
        )
        self.steps: list[int] = []
        self.stochastic: list[float] = []
        self.deterministic: list[float] = []

    @property
    def every(self) -> int:
        """Real steps between two evaluations: those of the loop's iteration."""
        return self.config.episodes * self.config.horizon

    @property
    def total(self) -> int:
        return self.every * self.config.iterations

    def evaluate(self, predict: Predict, steps: int) -> None:
        means = []
        for purpose, deterministic in ((Purpose.EVALUATION, False), (Purpose.MEAN_EVALUATION, True)):

            def act(state: Tensor, deterministic: bool = deterministic) -> Tensor:
                return torch.from_numpy(predict(state[0].double().numpy(), deterministic))[None]

            seed = derive(self.seed, len(self.steps), purpose)
            played = worlds.play(self.world, act, [seed], self.config.evaluations)
            means.append(played.reward.sum(-1).mean().item())
        self.steps.append(steps)
        self.stochastic.append(means[0])
        self.deterministic.append(means[1])
        self.run.log(steps, stochastic_return=means[0], mean_return=means[1])

    def as_json(self) -> dict[str, Any]:
        return {"steps": self.steps, "stochastic_return": self.stochastic, "mean_return": self.deterministic}


# -- model-free -------------------------------------------------------------------------------------------------------


def model_free(algorithm: str, config: LoopConfig, curve: Curve, device: torch.device) -> None:
    """PPO or SAC with stable-baselines3's defaults; PPO sees normalised observations and rewards, as is usual."""
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    seed = derive(curve.seed, Purpose.POLICY) % 2**32  # NumPy's generators in stable-baselines3 take no more
    worlds: Any = DummyVecEnv([lambda: _environment(config)])
    if algorithm == "ppo":
        worlds = VecNormalize(worlds, gamma=config.gamma)
        # the longest rollout of at most PPO's usual 2,048 steps that fills an iteration without a rest: where it left
        # one, stable-baselines3 would round up and PPO would take more real steps than the loop
        steps = max(n for n in range(1, min(2048, curve.every) + 1) if curve.every % n == 0)
        model: Any = PPO("MlpPolicy", worlds, n_steps=steps, batch_size=min(64, steps), gamma=config.gamma,
                         seed=seed, device="cpu")  # fmt: skip
    else:
        model = SAC("MlpPolicy", worlds, gamma=config.gamma, seed=seed, device=device,
                    learning_starts=min(1000, curve.every // 2))  # fmt: skip

    def predict(seen: NDArray[np.float64], deterministic: bool) -> NDArray[np.float32]:
        shown = worlds.normalize_obs(seen) if isinstance(worlds, VecNormalize) else seen
        return model.predict(shown, deterministic=deterministic)[0]

    for number in range(1, config.iterations + 1):
        model.learn(curve.every, reset_num_timesteps=number == 1)
        curve.evaluate(predict, int(model.num_timesteps))


def _environment(config: LoopConfig) -> Any:
    return worlds.make_environment(config.environment, config.horizon, config.observation_noise, config.action_noise)


# -- model-based SAC --------------------------------------------------------------------------------------------------


def rollout_length(steps: int, schedule: tuple[int, ...]) -> int:
    """k, steps of a model rollout after so many real steps: linear from k_min to k_max, rounded down.  [peer]"""
    start, end, shortest, longest = schedule
    share = min(max((steps // EPOCH - start) / (end - start), 0.0), 1.0)
    return int(shortest + share * (longest - shortest))


def model_based_sac(config: LoopConfig, curve: Curve, device: torch.device) -> None:
    """MBPO in small: rollouts of k steps from random real states, k by a schedule, and SAC from stable-baselines3 on
    what they give. Not as there: five members, all used, in place of the best five of seven; their widths and training
    are those of our models; no real transitions among SAC's. The first episodes are by SAC's first policy.
    """
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    task, seed = worlds.task_named(config.environment), derive(curve.seed, Purpose.POLICY) % 2**32
    sac = SAC("MlpPolicy", _environment(config), gamma=config.gamma, seed=seed, device=device)
    sac.set_logger(Logger(None, []))
    sac._current_progress_remaining = 1.0
    schedule = config.mbpo_schedule or SCHEDULES.get(config.environment, ONE_STEP)
    ensemble = DynamicsEnsemble(
        1, config.members, task.observation, task.action, config.model_hidden,
        learned_variance=True, seeds=[curve.seed],
    ).to(device)  # fmt: skip
    experience = Experience(task, 1, config.members, config.gamma)
    streams = Streams([derive(curve.seed, 0, Purpose.IMAGINATION)], device)

    def predict(seen: NDArray[np.float64], deterministic: bool) -> NDArray[np.float32]:
        return sac.predict(seen, deterministic=deterministic)[0]

    def act(state: Tensor) -> Tensor:
        return torch.from_numpy(predict(state[0].double().numpy(), False))[None]

    world, taken, fitted, length = curve.world, 0, 0, 0
    for iteration in range(config.iterations):
        for episode in range(config.episodes):
            seed = derive(curve.seed, iteration, Purpose.COLLECTION, episode)
            played: Played = worlds.play(world, act, [seed], 1)
            splits = derive(curve.seed, iteration, Purpose.SPLITS, episode)
            experience.add(played, torch.Generator().manual_seed(splits))
            taken += config.horizon
            if fitted == 0 or taken - fitted >= config.mbpo_keep:
                _fit_models(ensemble, experience, config, derive(curve.seed, taken, Purpose.MODEL_FIT))
                fitted = taken
            if length != (now := rollout_length(taken, schedule)):
                sac.replay_buffer, length = _model_data(sac, now, config), now
            for _ in range(config.horizon):
                _add_model_steps(sac, ensemble, experience, streams, config.mbpo_rollouts, length)
                sac.train(config.mbpo_updates, sac.batch_size)
        curve.evaluate(predict, taken)


def _model_data(sac: Any, length: int, config: LoopConfig) -> Any:
    """A buffer that holds `mbpo_keep` real steps' worth of rollouts of `length` steps; the old one's are taken over."""
    from stable_baselines3.common.buffers import ReplayBuffer

    rollouts, old = config.mbpo_rollouts, sac.replay_buffer
    made: Any = ReplayBuffer(
        config.mbpo_keep * length * rollouts, sac.observation_space, sac.action_space, sac.device, n_envs=rollouts,
        handle_timeout_termination=False,
    )  # fmt: skip
    if old is not None:
        oldest_first = [*range(old.pos, old.buffer_size if old.full else old.pos), *range(old.pos)]
        for row in oldest_first:
            parts = (old.observations, old.next_observations, old.actions, old.rewards, old.dones)
            made.add(*(part[row] for part in parts), [{}] * rollouts)
    return made


def _fit_models(ensemble: DynamicsEnsemble, experience: Experience, config: LoopConfig, seed: int) -> None:
    device = ensemble.input_mean.device
    ensemble.normalise_by(*(x.to(device) for x in experience.model_statistics()))
    rows = experience.rows
    state, action, after = (rows[name].to(device) for name in ("state", "action", "next_state"))
    settings = FitSettings(
        config.model_learning_rate, batch=config.model_batch, rounds=config.model_epochs,
        validate_every=config.validate_every, patience=config.patience, max_norm=config.max_grad_norm,
    )  # fmt: skip
    generator = torch.Generator(device).manual_seed(seed)
    fit(ensemble, state, action, after, experience.splits, generator, settings, graphs=config.compiled)
    ensemble.freeze()


@torch.no_grad()
def _add_model_steps(
    sac: Any, ensemble: DynamicsEnsemble, experience: Experience, streams: Streams, rollouts: int, length: int
) -> None:
    """`length` imagined steps from each of `rollouts` random real states into SAC's buffer; a random member moves each
    step, by a draw from its distribution."""
    rows = experience.rows["state"]
    chosen = (streams.uniform(rollouts).cpu()[0] * rows.shape[1]).long().clamp_max(rows.shape[1] - 1)
    state = rows[:, chosen].to(ensemble.input_mean.device)
    for _ in range(length):
        drawn, _ = sac.actor.action_log_prob(state[0].float())
        action = drawn[None].clamp(-1, 1)
        expected, spread = (x[0] for x in ensemble.outcome(state, action))  # (members, rollouts, s)
        luck = streams.normal(rollouts, expected.shape[-1])[0].to(expected)
        member = (streams.uniform(rollouts)[0] * ensemble.members).long().clamp_max(ensemble.members - 1)
        after = (expected + spread * luck)[member, torch.arange(rollouts, device=member.device)]
        paid = experience.task.reward(state[0], action[0])
        numbers = [x.cpu().numpy() for x in (state[0], after, action[0], paid)]
        sac.replay_buffer.add(*numbers, np.zeros(rollouts), [{}] * rollouts)
        state = after[None]
