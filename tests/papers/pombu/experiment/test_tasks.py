"""One reward for the simulator and the models: equal on a thousand real transitions, and equal to Gymnasium's parts."""

import gymnasium
import numpy as np
import pytest
import torch

from labkit.papers.pombu.experiment import tasks
from labkit.papers.pombu.experiment.tasks import TASKS, GymnasiumTask
from labkit.papers.pombu.experiment.worlds import TorchPendulum, make_environment

MUJOCO = [name for name, task in TASKS.items() if isinstance(task, GymnasiumTask)]


@pytest.mark.parametrize("name", list(TASKS))
def test_the_models_are_promised_what_the_simulator_gives(name):
    """1,000 real transitions, actions beyond their bounds included; in float64 to the last bits, in float32 nearly."""
    env, random = make_environment(name, horizon=100), np.random.default_rng(0)
    states, actions, rewards = [], [], []
    for episode in range(10):
        state, _ = env.reset(seed=episode)
        for _ in range(100):
            action = random.uniform(-1.5, 1.5, env.action_space.shape)
            states.append(np.array(state))
            actions.append(action)
            state, reward, *_ = env.step(action)
            rewards.append(reward)
    state, action, wanted = (torch.from_numpy(np.array(x)) for x in (states, actions, rewards))
    assert len(wanted) == 1000
    torch.testing.assert_close(TASKS[name].reward(state, action, None), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        TASKS[name].reward(state.float(), action.float(), None).double(), wanted, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", MUJOCO)
def test_the_speed_is_that_of_the_body_before_the_step(name):
    """Straight from MuJoCo: the root's forward velocity and height, and 0.1 |a|^2 (swimmer 1e-4) of actions +-1."""
    bars = {"walker2d": (1, 1.3), "hopper": (1, 1.3), "ant": (2, 0.57)}
    env = make_environment(name, horizon=50)
    env.reset(seed=3)
    inner, random = env.unwrapped, np.random.default_rng(1)
    for _ in range(50):
        speed, upright = inner.data.qvel[0], 0.0
        if name in bars:
            index, wanted_height = bars[name]
            upright = 1 - 3 * (inner.data.qpos[index] - wanted_height) ** 2
        action = random.choice([-7.0, 1.0], env.action_space.shape)  # clipped to -1 and 1
        cost = (1e-4 if name == "swimmer" else 0.1) * len(action)
        wanted = np.clip(speed, -10, 10) if name in ("walker2d", "hopper") else speed  # their observations are clipped
        _, reward, *_ = env.step(action)
        assert reward == pytest.approx(wanted - cost + upright, abs=1e-9)


def test_the_pendulum_is_gymnasiums():
    """Our torch pendulum, Pendulum-v1: the same motion, and a reward 1:1."""
    ours, theirs = TorchPendulum(horizon=200), gymnasium.make("Pendulum-v1").unwrapped
    state = ours.reset([4], 1)
    theirs.reset(seed=0)
    theirs.state = np.array([torch.atan2(state[0, 0, 1], state[0, 0, 0]).item(), state[0, 0, 2].item()])
    random = torch.Generator().manual_seed(0)
    for _ in range(200):
        action = torch.rand(1, 1, 1, generator=random, dtype=torch.float64) * 2.4 - 1.2
        state, rewards = ours.step(action)
        observation, reward, *_ = theirs.step(2 * action[0, 0].numpy())
        np.testing.assert_allclose(state[0, 0].numpy(), observation, atol=1e-4)  # Gymnasium's state is float32
        assert rewards.item() == pytest.approx(reward, abs=1e-3)


def height_forgotten(state, action):
    return tasks.hopper(state, action) + 3 * (state[..., 0] - 1.3) ** 2


def cost_of_the_raw_action(state, action):
    return state[..., 8] - 0.1 * (action**2).sum(-1)


@pytest.mark.parametrize(("name", "wrong"), [("hopper", height_forgotten), ("half-cheetah", cost_of_the_raw_action)])
def test_a_wrong_reward_would_be_seen(name, wrong):
    state, action = torch.randn(5, TASKS[name].observation), torch.full((5, TASKS[name].action), 1.3)
    assert not torch.allclose(wrong(state, action), TASKS[name].reward(state, action, None))
