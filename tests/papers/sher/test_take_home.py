"""SHER and its rivals on environments of the reader's own: learn, predict, save, load; what is refused, and why."""

import re
import struct
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from papers.sher.own_worlds import Changed, Trolley, limited
from pydantic import RootModel

from labkit.errors import InputError
from labkit.papers.sher import HER, SAC, SHER, load
from labkit.papers.sher.experiment import export, learner
from labkit.papers.sher.experiment import train as loop
from labkit.papers.sher.experiment.config import TAKE_HOME, Config
from labkit.papers.sher.experiment.rollout import rollout
from labkit.papers.sher.experiment.trained import trained
from labkit.papers.sher.experiment.worlds.gym import GymWorld, OfGoals
from labkit.papers.sher.experiment.worlds.robots import RobotWorld
from labkit.rl.streams import Streams
from labkit.tensor_files import TensorFileError
from labkit.workbench.runs import Run

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "03_sher.py"
ONE = Trolley()
QUICK: dict[str, Any] = {"batch": 32, "hidden": (16,), "device": "cpu"}


def observation(position=5.0, mark=2.0):
    return {
        "observation": np.array([position, 0.0]),
        "achieved_goal": np.array([position]),
        "desired_goal": np.array([mark]),
    }


def zero(world, count=1):
    return torch.zeros(1, count, world.action_size)


# -- the ten lines ----------------------------------------------------------------------------------------------------


def snippet() -> str:
    """The first Python block below the notebook's heading 10."""
    text = "\n".join(line.removeprefix("# ") for line in NOTEBOOK.read_text().splitlines())
    block = re.search(r"```python\n(.*?)```", text[text.index("## 10") :], re.DOTALL)
    assert block, "heading 10 shows no Python block"
    return block[1]


@pytest.mark.slow
def test_the_ten_lines(tmp_path, monkeypatch):
    """What the notebook and README show, on an environment that stands only here."""
    lines = [line for line in snippet().splitlines() if line.strip()]
    assert len(lines) <= 10
    monkeypatch.chdir(tmp_path)
    shown: dict[str, Any] = {"my_env": limited(15)}
    exec(re.sub(r"learn\([\d_]+\)", "learn(40)", snippet()), shown)  # that it learns is tested below
    assert (tmp_path / "model.safetensors").stat().st_size > 1000
    assert shown["my_env"].action_space.contains(shown["action"])


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "rewards", "ends"),
    [
        (SHER, (0.0, 1.0), "at goal"),
        (SHER, (-1.0, 0.0), ""),
        (SAC, (0.0, 1.0), "at goal"),
    ],
)
def test_learns_somebody_elses_world(kind, rewards, ends):
    """Each of 20 seeds has 1.00 here; the best constant pull has .55.

    Catches: targets clipped to [-1 / (1 - gamma), 0] where rewards are 0 and 1, actions outside of the bounds.
    """
    model = kind(limited(15, rewards, ends), seed=1, hidden=(32, 32), batch=64, device="cpu").learn(700)
    assert model.success_rate(40) >= 0.7


def test_actions_have_the_environments_bounds_while_learning_and_afterwards():
    """Bounds of -2 and 1: the whole range is used, nothing outside of it (the trolley refuses that)."""
    env = limited(10)
    model = SHER(env, epsilon=1.0, updates=1, **QUICK).learn(300)
    assert -2 <= min(env.unwrapped.pulls) < -1.8
    assert 0.85 < max(env.unwrapped.pulls) <= 1
    assert np.mean(env.unwrapped.pulls) == pytest.approx(-0.5, abs=0.3)  # uniform: six standard errors
    samples = [model.predict(observation(), deterministic=False)[0] for _ in range(50)]
    assert all(-2 <= float(action[0]) <= 1 for action in samples)
    assert len({float(action[0]) for action in samples}) > 40


def test_bounds_that_single_precision_rounds_across_are_kept():
    """.1 in single precision is more than .1: an environment of doubles would refuse it, at either end."""
    env = limited(10)
    env.unwrapped.action_space = spaces.Box(np.array([-0.1]), np.array([0.1]), dtype=np.float64)
    model = SHER(env, **QUICK)
    for far in (-40.0, 40.0):  # tanh is 1 there, exactly
        model.agent.act = lambda inputs, noise, far=far: torch.full((1, 1, 1), far).tanh()
        model._world.reset(1, 1, Streams([0]).generators)
        model._world.step(model.agent.act(None, None))
        assert env.action_space.contains(model.predict(observation())[0])
    assert env.unwrapped.pulls == [-0.1, 0.1]


def test_episodes_end_as_the_environment_says():
    """Lengths, and which were ended by it: a fall is a termination, time is not."""
    world = GymWorld([limited(9, ends="at edge") for _ in range(3)])
    fall, stay = torch.ones(1, 1, 1), -torch.ones(1, 1, 1) / 3 + 2 / 3  # +1 m a step; 0 m: (0.33 + 1) / 2 * 3 - 2
    act = lambda t, now: torch.cat([fall, stay, stay], 1)  # noqa: E731
    played = rollout(act, world, 1, 3, Streams([0]).generators)
    assert played.length is not None
    assert played.ended is not None
    assert played.ended.tolist() == [[True, False, False]]
    assert played.length[0, 1:].tolist() == [9, 9]
    steps = int(played.length[0, 0])
    assert 3 <= steps < 9
    assert float(played.achieved[0, 0, steps, 0]) > 10
    assert bool((played.achieved[0, 0, steps:] == played.achieved[0, 0, steps]).all())  # padding
    assert played.steps == int(played.length.sum())
    assert torch.equal(played.last_achieved[0, 0], played.achieved[0, 0, steps])


def test_our_time_limit_is_a_truncation():
    world = GymWorld([Trolley()], horizon=6)
    played = rollout(lambda t, now: zero(world), world, 1, 1, Streams([0]).generators)
    assert (played.length.tolist(), played.ended.tolist()) == ([[6]], [[False]])
    assert GymWorld([Trolley(limit=4)], horizon=6).horizon == 6  # the environment's own, unregistered, cuts at 4
    played = rollout(lambda t, now: zero(world), GymWorld([Trolley(limit=4)], horizon=6), 1, 1, Streams([0]).generators)
    assert (played.length.tolist(), played.ended.tolist()) == ([[4]], [[False]])


@pytest.mark.parametrize("own_rule", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_relabelled_goal_ends_an_episode_where_the_environment_would(own_rule):
    """Every row: ended exactly where its (new) goal is reached. Catches the flag of the goal that was not chosen."""
    model = SHER(limited(15, ends="at goal", own_rule=own_rule), strategy="episode", updates=1, **QUICK).learn(400)
    world, buffer = model._world, model._learner.buffer
    assert world.ends_at is not None
    batch = buffer.take(torch.rand(1, 5, 2000), world.compute_reward, "episode", 4.0, world.ends_at)
    assert torch.equal(batch.ended, batch.reward == 0)
    assert 0 < float(batch.ended.float().mean()) < 1
    assert 0 < float(batch.ended[batch.relabelled].float().mean()) < 1


@pytest.mark.slow
def test_a_fall_ends_an_episode_whatever_the_goal():
    model = SHER(limited(15, ends="at edge"), epsilon=1.0, strategy="episode", updates=1, **QUICK).learn(400)
    world, buffer = model._world, model._learner.buffer
    assert world.ends_at is None
    batch = buffer.take(torch.rand(1, 5, 2000), world.compute_reward, "episode", 4.0, world.ends_at)
    off = (batch.next_achieved[..., 0] < 0) | (batch.next_achieved[..., 0] > 10)
    assert torch.equal(batch.ended, off)
    assert 0 < float(off.float().mean()) < 1


@pytest.mark.slow
def test_gradient_steps_follow_the_steps_played_and_targets_their_fifties():
    """120 steps: two whole rounds and 20 more, after which the targets keep what they keep of 50, to the power .4."""
    model = SHER(limited(120), **QUICK)
    kept: list[float] = []
    model.agent.update_targets = kept.append
    model.learn(1)
    assert model.steps == model._learner.gradient_steps == 120
    assert kept == pytest.approx([0.9, 0.9, 0.9**0.4])
    assert len(SHER(limited(20), updates=7, **QUICK).learn(40).episodes) == 2


@pytest.mark.slow
def test_the_same_seed_learns_the_same_and_goes_on():
    first, again = (SHER(limited(12), seed=5, **QUICK).learn(36) for _ in range(2))
    other = SHER(limited(12), seed=6, **QUICK).learn(12)
    assert np.array_equal(first.predict(observation())[0], again.predict(observation())[0])
    assert not np.array_equal(first.predict(observation())[0], other.predict(observation())[0])
    in_two = SHER(limited(12), seed=5, **QUICK).learn(12).learn(24)
    assert np.array_equal(first.predict(observation())[0], in_two.predict(observation())[0])
    assert (first.steps, in_two.steps) == (36, 36)
    assert [steps for steps, _ in first.episodes] == [12, 24, 36]


def test_copies_play_side_by_side():
    """By a function and by a registered id; each with starts of its own."""
    created: list[gymnasium.Env] = []

    def make():
        created.append(limited(10))
        return created[-1]

    model = HER(make, episodes=3, updates=1, **QUICK).learn(60)
    assert (len(created), len(model.episodes), model.steps) == (3, 6, 60)
    assert len({seed for env in created for seed in env.unwrapped.starts[-2:]}) == 6
    gymnasium.register("labkit-test/Trolley-v0", Trolley, max_episode_steps=10)
    try:
        by_id = HER("labkit-test/Trolley-v0", episodes=3, updates=1, **QUICK).learn(60)
        by_copy = HER(gymnasium.make("labkit-test/Trolley-v0"), episodes=3, updates=1, **QUICK).learn(60)
        assert by_id._world.horizon == 10
        with pytest.raises(InputError, match="did you mean labkit-test/Trolley-v0"):
            HER("labkit-test/Troley-v0", **QUICK)
    finally:
        del gymnasium.registry["labkit-test/Trolley-v0"]
    actions = [one.predict(observation())[0] for one in (model, by_id, by_copy)]
    assert np.array_equal(actions[0], actions[1])
    assert np.array_equal(actions[0], actions[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "rewards"),
    [
        ("FetchPush-v4", (-1.0, 0.0)),
        ("HandReach-v3", (-1.0, 0.0)),
        ("HandManipulateEggRotate-v1", (-1.0, 0.0)),
        ("PointMaze_UMaze-v3", (0.0, 1.0)),
        ("AntMaze_UMaze-v5", (0.0, 1.0)),
    ],
)
def test_known_robots_and_mazes_play_and_learn(env_id, rewards):
    model = SHER(env_id, updates=2, batch=16, hidden=(8,), device="cpu").learn(1)
    world = model._world
    assert isinstance(world, RobotWorld) == (not env_id.count("Maze"))
    assert world.rewards == rewards
    assert model.steps == world.horizon
    assert np.isfinite(model.predict(gymnasium.make(env_id).reset(seed=0)[0])[0]).all()


def test_a_robot_by_id_and_by_itself_is_one_world():
    """The lean stepping of the lesson against the environment's own step: the same seeds, the same states."""
    lean, plain = RobotWorld("FetchReach-v4"), GymWorld([gymnasium.make("FetchReach-v4", disable_env_checker=True)])
    assert plain.rewards == lean.rewards
    assert (plain.horizon, plain.ends_at, lean.ends_at) == (50, None, None)
    act = lambda t, now: torch.full((1, 1, 4), 0.3 if t % 3 else -0.8)  # noqa: E731
    ours, theirs = (rollout(act, world, 1, 1, Streams([3]).generators) for world in (lean, plain))
    assert torch.equal(ours.observation, theirs.observation)
    assert torch.equal(ours.achieved, theirs.achieved)


# -- predicting -------------------------------------------------------------------------------------------------------


def test_predictions_one_by_one_are_those_of_a_batch():
    model = SHER(limited(10), **QUICK).learn(20)
    rows = [observation(position, mark) for position, mark in ((1.0, 9.0), (5.0, 2.0), (7.0, 7.1))]
    batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    together, state = model.predict(batch, state="as it came")
    assert (together.shape, together.dtype, state) == ((3, 1), np.float64, "as it came")
    np.testing.assert_allclose(together, [model.predict(row)[0] for row in rows], atol=1e-6)


@pytest.mark.slow
def test_stable_baselines3_can_evaluate_it():
    """An independent loop with the same verbs: `evaluate_policy` of the peer plays our policy in the environment."""
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env(lambda: limited(15), n_envs=2)
    model = SHER(limited(15), **QUICK).learn(30)
    mean, _ = evaluation.evaluate_policy(model, env, n_eval_episodes=4)
    assert -15 <= mean <= 0


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SHER, HER, SAC])
def test_what_was_saved_comes_back(tmp_path, kind):
    model = kind(limited(10, (0.0, 1.0)), seed=2, gamma=0.9, **QUICK).learn(20)
    model.save(tmp_path / "mine.safetensors")
    for loaded in (kind.load(tmp_path / "mine.safetensors"), load(tmp_path / "mine.safetensors", device="cpu")):
        assert type(loaded) is kind
        assert (loaded.arm, loaded.recipe, loaded.steps) == (model.arm, model.recipe, 20)
        assert np.array_equal(loaded.predict(observation())[0], model.predict(observation())[0])
        with pytest.raises(InputError, match="has no environment"):
            loaded.learn(10)
    on = kind.load(tmp_path / "mine.safetensors", limited(10, (0.0, 1.0)), device="cpu").learn(20)
    assert (on.steps, on.agent.settings.gamma, on.agent.settings.rewards) == (40, 0.9, (0.0, 1.0))
    with pytest.raises(InputError, match="rewards of Trolley"):
        kind.load(tmp_path / "mine.safetensors", limited(10))
    with pytest.raises(InputError, match="the policy was learned with"):
        kind.load(tmp_path / "mine.safetensors", "FetchReach-v4")


def test_another_algorithms_file_is_refused_by_name(tmp_path):
    HER(limited(10), **QUICK).save(tmp_path / "her.safetensors")
    with pytest.raises(TensorFileError, match=r"holds a HER: load it with HER\.load"):
        SHER.load(tmp_path / "her.safetensors")
    with pytest.raises(TensorFileError, match="no file"):
        load(tmp_path / "nothing.safetensors")


def with_header(path: Path, **changes: Any) -> bytes:
    """The file with another header, and with the checksum that belongs to it."""
    from labkit.papers.sher.experiment.algorithm import Header
    from labkit.tensor_files import read, to_bytes

    tensors, header = read(path, Header)
    return to_bytes(tensors, RootModel[dict](header.model_dump(mode="json") | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"algorithm": "PPO"}, "algorithm"),
        ({"format": "labkit goal policy 9"}, "format"),
        ({"low": (), "high": ()}, "low"),
        ({"steps": -1}, "steps"),
        ({"rewards": (0.0, 0.0)}, "rewards"),
        ({"recipe": {"hidden": [16_000] * 16}}, "other networks"),
        ({"recipe": {"hidden": [10**9]}}, "hidden must be"),
        ({"recipe": {"gamma": 1.5}}, "gamma must lie"),
        ({"low": (-1.0, -1.0), "high": (1.0, 1.0)}, "other networks"),
        ({"low": (1.0,), "high": (-1.0,)}, "bounds"),
    ],
)
def test_a_header_that_does_not_fit_is_a_typed_error(tmp_path, changes, words):
    path = tmp_path / "model.safetensors"
    SHER(limited(10), **QUICK).save(path)
    path.write_bytes(with_header(path, **changes))
    with pytest.raises(TensorFileError, match=words):
        load(path)


def test_altered_bytes_are_a_typed_error(tmp_path):
    """200 files with one byte or their length changed, drawn from one seed."""
    path = tmp_path / "model.safetensors"
    SHER(limited(10), batch=8, hidden=(4,), device="cpu").save(path)
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    (header,) = struct.unpack("<Q", whole[:8])
    assert b"sha256" in whole[8 : 8 + header]
    for trial in range(200):
        mutant = bytearray(whole)
        where = int(draw.integers(len(whole) if trial % 2 else 8 + header))
        mutant[where] ^= 1 << int(draw.integers(8))
        path.write_bytes(bytes(mutant) if trial % 5 else whole[:where])
        with pytest.raises(TensorFileError):
            load(path)


# -- what a run trained -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_policies_of_a_run_are_exported(tmp_path):
    config = Config(
        experiments=("walls", "fetch-reach"), replicas=2, cycles=1, episodes=2, updates=2, batch_size=8,
        test_episodes=2, hidden=(8,), exact=False, device="cpu",
    )  # fmt: skip
    run = Run.open(tmp_path / "run", config)
    loop.train(config, run)
    names = export.arms(config, run)
    assert names[:3] == ("fetch-reach/SHER", "fetch-reach/HER-noise", "walls/SHER/gap")
    for name in ("fetch-reach/HER-noise", "walls/SHER/twoway"):
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        export.export(config, run, name, folder)
        model = load(folder)
        experiment, key, *layout = name.split("/")
        learned = trained(config, run, experiment, key, *layout)
        now = learned.world.reset(1, 3, Streams([0]).generators)
        wanted = learned.agent.act(learned.agent.inputs(now["observation"], now["desired_goal"]), None)
        action, _ = model.predict({key: value[0].numpy() for key, value in now.items()})
        np.testing.assert_allclose(action, wanted[0].detach().numpy(), atol=1e-6)
        assert model.steps == 2 * learned.world.horizon
    with pytest.raises(InputError, match="no arm 'bits/hindsight'"):
        export.export(config, run, "bits/hindsight", tmp_path)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("discrete goals", r"'desired_goal' of Changed must be a Box of one dimension.*Discrete\(4\)"),
        ("discrete actions", r"actions must be real numbers.*Discrete\(3\)"),
        ("whole actions", r"actions must be real numbers.*int64"),
        ("actions in rows", r"a Box of one dimension as actions.*\(2, 1\)"),
        ("unbounded actions", "finite bounds"),
        ("pictures", "'observation' of Changed must be a Box of one dimension"),
        ("no goals", "has no goals"),
        ("sizes", "differ in size"),
        ("no reward", "has no compute_reward"),
        ("info", "an empty info .*factor"),
        ("dense", "not sparse .* 64 values"),
        ("upside down", "not sparse"),
        ("never", "not sparse .* 1 values"),
    ],
)
def test_environments_that_cannot_be_learned(fault, words):
    env = Changed(fault)
    with pytest.raises(InputError, match=words):
        SHER(env, horizon=8, **QUICK)
    assert env.unwrapped.pulls == []  # nothing was played


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("effort", "depends on more than the goals"),
        ("moving goal", "changes within an episode"),
        ("not finite", "finite"),
    ],
)
def test_what_only_a_step_shows(fault, words):
    env = Changed(fault)
    with pytest.raises(InputError, match=words):
        SHER(env, horizon=8, **QUICK).learn(100)
    assert len(env.unwrapped.pulls) <= 2


def test_a_dense_reward_can_be_insisted_on():
    model = SHER(Changed("dense"), horizon=8, rewards=(-1e5, 0.0), **QUICK).learn(16)
    assert model._world.rewards == (-1e5, 0.0)
    with pytest.raises(InputError, match="do not hold those of Changed"):
        SHER(Changed("dense"), horizon=8, rewards=(-1.0, 0.0), **QUICK)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: SHER(Trolley()), "no time limit"),
        (lambda: SHER(Trolley(), horizon=0), "horizon must be a whole number"),
        (lambda: SHER("CartPole-v1"), "has no goals"),
        (lambda: SHER("FetchReech-v4"), "did you mean .*FetchReach-v4"),
        (lambda: SHER(3), "its id, or a function that makes it"),
        (lambda: SHER(lambda: 3), "must return a gymnasium environment"),
        (lambda: SHER(limited(9), episodes=2), "cannot be copied"),
        (lambda: SHER(lambda: ONE, horizon=9, episodes=2), "a new environment with every call"),
        (lambda: SHER(gymnasium.make_vec("CartPole-v1", 2)), "its id, or a function"),
        (lambda: SHER(Trolley(), horizon=9, gama=0.9), "did you mean gamma"),
        (lambda: SHER(Trolley(), horizon=9, agent="her"), "no option 'agent'"),
        (lambda: SHER(Trolley(), horizon=9, hidden="wide"), "hidden"),
        (lambda: SHER(Trolley(), horizon=9, gamma=1.0), "gamma must lie"),
        (lambda: SHER(Trolley(), horizon=9, alpha=float("nan")), "alpha"),
        (lambda: SHER(Trolley(), horizon=9, k=float("inf")), "k must lie"),
        (lambda: SHER(Trolley(), horizon=9, updates=0), "updates must lie"),
        (lambda: SHER(Trolley(), horizon=9, seed=-1), "seed must be"),
        (lambda: SHER(Trolley(), horizon=9).learn(0), "steps must be"),
        (lambda: SHER(Trolley(), horizon=9).predict({"observation": np.zeros(2)}), "'desired_goal' is missing"),
        (lambda: SHER(Trolley(), horizon=9).predict(observation() | {"desired_goal": np.zeros(3)}), r"\(1,\) or"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()


# -- functions of goals -----------------------------------------------------------------------------------------------


def test_a_function_of_one_goal_is_asked_one_by_one():
    """One that takes only one goal, one that takes many but treats them as one matrix, one that takes many."""
    goals = np.random.default_rng(0).normal(size=(2, 20, 3))
    single = lambda a, d, info: float(np.linalg.norm(a - d) > 1)  # noqa: E731  one number for a matrix, too
    many = lambda a, d, info: (np.linalg.norm(a - d, axis=-1) > 1).astype(float)  # noqa: E731
    wanted = many(*goals, {})
    for function, together in ((single, False), (many, True)):
        of_goals = OfGoals(function, *goals)
        assert of_goals.together == together
        np.testing.assert_array_equal(of_goals(*goals), wanted)
    assert not GymWorld([limited(9, many=False)])._reward.together
    assert GymWorld([limited(9)])._reward.together


def test_a_recipe_is_what_the_options_say():
    model = SHER(limited(9), gamma=0.9, hidden=[8, 8], alpha=None, device="cpu")
    assert (model.recipe.gamma, model.recipe.hidden, model.arm.alpha) == (0.9, (8, 8), None)
    assert model.recipe.batch == TAKE_HOME.batch
    assert learner.ROUND == 50
