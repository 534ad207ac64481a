"""Worlds: shapes, endings, noise, and that episodes depend on their seed alone."""

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.pombu.experiment.tasks import TASKS
from labkit.papers.pombu.experiment.worlds import make_environment, make_world, pendulum_step

SHAPES = {"half-cheetah": (17, 6), "swimmer": (8, 2), "walker2d": (17, 6), "hopper": (11, 3), "ant": (27, 8)}
SHAPES |= {"pendulum": (3, 1)}


@pytest.mark.parametrize("name", list(TASKS))
def test_shapes_and_the_only_end(name):
    env = make_environment(name, horizon=60)
    assert (env.observation_space.shape, env.action_space.shape) == tuple((n,) for n in SHAPES[name])
    assert (TASKS[name].observation, TASKS[name].action) == SHAPES[name]
    assert env.action_space.low.min() == -1
    assert env.action_space.high.max() == 1
    state, _ = env.reset(seed=0)
    assert state.shape == (SHAPES[name][0],)
    random = np.random.default_rng(0)
    for t in range(1, 61):  # hopper and walker have fallen long before: nothing ends
        state, _, terminated, truncated, _ = env.step(random.uniform(-1, 1, SHAPES[name][1]).astype(np.float32))
        assert not terminated
        assert truncated == (t == 60)
    env.reset(seed=1)
    assert not env.step(np.zeros(SHAPES[name][1]))[3]


@pytest.mark.parametrize("name", ["half-cheetah", "pendulum"])
def test_a_copies_episodes_depend_on_its_seed_alone(name):
    world = make_world(name, horizon=5, observation_noise=0.1, action_noise=0.1)

    def act(state: torch.Tensor) -> torch.Tensor:
        return 0.3 * state[..., : TASKS[name].action].tanh()

    pair = world.play(act, [11, 12], 2)
    assert pair.state.shape == (2, 2, 5, TASKS[name].observation)
    assert torch.equal(pair.next_state[:, :, :-1], pair.state[:, :, 1:])
    for mine, alone in zip(world.play(act, [12], 2), pair, strict=True):
        assert torch.equal(mine[0], alone[1])
    assert not torch.equal(pair.state[0, 0], pair.state[0, 1])
    assert not torch.equal(pair.state[0], pair.state[1])


@pytest.mark.parametrize("name", ["half-cheetah", "pendulum"])
def test_starts_are_those_of_the_episodes(name):
    world = make_world(name, horizon=5, observation_noise=0.1)
    both = world.starts([11, 12], 3)
    assert torch.equal(both, world.reset([11, 12], 3))
    assert torch.equal(both[1:], world.starts([12], 3))


@pytest.mark.parametrize("name", ["half-cheetah", "pendulum"])
def test_observation_noise_comes_after_a_step_only_and_leaves_the_reward(name):
    quiet, noisy = (make_world(name, 30, observation_noise=w) for w in (0.0, 0.1))
    assert torch.equal(quiet.reset([5], 1), noisy.reset([5], 1))
    gaps = []
    for _ in range(30):
        action = torch.full((1, 1, TASKS[name].action), 0.2)
        (state, reward), (observation, same_reward) = quiet.step(action), noisy.step(action)
        assert torch.equal(reward, same_reward)
        gaps.append((observation - state).flatten())
    gap = torch.cat(gaps)
    assert gap.abs().max() <= 0.1
    assert gap.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.15)


@pytest.mark.parametrize("name", ["half-cheetah", "pendulum"])
def test_action_noise_moves_the_world(name):
    quiet, noisy = (make_world(name, 30, action_noise=w) for w in (0.0, 0.1))
    for world in (quiet, noisy):
        world.reset([5], 1)
    costs = []
    for _ in range(30):
        action = torch.zeros(1, 1, TASKS[name].action)
        (quiet_state, _), (noisy_state, reward) = quiet.step(action), noisy.step(action)
        costs.append(reward.item())
    assert (quiet_state - noisy_state).abs().max() > 1e-3
    assert len(set(costs)) == 30


def test_the_pendulum_keeps_its_energy_without_torque():
    """Small steps of a frictionless pendulum: the semi-implicit step keeps the energy within some percent."""
    state = torch.tensor([np.cos(2.5), np.sin(2.5), 0.0], dtype=torch.float64)
    energies = []
    for _ in range(400):
        state = pendulum_step(state, torch.zeros(1, dtype=torch.float64))
        energies.append((state[2] ** 2 / 2 + 15 * state[0]).item())
        assert state[:2].norm().item() == pytest.approx(1.0)
    assert max(energies) - min(energies) < 2.0  # of a range of 30


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_environment("humanoid", 10), "there is no task 'humanoid'"),
        (lambda: make_environment("swimmer", 0), "horizon must be at least 1"),
        (lambda: make_world("pendulum", 10, -0.1), "noise 0 or more"),
        (lambda: make_world("cheetah", 10), "there is no task"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_policy_that_diverged_is_told():
    with pytest.raises(InputError, match="not finite"):
        make_world("pendulum", 3).play(lambda state: state[..., :1] * float("nan"), [0], 1)
