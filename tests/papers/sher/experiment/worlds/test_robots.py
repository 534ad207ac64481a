"""Fetch and Hand: every task against gymnasium's own, bit for bit, and the batched goal rule against the tasks'."""

import importlib.metadata
import re
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium_robotics.utils import rotations

from labkit.errors import InputError
from labkit.papers.sher.experiment.worlds import robots
from labkit.papers.sher.experiment.worlds.goal_rule import (
    GoalRule,
    euler_from_quaternion,
    goal_rule,
    quaternion_from_euler,
)
from labkit.papers.sher.experiment.worlds.robots import TASKS, GoalVector, RobotWorld
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment

KEYS = ("observation", "achieved_goal", "desired_goal")
SIZES = {"FetchReach": (10, 3, 4), "Fetch": (25, 3, 4), "HandReach": (63, 15, 20), "HandManipulate": (61, 7, 20)}
TOUCH = "HandManipulateBlock_ContinuousTouchSensors-v1"


def official(env_id: str) -> gymnasium.Env:
    """The environment with all its wrappers, as anybody would make it."""
    robots.check_task(env_id)
    return gymnasium.make(env_id)


def same(observations: dict[str, np.ndarray], index: int, expected: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(observations[key][index], expected[key]) for key in KEYS)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [*TASKS, TOUCH])
def test_a_step_is_the_environments_step_bit_for_bit(env_id):
    """Two environments in turn on one model, an episode and the start of a second, against one made by gymnasium."""
    tasks, alone = GoalVector(env_id, 2), official(env_id)
    sizes = next(size for name, size in SIZES.items() if env_id.startswith(name))
    assert (tasks.observation_size, tasks.goal_size, tasks.action_size) == sizes or env_id == TOUCH
    assert tasks.horizon == (100 if "Manipulate" in env_id else 50)
    draw = np.random.default_rng(0)
    for seed, steps, dtype in ((41, tasks.horizon, np.float32), (42, 5, np.float64)):
        if seed == 42:  # the hand's own second reset depends on the first episode
            alone.close()
            alone = official(env_id)
        now, (expected, _) = tasks.reset([7, seed]), alone.reset(seed=seed)
        assert same(now, 1, expected)
        for _ in range(steps):
            actions = draw.uniform(-1.1, 1.1, (2, tasks.action_size)).astype(dtype)
            now = tasks.step(actions)
            expected, reward, _, truncated, info = alone.step(np.clip(actions[1], -1, 1))
            assert same(now, 1, expected)
            pair = now["achieved_goal"], now["desired_goal"]
            assert tasks.rule.compute_reward(*pair)[1] == reward
            assert bool(tasks.rule.is_success(*pair)[1]) == bool(info["is_success"])
        assert truncated == (seed == 41)
    tasks.close()
    alone.close()


@pytest.mark.parametrize(
    "env_id",
    ["FetchPickAndPlace-v4", "HandManipulatePenRotate-v1", "HandReach-v3", pytest.param(TOUCH, marks=pytest.mark.slow)],
)
def test_threads_give_the_same_numbers(env_id):
    vectors = [GoalVector(env_id, 5, threads) for threads in (1, 3)]
    actions = np.random.default_rng(1).uniform(-1, 1, (6, 5, vectors[0].action_size))
    for first in (0, 5):
        one, three = (vector.reset(range(first, first + 5)) for vector in vectors)
        for action in actions:
            one, three = (vector.step(action) for vector in vectors)
        assert all(np.array_equal(one[key], three[key]) for key in KEYS)
    assert not np.array_equal(one["observation"][0], one["observation"][3])
    for vector in vectors:
        vector.close()


def check_some_lean_steps(tasks: GoalVector, alone: gymnasium.Env, steps: int = 15) -> None:
    observations, (expected, _) = tasks.reset([5]), alone.reset(seed=5)
    for action in np.random.default_rng(3).uniform(-1.5, 1.5, (steps, 1, tasks.action_size)):
        assert same(observations, 0, expected)
        observations, (expected, *_) = tasks.step(action), alone.step(action[0])
    assert same(observations, 0, expected)


def fingers_stay_where_they_are(tasks: GoalVector) -> None:
    tasks._stepper.blocked = False


def no_servo_hears(tasks: GoalVector) -> None:
    tasks._stepper.driven = []


def actions_are_not_clipped(tasks: GoalVector) -> None:
    within = tasks._stepper.controls
    tasks._stepper.controls = lambda actions: within(actions * 1.01)


def half_as_many_simulator_steps(tasks: GoalVector) -> None:
    tasks._stepper.substeps //= 2


@pytest.mark.parametrize(
    ("env_id", "bug"),
    [
        ("FetchReach-v4", fingers_stay_where_they_are),
        ("FetchPickAndPlace-v4", no_servo_hears),
        ("FetchPush-v4", actions_are_not_clipped),
        ("HandReach-v3", half_as_many_simulator_steps),
    ],
)
def test_the_comparison_rejects_a_step_that_is_only_similar(env_id, bug):
    alone = official(env_id)
    check_some_lean_steps(GoalVector(env_id, 1), alone)
    wrong = GoalVector(env_id, 1)
    bug(wrong)
    with pytest.raises(AssertionError):
        check_some_lean_steps(wrong, alone)
    alone.close()


def some_goals(env_id: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of goals of which many are within the tolerance, and many not."""
    draw = np.random.default_rng(seed)
    if "Manipulate" not in env_id:
        goals = draw.normal(size=(rows, 15 if "Hand" in env_id else 3))
        size = 0.0026 if "Hand" in env_id else 0.05
        return goals + draw.normal(size=goals.shape) * size, goals
    position, turn = draw.normal(size=(rows, 3)), draw.normal(size=(rows, 4))
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    nudge = np.concatenate([np.ones((rows, 1)), draw.normal(size=(rows, 3)) * 0.025], axis=1)
    turned = rotations.quat_mul(nudge / np.linalg.norm(nudge, axis=1, keepdims=True), turn)
    turned[::3] *= draw.choice([-1, 1], size=(len(turned[::3]), 1))  # the same rotation, written with the other sign
    about_z = np.stack([np.cos(draw.uniform(-3, 3, rows)), *np.zeros((2, rows)), np.zeros(rows)], axis=1)
    about_z[:, 3] = np.sqrt(1 - about_z[:, 0] ** 2)
    turned[1::4] = rotations.quat_mul(turned[1::4], about_z[1::4])
    near = draw.normal(size=(rows, 3)) * (0.02 if "Pen" in env_id else 0.005)
    return np.concatenate([position + near, turned], axis=1), np.concatenate([position, turn], axis=1)


@pytest.mark.parametrize("env_id", TASKS)
def test_the_batched_rule_is_the_environments_own_row_by_row(env_id):
    alone = official(env_id).unwrapped
    rule = goal_rule(alone)
    achieved, desired = some_goals(env_id, 400, seed=2)
    rewards = np.array([alone.compute_reward(a, d, {}) for a, d in zip(achieved, desired, strict=True)])
    success = np.array([alone._is_success(a, d) for a, d in zip(achieved, desired, strict=True)])
    assert 20 < success.sum() < 380
    np.testing.assert_allclose(rule.compute_reward(achieved, desired), rewards, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(rule.is_success(achieved, desired), success == 1)
    shape = (20, 4, 5, achieved.shape[1])
    tensors = torch.from_numpy(achieved).reshape(shape), torch.from_numpy(desired).reshape(shape)
    assert torch.equal(rule.is_success(*tensors).flatten(), torch.from_numpy(success == 1))
    assert rule.compute_reward(*tensors).dtype == torch.float32
    single = rule.compute_reward(*(tensor.float() for tensor in tensors)).flatten()
    assert (single.numpy() != rewards).mean() < 0.01  # only pairs at the very tolerance may differ
    alone.close()


def test_a_batch_of_pens_given_to_the_environment_itself_comes_out_wrong():
    """Its third row loses its own angles, all others keep their turn about z: why the rule above is written anew."""
    alone = official("HandManipulatePenRotate-v1").unwrapped
    achieved, desired = some_goals("HandManipulatePen", 400, seed=2)
    by_row = np.array([alone.compute_reward(a, d, {}) for a, d in zip(achieved, desired, strict=True)])
    assert (alone.compute_reward(achieved, desired, {}) != by_row).mean() > 0.1
    alone.close()


@pytest.mark.parametrize(
    ("env_id", "change"),
    [
        ("HandManipulatePenRotate-v1", {"ignores_turn_about_z": False}),
        ("HandManipulateBlockFull-v1", {"uses_position": False}),
        ("HandManipulateBlockFull-v1", {"uses_rotation": False}),
        ("HandManipulateBlockRotateXYZ-v1", {"uses_position": True}),
        ("FetchPush-v4", {"distance": 0.06}),
    ],
)
def test_the_rows_tell_a_wrong_rule_from_the_right_one(env_id, change):
    alone = official(env_id).unwrapped
    rule = goal_rule(alone)
    achieved, desired = some_goals(env_id, 400, seed=2)
    if "RotateXYZ" in env_id:
        achieved[:, :3] += 1  # far away, which this task does not mind
    assert (rule.is_success(achieved, desired) != replace(rule, **change).is_success(achieved, desired)).any()
    success = np.array([alone._is_success(a, d) for a, d in zip(achieved, desired, strict=True)])
    np.testing.assert_array_equal(rule.is_success(achieved, desired), success == 1)
    alone.close()


def test_the_sign_of_a_quaternion_counts():
    """q and -q are one rotation, yet the environment's angle between them is 2 pi [official code]."""
    rule = GoalRule(0.01, 0.1)
    goal = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    assert rule.is_success(goal, goal)
    assert not rule.is_success(goal * torch.tensor([1, 1, 1, -1, -1, -1, -1]), goal)


def check_angles(from_quaternion, from_euler) -> None:
    """Against gymnasium-robotics' own conversions, signs of quaternions included, and where two axes coincide."""
    draw = torch.Generator().manual_seed(0)
    angles = 3 * (2 * torch.rand(500, 3, dtype=torch.float64, generator=draw) - 1)
    angles[:20, 1] = torch.pi / 2
    q = from_euler(angles)
    np.testing.assert_allclose(q.numpy(), rotations.euler2quat(angles.numpy()), atol=1e-12)
    regular = from_quaternion(q)[20:].numpy()
    np.testing.assert_allclose(regular, rotations.quat2euler(q.numpy())[20:], atol=1e-9)
    unit = torch.tensor([[0.5**0.5, 0.0, 0.5**0.5, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(from_quaternion(unit).numpy(), rotations.quat2euler(unit.numpy()), atol=1e-6)
    np.testing.assert_allclose(from_quaternion(2 * q).numpy()[20:], regular, atol=1e-9)


def test_angles_and_quaternions_agree_with_the_library():
    check_angles(euler_from_quaternion, quaternion_from_euler)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda angles: quaternion_from_euler(angles.flip(-1)),
        lambda angles: -quaternion_from_euler(angles),
        lambda angles: quaternion_from_euler(angles) * torch.tensor([1, 1, 1, -1]),
    ],
    ids=["order zyx", "other sign", "z turned back"],
)
def test_the_check_of_angles_rejects(wrong):
    with pytest.raises(AssertionError):
        check_angles(euler_from_quaternion, wrong)


def test_a_reset_forgets_what_was_played_before():
    for env_id in ("FetchPush-v4", "HandManipulateBlock-v1"):
        tasks, alone = GoalVector(env_id, 2), official(env_id)
        draw = np.random.default_rng(0)
        tasks.reset([1, 2])
        for _ in range(5):
            tasks.step(draw.uniform(-1, 1, (2, tasks.action_size)))
        assert same(tasks.reset([41, 42]), 1, alone.reset(seed=42)[0])
        action = draw.uniform(-1, 1, (2, tasks.action_size))
        assert same(tasks.step(action), 1, alone.step(action[1])[0])
        alone.close()


def test_a_world_of_tensors_plays_the_same_episodes_alone_and_among_others():
    world, alone = RobotWorld("FetchReach-v4", threads=2), RobotWorld("FetchReach-v4")
    assert isinstance(world, GoalEnvironment)
    actions = torch.rand(10, 3, 2, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    single = [torch.Generator().manual_seed(6)]
    for _ in range(2):  # the second episodes come from where the generators stand now
        now, other = world.reset(3, 2, generators), alone.reset(1, 2, single)
        for action in actions:
            now, other = world.step(action), alone.step(action[1:2])
        for key in KEYS:
            assert now[key].dtype == torch.float32
            assert torch.equal(now[key][1:2], other[key])
    assert now["observation"].shape == (3, 2, 10)
    reward = world.compute_reward(now["achieved_goal"], now["desired_goal"])
    assert torch.equal(reward == 0, world.is_success(now["achieved_goal"], now["desired_goal"]))
    test = world.reset(1, 4, [torch.Generator().manual_seed(7)], training=False)  # another number of episodes
    again = world.reset(1, 4, [torch.Generator().manual_seed(7)], training=False)
    assert torch.equal(test["desired_goal"], again["desired_goal"])
    world.close()
    alone.close()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            lambda: GoalVector("FetchReech-v4", 1),
            "there is no environment 'FetchReech-v4'; did you mean FetchReach-v4",
        ),
        (lambda: GoalVector("FetchPush-v1", 1), "needs the abandoned package mujoco-py; use 'FetchPush-v4'"),
        (lambda: GoalVector("HalfCheetah-v5", 1), "'HalfCheetah-v5' is not a Fetch or Hand task with goals"),
        (lambda: GoalVector("zzz", 1), "did you mean FetchReach-v4 or FetchPush-v4"),
        (lambda: GoalVector("FetchReach-v4", 0), "count and threads must be at least 1; got 0 and 1"),
        (lambda: GoalVector("FetchReach-v4", 2).step(np.zeros((2, 4))), "call reset(seeds) before the first step"),
        (lambda: GoalVector("FetchReach-v4", 2).step(np.zeros((2, 3))), "= (2, 4); got (2, 3)"),
        (lambda: GoalVector("FetchReach-v4", 2).reset([1]), "2 in all; got 1"),
        (lambda: GoalVector("FetchPushDense-v4", 1), "'FetchPushDense-v4' has dense rewards, which hindsight does not"),
        (lambda: GoalRule(0.1).is_success(np.zeros((2, 3)), np.zeros((1, 3))), "differ in shape: (2, 3) and (1, 3)"),
        (lambda: RobotWorld("FetchReach-v4").reset(2, 1, [torch.Generator()]), "a generator per copy; got 1"),
        (
            lambda: RobotWorld("FetchReach-v4").step(torch.zeros(1, 2, 4)),
            "= (1, 1, 4) of the last reset; got (1, 2, 4)",
        ),
    ],
)
def test_bad_input_is_refused_in_words(wrong, text):
    with pytest.raises(InputError, match=re.escape(text)):
        wrong()


@pytest.mark.parametrize("release", ["4.0.0", "3.12.0", "3.2.7", "2.3.7"])
def test_another_mujoco_is_refused_before_anything_is_made(monkeypatch, release):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: release)
    with pytest.raises(InputError, match=re.escape(f"MuJoCo {release} is installed")) as caught:
        GoalVector("FetchReach-v4", 1)
    assert "pip install 'mujoco>=3.3,<3.12'" in str(caught.value)


def test_a_missing_mujoco_is_named(monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(InputError, match="MuJoCo is not installed: pip install"):
        robots.check_mujoco()


def test_the_pin_is_the_projects_pin():
    wanted = importlib.metadata.requires("labkit") or []
    assert any(re.fullmatch(r"mujoco\s*(<3\.12,\s*>=3\.3|>=3\.3,\s*<3\.12)", line) for line in wanted)
