"""The rivals outside the loop, on the identical wrapped tasks.

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

from labkit.papers.pombu.experiment import worlds
from labkit.papers.pombu.experiment.config import Config
from labkit.papers.pombu.experiment.gaussian_members import GaussianEnsemble
from labkit.papers.pombu.experiment.tasks import task_named
from labkit.papers.pombu.method.loop import Experience, Purpose, fit_models
from labkit.rl.streams import Streams
from labkit.seeds import derive
from labkit.workbench.runs import Run

Predict = Callable[[NDArray[np.float64], bool], NDArray[np.float32]]  # observations, deterministic? -> actions

# mbpo: from epoch, to epoch, k_min, k_max  [peer]; tasks that are not there roll out one step
SCHEDULES = {"hopper": (20, 150, 1, 15), "ant": (20, 100, 1, 25)}
ONE_STEP = (20, 150, 1, 1)  # half-cheetah's and walker2d's, too  [peer]
EPOCH = 1000  # real steps  [peer]


def train_replica(
    algorithm: str, environment: str, config: Config, replica: int, run: Run, device: torch.device
) -> dict[str, Any]:
    """One replica of an algorithm outside the loop: a part of the run of its own, skipped where it is done.

    stable-baselines3 keeps no replay buffer in its checkpoints: a replica that was killed begins anew.
    """
    part = run.part(f"{algorithm}-{replica}")
    if part.result is not None:
        return part.result
    curve = Curve(environment, config, derive(config.seed, replica), part)
    with _global_generators_kept():
        if algorithm == "mbpo":
            model_based_sac(curve, device)
        else:
            model_free(algorithm, curve, device)
    return part.finish(curve.as_json())


@contextlib.contextmanager
def _global_generators_kept() -> Iterator[None]:
    """stable-baselines3 seeds every global generator; afterwards they are as before."""
    numbers, plain = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(numbers)
            random.setstate(plain)


class Curve:
    """Evaluations of a policy along its training, by the loop's protocol: stochastic episodes, and with the mean.

    Args:
        environment: the task. seed: of this replica. run: where evaluations are logged.
    """

    def __init__(self, environment: str, config: Config, seed: int, run: Run) -> None:
        self.config, self.seed, self.run = config, seed, run
        world = environment, config.horizon, config.observation_noise, config.action_noise
        self.task, self.world = task_named(environment), worlds.make_world(*world)
        self.make_environment = lambda: worlds.make_environment(*world)
        self.steps: list[int] = []
        self.stochastic: list[float] = []
        self.deterministic: list[float] = []

    @property
    def library_seed(self) -> int:
        """For stable-baselines3, whose generators take 32 bits."""
        return derive(self.seed, Purpose.POLICY) % 2**32

    @property
    def every(self) -> int:
        """Real steps between two evaluations: those of the loop's iteration."""
        return self.config.episodes * self.config.horizon

    def evaluate(self, predict: Predict, steps: int) -> None:
        means = []
        for purpose, deterministic in ((Purpose.EVALUATION, False), (Purpose.MEAN_EVALUATION, True)):

            def act(state: Tensor, deterministic: bool = deterministic) -> Tensor:
                return torch.from_numpy(predict(state[0].double().numpy(), deterministic))[None]

            seed = derive(self.seed, len(self.steps), purpose)
            episodes = self.world.play(act, [seed], self.config.evaluations)
            means.append(episodes.reward.sum(-1).mean().item())
        self.steps.append(steps)
        self.stochastic.append(means[0])
        self.deterministic.append(means[1])
        self.run.log(steps, stochastic_return=means[0], mean_return=means[1])

    def as_json(self) -> dict[str, Any]:
        return {"steps": self.steps, "stochastic_return": self.stochastic, "mean_return": self.deterministic}


# -- model-free -------------------------------------------------------------------------------------------------------


def model_free(algorithm: str, curve: Curve, device: torch.device) -> None:
    """PPO or SAC with stable-baselines3's defaults; PPO sees normalized observations and rewards, as is usual."""
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    gamma = curve.config.gamma
    environments: Any = DummyVecEnv([curve.make_environment])
    if algorithm == "ppo":
        environments = VecNormalize(environments, gamma=gamma)
        steps = rollout_steps(curve.every)
        model: Any = PPO("MlpPolicy", environments, n_steps=steps, batch_size=min(64, steps), gamma=gamma,
                         seed=curve.library_seed, device="cpu")  # fmt: skip
    else:
        model = SAC("MlpPolicy", environments, gamma=gamma, seed=curve.library_seed, device=device,
                    learning_starts=min(1000, curve.every // 2))  # fmt: skip

    def predict(observation: NDArray[np.float64], deterministic: bool) -> NDArray[np.float32]:
        normalized = environments.normalize_obs(observation) if algorithm == "ppo" else observation
        return model.predict(normalized, deterministic=deterministic)[0]

    for number in range(1, curve.config.iterations + 1):
        model.learn(curve.every, reset_num_timesteps=number == 1)
        curve.evaluate(predict, int(model.num_timesteps))


def rollout_steps(every: int) -> int:
    """Steps of PPO's rollouts: the most, up to its usual 2,048, of which an iteration of `every` steps is a multiple.

    With a rest stable-baselines3 would round up, and PPO would take more real steps than the loop.
    """
    return max(steps for steps in range(1, min(2048, every) + 1) if every % steps == 0)


# -- model-based SAC --------------------------------------------------------------------------------------------------


def rollout_length(steps: int, schedule: tuple[int, ...]) -> int:
    """k, steps of a model rollout after so many real steps: linear from k_min to k_max, rounded down.  [peer]"""
    start, end, shortest, longest = schedule
    share = min(max((steps // EPOCH - start) / (end - start), 0.0), 1.0)
    return int(shortest + share * (longest - shortest))


def model_based_sac(curve: Curve, device: torch.device) -> None:
    """MBPO in small: rollouts of k steps from random real states, k by a schedule, and SAC from stable-baselines3 on
    what they give. Not as there: five members, all used, in place of the best five of seven; their widths and training
    are those of our models; no real transitions among SAC's. The first episodes are by SAC's first policy.
    """
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    config, task = curve.config, curve.task
    sac = SAC("MlpPolicy", curve.make_environment(), gamma=config.gamma, seed=curve.library_seed, device=device)
    sac.set_logger(Logger(None, []))
    sac._current_progress_remaining = 1.0
    schedule = config.mbpo_schedule or SCHEDULES.get(task.name, ONE_STEP)
    ensemble = GaussianEnsemble(
        1, config.members, task.observation, task.action, config.model_hidden, seeds=[curve.seed]
    ).to(device)
    experience = Experience(task, 1, config.members, config.gamma)
    streams = Streams([derive(curve.seed, 0, Purpose.IMAGINATION)], device)

    def predict(observation: NDArray[np.float64], deterministic: bool) -> NDArray[np.float32]:
        return sac.predict(observation, deterministic=deterministic)[0]

    def act(state: Tensor) -> Tensor:
        return torch.from_numpy(predict(state[0].double().numpy(), False))[None]

    steps, fitted, length = 0, 0, 0
    for iteration in range(config.iterations):
        for number in range(config.episodes):
            keys = (Purpose.COLLECTION, Purpose.SPLITS)
            world_seed, split_seed = (derive(curve.seed, iteration, key, number) for key in keys)
            experience.add(curve.world.play(act, [world_seed], 1), torch.Generator().manual_seed(split_seed))
            steps += config.horizon
            if fitted == 0 or steps - fitted >= config.mbpo_keep:
                generator = torch.Generator(device).manual_seed(derive(curve.seed, steps, Purpose.MODEL_FIT))
                fit_models(ensemble, experience, config, generator)
                fitted = steps
            if length != (now := rollout_length(steps, schedule)):
                sac.replay_buffer, length = _model_data(sac, now, config), now
            for _ in range(config.horizon):
                _add_model_steps(sac, ensemble, experience, streams, config.mbpo_rollouts, length)
                sac.train(config.mbpo_updates, sac.batch_size)
        curve.evaluate(predict, steps)


def _model_data(sac: Any, length: int, config: Config) -> Any:
    """A buffer that holds `mbpo_keep` real steps' worth of rollouts of `length` steps; the old one's are taken over."""
    from stable_baselines3.common.buffers import ReplayBuffer

    rollouts, old = config.mbpo_rollouts, sac.replay_buffer
    buffer: Any = ReplayBuffer(
        config.mbpo_keep * length * rollouts, sac.observation_space, sac.action_space, sac.device, n_envs=rollouts,
        handle_timeout_termination=False,
    )  # fmt: skip
    if old is not None:
        oldest_first = [*range(old.pos, old.buffer_size if old.full else old.pos), *range(old.pos)]
        for row in oldest_first:
            parts = (old.observations, old.next_observations, old.actions, old.rewards, old.dones)
            buffer.add(*(part[row] for part in parts), [{}] * rollouts)
    return buffer


@torch.no_grad()
def _add_model_steps(
    sac: Any, ensemble: GaussianEnsemble, experience: Experience, streams: Streams, rollouts: int, length: int
) -> None:
    """`length` imagined steps from each of `rollouts` random real states into SAC's buffer; a random member moves each
    step, by a draw from its distribution."""
    rows = experience.rows["state"]
    chosen = (streams.uniform(rollouts).cpu()[0] * rows.shape[1]).long().clamp_max(rows.shape[1] - 1)
    state = rows[:, chosen].to(ensemble.input_mean.device)
    for _ in range(length):
        drawn, _ = sac.actor.action_log_prob(state[0].float())
        action = drawn[None].clamp(-1, 1)
        expected, std = (x[0] for x in ensemble.outcome(state, action))  # (members, rollouts, s)
        noise = streams.normal(rollouts, expected.shape[-1])[0].to(expected)
        member = (streams.uniform(rollouts)[0] * ensemble.members).long().clamp_max(ensemble.members - 1)
        next_state = (expected + std * noise)[member, torch.arange(rollouts, device=member.device)]
        reward = experience.task.imagined_reward(state[0], action[0], next_state)
        numbers = [x.cpu().numpy() for x in (state[0], next_state, action[0], reward)]
        sac.replay_buffer.add(*numbers, np.zeros(rollouts), [{}] * rollouts)
        state = next_state[None]
