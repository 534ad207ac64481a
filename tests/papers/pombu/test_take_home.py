"""POMBU on environments that are not its own: spaces, bounds, endings, what is learned and what is refused."""

import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from papers.pombu.own_environments import QUICK, Ferry, Spaces, ferry_aground, ferry_pay, same

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.pombu import POMBU, load
from labkit.papers.pombu.method.algorithm import Header
from labkit.papers.pombu.method.environments import GymnasiumWorld
from labkit.papers.pombu.method.loop import Purpose
from labkit.tensor_files import TensorFileError

ROOT = Path(__file__).parents[3]


def a_model(env: object = None, **options: object) -> POMBU:
    return POMBU(Ferry() if env is None else env, device="cpu", horizon=30, **QUICK | options)


def state_of(model: POMBU) -> dict[str, torch.Tensor]:
    return dict(model._tensors())


# -- the environment's own units --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tall", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_actions_are_in_the_environments_bounds_shape_and_format(tall):
    env = Ferry(tall=tall)
    model = a_model(env, seed=1).learn(60, progress=False)
    forces = np.array(env.forces)
    assert len(forces) == model.steps >= 60
    assert forces.min(0).tolist() == [0, -5]  # a standard deviation of 1 reaches both ends: they are cut, not exceeded
    assert forces.max(0).tolist() == [40, 15]
    action, state = model.predict(env.reset(seed=0)[0])
    assert state is None
    assert env.action_space.contains(action)
    batch, _ = model.predict(np.zeros((7, 4)))
    assert batch.shape == (7, *env.action_space.shape)


def test_the_pendulum_gets_its_whole_torque_and_pays_for_it():
    """Pendulum-v1 from rest, hanging: what one step with full torque does to the speed, from its equations."""
    world = GymnasiumWorld(gymnasium.make("Pendulum-v1"), None, None, 1)
    played = world.play(lambda state: torch.full((1, 1, 1), 5.0), [3], 1)
    cos, sin, speed = played.state[0, 0, 0].tolist()
    after = played.next_state[0, 0, 0, 2].item()
    assert after == pytest.approx(speed + 0.05 * (15 * sin + 3 * 2.0), abs=1e-5)
    angle = np.arctan2(sin, cos)
    assert played.reward.item() == pytest.approx(-(angle**2 + 0.1 * speed**2 + 0.001 * 2.0**2), abs=1e-5)


def test_given_functions_get_the_environments_own_actions():
    given = []

    def pay(state, action, next_state):
        given.append(action)
        return ferry_pay(state, action, next_state)

    a_model(reward=pay, terminates=ferry_aground).learn(30, progress=False)
    actions = torch.cat([action.reshape(-1, 2) for action in given[1:]])
    assert actions.amin(0).tolist() == [0, -5]
    assert actions.amax(0).tolist() == [40, 15]


# -- endings ----------------------------------------------------------------------------------------------------------


def test_an_inverted_pendulum_that_fell_is_paid_no_more():
    """InvertedPendulum-v5 falls within some steps under a constant push; nothing is played or paid after that."""
    world = GymnasiumWorld(gymnasium.make("InvertedPendulum-v5"), None, None, 100)
    played = world.play(lambda state: torch.ones(1, 1, 1), [0], 3)
    length = played.length[0]
    assert (length < 30).all()
    assert played.terminated.all()
    assert torch.equal(played.reward.sum(-1)[0], length - 1.0)  # 1 a step, and 0 for the one that fell
    assert world.steps == int(length.sum())
    assert played.ends().sum() == 3


def test_time_that_is_up_is_no_end():
    """Truncation stops the episode and teaches no termination."""
    world = GymnasiumWorld(TimeLimit(gymnasium.make("Pendulum-v1"), 7), None, None, 20)
    played = world.play(lambda state: torch.zeros(1, 1, 1), [0], 2)
    assert played.length.tolist() == [[7, 7]]
    assert not played.terminated.any()
    assert played.played().sum() == 14
    outcome = world.task.outcomes(played)
    assert outcome.shape == (1, 2, 20, 5)  # state, reward, end
    assert (outcome[..., -1] == 0).all()


def test_the_horizon_is_the_environments_time_limit():
    """Registered or not; 200 at most."""
    for env, wanted in ((TimeLimit(Ferry(), 20), 20), (Ferry(), 200), ("Pendulum-v1", 200), ("Reacher-v5", 50)):
        assert POMBU(env, device="cpu", **QUICK)._header.settings.horizon == wanted


@pytest.mark.slow
def test_members_learn_the_reward_and_the_end():
    """The ferry after 60 episodes of random thrust: its members know what it pays, and often when it is over.

    Over 20 seeds .97 to .99 of the reward is explained; of 19 ends 10 to 17 are foreseen, and 0 to 5 that are none.
    """
    options = QUICK | {"episodes": 60, "model_hidden": (64, 64), "model_epochs": 400, "model_batch": 128}
    learner = POMBU(Ferry(), device="cpu", horizon=30, **options)._learner
    assert learner is not None
    learner.begin(0)
    learner.collect(0)
    learner.refresh()
    learner.learn_models(0)
    noise = torch.Generator().manual_seed(5)
    fresh = GymnasiumWorld(Ferry(), None, None, 30)
    played = fresh.play(lambda state: torch.randn(1, 1, 2, generator=noise), [99], 20)
    rows = played.played()
    with torch.no_grad():
        outcome = learner.ensemble(played.state[rows][None], played.action.clamp(-1, 1)[rows][None]).mean(1)[0]
    reward, ends = played.reward[rows], played.ends()[rows]
    predicted = outcome[:, 5] > 0.5
    assert 1 - (outcome[:, 4] - reward).var() / reward.var() > 0.8
    assert ends.sum() > 10  # 19 of 240 steps
    assert (predicted & ends).sum() >= 3
    assert (predicted & ~ends).sum() <= 24


def test_imagined_episodes_end_where_the_given_function_says():
    model = a_model(reward=ferry_pay, terminates=ferry_aground).learn(30, progress=False)
    learner = model._learner
    assert learner is not None
    batch, promised = learner.imagined(learner.streams(0, Purpose.IMAGINATION))
    assert batch.advantage.shape[1] < 8 * 30  # some ran aground, and what came after is not there
    assert (batch.state[0, :, 1].abs() <= 1).all()
    assert promised.item() < 30


def test_wrong_functions_are_told():
    def upside_down(state, action, next_state):
        return -ferry_pay(state, action, next_state)

    with pytest.warns(UserWarning, match="reward differs from what Ferry pays"):
        a_model(reward=upside_down).learn(1, progress=False)

    def always(state, action, next_state):
        return next_state[..., 0] < 10

    with pytest.warns(UserWarning, match="terminates says that"):
        GymnasiumWorld(Ferry(), None, always, 5).play(lambda state: torch.zeros(1, 1, 2), [0], 1)


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_seed_is_the_same_policy_and_predictions_leave_no_trace():
    first, second, other = (a_model(seed=seed) for seed in (3, 3, 4))
    first.predict(np.zeros(4), deterministic=False)
    for model in (first, second, other):
        model.learn(60, progress=False)
    assert same(state_of(first), state_of(second))
    assert not same(state_of(first), state_of(other))
    assert [row["steps"] for row in first.history] == [row["steps"] for row in second.history]
    mean, _ = first.predict(np.zeros(4))
    samples = np.array([first.predict(np.zeros(4), deterministic=False)[0] for _ in range(20)])
    assert np.array_equal(mean, first.predict(np.zeros(4))[0])
    assert len(np.unique(samples[:, 0])) > 10


@pytest.mark.slow
def test_it_learns_to_balance_a_pole_of_which_it_is_told_nothing():
    """The notebook's cell: from 24.5 steps to 51 to 143 over a dozen seeds."""
    env = gymnasium.make("InvertedPendulum-v5")
    model = POMBU(
        env, device="cpu", horizon=100, alpha=0.1, model_hidden=(64, 64), model_learning_rate=2e-3, model_batch=100,
        model_epochs=200, rollouts=40, updates=10, epochs=5, learning_rate=1e-3, lam=0.95, std_resets=1,
        exploration="policy",
    ).learn(500, progress=False)  # fmt: skip
    lengths = []
    for seed in range(10):
        observation, over, steps = env.reset(seed=1000 + seed)[0], False, 0
        while not over:
            observation, _, terminated, truncated, _ = env.step(model.predict(observation)[0])
            steps, over = steps + 1, terminated or truncated
        lengths.append(steps)
    assert np.mean(lengths) > 25


@pytest.mark.slow
def test_saved_and_loaded_goes_on_as_if_nothing_had_been(tmp_path):
    whole, half = a_model(seed=2), a_model(seed=2)
    half.learn(1, progress=False)
    half.save(tmp_path / "half.safetensors")
    while whole.iteration < 3:
        whole.learn(1, progress=False)
    again = POMBU.load(tmp_path / "half.safetensors", Ferry(), device="cpu")
    assert again.steps == half.steps
    while again.iteration < 3:
        again.learn(1, progress=False)
    assert same(state_of(again), state_of(whole))
    assert again.steps == whole.steps


def test_loaded_without_an_environment_it_predicts_and_can_be_saved_again(tmp_path):
    model = a_model().learn(30, progress=False)
    (tmp_path / "folder").mkdir()
    model.save(tmp_path / "folder" / "model.safetensors")
    policy = load(tmp_path / "folder", device="cpu")
    with pytest.raises(InputError, match="reads vectors"):
        policy.predict(Ferry().reset(seed=0)[0])
    for observation in (np.zeros(4), np.ones((3, 4))):
        assert np.array_equal(policy.predict(observation)[0], model.predict(observation)[0])
    with pytest.raises(InputError, match=r"no environment: POMBU.load\(path, env\)"):
        policy.learn(10)
    policy.save(tmp_path / "again.safetensors")
    again = POMBU.load(tmp_path / "again.safetensors", Ferry(), device="cpu")
    assert same(state_of(again), state_of(model))
    again.set_env(Ferry())  # and from one environment into the next
    assert same(state_of(again), state_of(model))


def test_nothing_learned_yet_is_saved_too(tmp_path):
    model = a_model()
    model.save(tmp_path / "new.safetensors")
    again = POMBU.load(tmp_path / "new.safetensors", Ferry(), device="cpu")
    assert same(state_of(model.learn(1, progress=False)), state_of(again.learn(1, progress=False)))


def test_stable_baselines3_evaluates_it():
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    model = POMBU("Pendulum-v1", device="cpu", horizon=20, **QUICK)
    mean, spread = evaluation.evaluate_policy(model, gymnasium.make("Pendulum-v1"), n_eval_episodes=2, warn=False)
    assert -2000 < mean < 0
    assert spread >= 0


# -- what is refused --------------------------------------------------------------------------------------------------

FUNCTIONS = {"reward": lambda s, a, n: n.sum(), "terminates": lambda s, a, n: n[..., 0]}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: POMBU("CartPole-v1"), "actions must be real numbers .* CartPole-v1 has Discrete"),
        (lambda: POMBU(Spaces(action=spaces.MultiBinary(3))), "actions must be real numbers"),
        (lambda: POMBU(Spaces(action=spaces.Box(0, 5, (2,), np.int64))), "actions must be real numbers"),
        (lambda: POMBU(Spaces(action=spaces.Box(-np.inf, np.inf, (2,)))), "finite bounds.*RescaleAction"),
        (lambda: POMBU(Spaces(action=spaces.Box(1, 1, (2,)))), "low below high"),
        (lambda: POMBU(Spaces(spaces.Box(0, 255, (8, 8, 3), np.uint8))), "vectors of real numbers.*ObservationWrapper"),
        (lambda: POMBU(Spaces(spaces.Discrete(4))), "vectors of real numbers"),
        (lambda: POMBU(Spaces(spaces.Dict({"a": spaces.Discrete(3)}))), "vectors of real numbers"),
        (lambda: POMBU("Ferry-v0"), "gymnasium makes no environment 'Ferry-v0'"),
        (lambda: POMBU(Ferry), "must be a gymnasium environment or the id of one; got type"),
        (lambda: POMBU(gymnasium.make_vec("Pendulum-v1", 2)), "vector of environments"),
        (lambda: a_model(reward=FUNCTIONS["reward"]), r"reward\(state, action, next_state\).*of shape \(\)"),
        (lambda: a_model(terminates=FUNCTIONS["terminates"]), "must return True or False"),
        (lambda: a_model(terminates=True), "terminates must be a function, False"),
        (lambda: a_model(alpa=1), "no option 'alpa'; did you mean alpha"),
        (lambda: a_model(alpha=-1), "alpha: .*greater than or equal to 0; got -1"),
        (lambda: a_model(alpha=float("inf")), "alpha: .*finite"),
        (lambda: a_model(rollouts=10**12), "rollouts: .*less than or equal to"),
        (lambda: a_model(model_hidden=(0,)), "model_hidden.0: "),
        (lambda: a_model(iterations=3), r"'iterations' is no option here: learn\(steps\) says how long"),
        (lambda: a_model(compiled=True), "'compiled' is no option here"),
        (lambda: POMBU(Ferry(), horizon=1), "horizon: "),
        (lambda: a_model(seed=-1), "seed must be"),
        (lambda: a_model().learn(0), "steps must be a whole number of at least 1"),
        (lambda: a_model().predict(np.zeros(3)), r"shape \(4,\) or \(batch, 4\); got \(3,\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_by_name(call, words):
    with pytest.raises(InputError, match=words):
        call()


class Broken(Ferry):
    """Pays, or shows, what is no number."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def step(self, action):
        observation, reward, *rest = super().step(action)
        if self.what == "reward":
            return observation, float("nan"), *rest
        return {**observation, "speed": np.full(2, np.inf)}, reward, *rest


@pytest.mark.parametrize(("what", "words"), [("reward", "reward that is not a finite"), ("state", "not finite")])
def test_numbers_that_are_none_are_told_and_not_learned_from(what, words):
    model = a_model(Broken(what))
    before = state_of(model)
    before = {name: value.clone() for name, value in before.items()}
    with pytest.raises(InputError, match=words):
        model.learn(10)
    assert same(state_of(model), before)


@pytest.mark.slow
def test_another_environment_or_another_function_is_refused(tmp_path):
    model = a_model(reward=ferry_pay).learn(1, progress=False)
    path = tmp_path / "model.safetensors"
    model.save(path)
    with pytest.raises(InputError, match="reward was given when this was learned, and is learnt now"):
        POMBU.load(path, Ferry())
    with pytest.raises(InputError, match=r"terminates was learnt .* is never now"):
        POMBU.load(path, Ferry(), ferry_pay, False)
    with pytest.raises(InputError, match="observations of 3 numbers"):
        POMBU.load(path, "Pendulum-v1")
    assert POMBU.load(path, Ferry(), ferry_pay).learn(1, progress=False).iteration == 2


# -- files ------------------------------------------------------------------------------------------------------------


def lie(path: Path, tensors: dict[str, torch.Tensor], header: Header, **changes: object) -> Path:
    """A file with a right checksum and a wrong content."""
    settings = {name: value for name, value in changes.items() if name in type(header.settings).model_fields}
    own = {name: value for name, value in changes.items() if name not in settings}
    new = header.model_copy(update={**own, "settings": header.settings.model_copy(update=settings)})
    tensor_files.write(path, tensors, new)
    return path


def test_a_file_that_lies_is_refused(tmp_path):
    model = a_model().learn(1, progress=False)
    header, tensors, path = model._now(), state_of(model), tmp_path / "file"
    for changes in ({"policy_hidden": (10_000, 8)}, {"low": (0.0,) * 3}, {"low": (40.0, 15.0)}, {"shape": (7,)},
                    {"steps": -1}, {"dtype": "object"}, {"reward": "bought"}, {"members": 1}):  # fmt: skip
        with pytest.raises(TensorFileError):
            POMBU.load(lie(path, tensors, header, **changes), Ferry(), device="cpu")
    for changes in ({"model_hidden": (16_000, 16)}, {"members": 1000}, {"reward": "never"}):
        with pytest.raises(InputError):
            POMBU.load(lie(path, tensors, header, **changes), Ferry(), device="cpu")
    wrong = {
        "experience/rows/state": tensors["experience/rows/state"][:, :-1],
        "experience/splits/train": tensors["experience/splits/train"] + 10_000,
        "experience/splits/trajectories": tensors["experience/splits/trajectories"] * 10**6,
        "experience/statistics/state/mean": torch.zeros(1, 7, dtype=torch.float64),
        "experience/starts": torch.zeros(2, 2),
        "policy/log_std": torch.zeros(1, 1, 9),
        "policy/state_mean": torch.zeros(4),
        "ensemble/net.layers.0.direction": torch.zeros(2, 6, 17),
        "critics/value_net.layers.1.weight": torch.zeros(1, 8, 9),
    }  # fmt: skip
    for name, value in wrong.items():
        assert name in tensors, name
        for content in (tensors | {name: value}, {key: x for key, x in tensors.items() if key != name}):
            tensor_files.write(path, content, header)
            with pytest.raises(TensorFileError):
                POMBU.load(path, Ferry(), device="cpu")


# -- the lines on the page --------------------------------------------------------------------------------------------


def test_the_lines_in_the_notebook(tmp_path, monkeypatch):
    """With the ferry as the reader's environment; at most ten lines."""
    page = (ROOT / "notebooks" / "04_pombu.py").read_text()
    block = re.search(r"```python\n(.*?)```", page[page.index("\n# ## 10") :], re.DOTALL)
    assert block is not None
    lines = [line.removeprefix("# ").removeprefix("#") for line in block[1].rstrip().removesuffix("#").splitlines()]
    assert len([line for line in lines if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    first = POMBU.__init__

    def quickly(self, env, *args, **options):
        first(self, env, *args, **QUICK | {"device": "cpu", "horizon": 30} | options)

    monkeypatch.setattr(POMBU, "__init__", quickly)
    monkeypatch.setattr(POMBU, "learn", lambda self, steps, learn=POMBU.learn: learn(self, 1, progress=False))
    names = {"my_env": Ferry(), "my_reward": ferry_pay, "my_end": ferry_aground}
    exec("\n".join(lines), names)
    assert isinstance(names["model"], POMBU)
    assert names["model"].steps > 0
