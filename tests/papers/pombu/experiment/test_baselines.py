"""The rivals outside the loop: PPO's number of real steps, MBPO's rollouts, schedule and buffer."""

import numpy as np
import pytest
import torch

from labkit.papers.pombu.experiment import baselines
from labkit.papers.pombu.experiment.baselines import Curve
from labkit.papers.pombu.experiment.config import Config
from labkit.papers.pombu.experiment.gaussian_members import GaussianEnsemble
from labkit.papers.pombu.experiment.tasks import TASKS
from labkit.papers.pombu.method.loop import Experience
from labkit.rl.streams import Streams
from labkit.workbench.runs import Run


@pytest.mark.slow
def test_ppo_takes_as_many_real_steps_as_the_loop(tmp_path):
    """Iterations of 2,304 steps: more than one of PPO's usual rollouts of 2,048, and less than two."""
    config = Config(environments=("pendulum",), iterations=1, episodes=9, horizon=256, evaluations=1)
    run = Run.open(tmp_path, config)
    curve = Curve("pendulum", config, 0, run)
    baselines.model_free("ppo", curve, torch.device("cpu"))
    assert curve.steps == [2304]
    assert [baselines.rollout_steps(every) for every in (1, 16, 2000, 2048, 2049, 3000, 10_000)] == [
        1, 16, 2000, 2048, 683, 1500, 2000,
    ]  # fmt: skip


def test_rollouts_grow_by_the_schedule():
    """k_min up to the first epoch, k_max from the last one on, whole numbers in between; an epoch is 1000 steps."""
    schedule = (20, 100, 1, 25)
    assert [baselines.rollout_length(1000 * epoch, schedule) for epoch in (0, 20, 23, 24, 60, 99, 100, 500)] == [
        1, 1, 1, 2, 13, 24, 25, 25,
    ]  # fmt: skip
    assert baselines.rollout_length(23_999, schedule) == 1
    assert {baselines.rollout_length(1000 * epoch, baselines.ONE_STEP) for epoch in range(0, 300, 10)} == {1}
    assert set(baselines.SCHEDULES) <= set(TASKS)


class Recorder:
    """In SAC's place: actions of 3, which count as 1; keeps what is put into the buffer."""

    def __init__(self) -> None:
        self.actor = self.replay_buffer = self
        self.rows: list[list[np.ndarray]] = []

    def action_log_prob(self, state: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.full((len(state), 1), 3.0), None

    def add(self, *rows: np.ndarray) -> None:
        self.rows.append(list(rows))


def test_model_rollouts_go_on_from_where_a_member_led():
    """400 rollouts of three steps by two equal members; draws are from their distribution."""
    models = GaussianEnsemble(1, 2, 3, 1, (8,), seeds=[0]).requires_grad_(False)
    for value in models.parameters():
        value[1:] = value[:1]
    task = TASKS["pendulum"]
    experience = Experience(task, 1, 2, 0.99)
    experience.rows["state"] = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(0))
    sac = Recorder()
    baselines._add_model_steps(sac, models, experience, Streams([1]), 400, 3)
    assert len(sac.rows) == 3
    known = {tuple(row) for row in experience.rows["state"][0].tolist()}
    assert {tuple(row) for row in sac.rows[0][0].tolist()} == known  # the first steps begin in real states
    assert np.array_equal(sac.rows[1][0], sac.rows[0][1])
    assert np.array_equal(sac.rows[2][0], sac.rows[1][1])
    for state, next_state, action, reward, done, _ in sac.rows:
        assert (action == 1).all()
        assert not done.any()
        now = torch.tensor(state), torch.tensor(action)
        assert reward == pytest.approx(task.reward(*now, None).numpy())
        expected, std = (x[0].numpy() for x in models.outcome(*(x[None] for x in now)))
        drawn = (next_state - expected[0]) / std[0]
        assert drawn.mean() == pytest.approx(0, abs=0.15)  # 1,200 numbers from N(0, 1): 5 standard errors
        assert drawn.std() == pytest.approx(1, abs=0.1)


def test_both_members_move():
    models = GaussianEnsemble(1, 2, 3, 1, (8,), seeds=[0]).requires_grad_(False)
    models.outcome = lambda state, action: (  # member k says k everywhere
        torch.arange(2.0).view(1, 2, 1, 1).expand(1, 2, 400, 3), torch.zeros(1, 2, 400, 3)
    )  # fmt: skip
    experience, sac = Experience(TASKS["pendulum"], 1, 2, 0.99), Recorder()
    experience.rows["state"] = torch.zeros(1, 7, 3)
    baselines._add_model_steps(sac, models, experience, Streams([1]), 400, 1)
    assert set(sac.rows[0][1].flatten().tolist()) == {0.0, 1.0}
    assert sac.rows[0][1][:, 0].mean() == pytest.approx(0.5, abs=0.1)  # 4 standard errors


def test_model_data_stay_when_rollouts_grow(tmp_path):
    from stable_baselines3 import SAC

    config = Config(environments=("pendulum",), horizon=8, mbpo_rollouts=3, mbpo_keep=4)
    environment = Curve("pendulum", config, 0, Run.open(tmp_path, config)).make_environment()
    sac = SAC("MlpPolicy", environment, seed=0, device="cpu")
    sac.replay_buffer = baselines._model_data(sac, 1, config)
    assert (sac.replay_buffer.buffer_size, sac.replay_buffer.n_envs) == (4, 3)
    for number in range(6):  # two more than it holds
        state = np.full((3, 3), number)
        sac.replay_buffer.add(state, state + 0.5, np.zeros((3, 1)), np.full(3, number), np.zeros(3), [{}] * 3)
    longer = baselines._model_data(sac, 2, config)
    assert longer.buffer_size == 8
    assert longer.pos == 4
    assert longer.rewards[:4, 0].tolist() == [2, 3, 4, 5]  # the oldest went first
    assert longer.observations[:4, 2, 1].tolist() == [2, 3, 4, 5]
    assert longer.next_observations[:4, 0, 0].tolist() == [2.5, 3.5, 4.5, 5.5]


@pytest.mark.slow
def test_mbpos_schedule_changes_what_comes_out(tmp_path):
    curves = []
    for name, schedule in (("as it is", ()), ("changed", (0, 1, 3, 3))):
        config = Config(
            environments=("pendulum",), iterations=1, episodes=2, horizon=8, members=2, model_hidden=(16,),
            model_batch=16, model_epochs=5, evaluations=1, mbpo_updates=1, mbpo_rollouts=16, mbpo_keep=20,
            mbpo_schedule=schedule,
        )  # fmt: skip
        curve = Curve("pendulum", config, 0, Run.open(tmp_path / name, config))
        baselines.model_based_sac(curve, torch.device("cpu"))
        curves.append(curve.as_json())
    assert curves[0] != curves[1]
