"""The whole loop on the pendulum: finite, learning models, the same when killed; every switch changes something."""

import json
import random

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from labkit.errors import InputError
from labkit.papers.pombu.experiment import baselines, worlds
from labkit.papers.pombu.method.ensemble import DynamicsEnsemble
from labkit.papers.pombu.method.loop import Experience, Learner, LoopConfig, arm_alpha, run_loop
from labkit.rl.streams import Streams
from labkit.seeds import derive
from labkit.workbench.runs import Run

TINY = {
    "environment": "pendulum", "iterations": 2, "episodes": 2, "horizon": 20, "updates": 2, "rollouts": 16, "epochs": 2,
    "batch_size": 64, "members": 2, "model_hidden": (32, 32), "policy_hidden": (16, 16), "model_batch": 16,
    "model_epochs": 20, "model_learning_rate": 2e-3, "learning_rate": 1e-3, "evaluations": 2,
}  # fmt: skip


def tiny(**changes: object) -> LoopConfig:
    return LoopConfig.model_validate(TINY | changes)


def new_run(tmp_path, config: LoopConfig, name: str = "run", **options: object) -> Run:
    return Run.open(tmp_path / name, config, **options)


def test_two_iterations_are_finite_and_the_models_learn(tmp_path):
    config = tiny(arms=("pombu", "meppo"), replicas=2)
    found = run_loop(config, new_run(tmp_path, config))
    assert found["steps"] == [40, 80]
    for arm in config.arms:
        for name, lanes in found["arms"][arm].items():
            assert len(lanes) == 2, name
            assert all(len(lane) == 2 for lane in lanes)
            assert torch.isfinite(torch.tensor(lanes)).all(), name
        assert all(lane[1] < lane[0] < 0.2 for lane in found["arms"][arm]["validation_error"])
        assert all(-20 * 20 < value <= 0 for lane in found["arms"][arm]["stochastic_return"] for value in lane)
    assert found["arms"]["meppo"]["alpha"] == [[0.0, 0.0]] * 2
    # the first episodes are by one policy: the arms of a replica share its luck
    first = [[lane[0] for lane in found["arms"][arm]["collected_return"]] for arm in config.arms]
    assert first[0] == first[1]
    assert first[0][0] != first[0][1]


def test_what_is_logged_says_why_a_policy_stands_still(tmp_path):
    """The dead zone grows with alpha and is empty at 0; sqrt(U) is in the unit of A, and raw."""
    config = tiny(arms=("meppo", "alpha-200", "alpha-1e6"), iterations=1, u_scaling="official", updates=3)
    learner = Learner(config, torch.device("cpu"))
    learner.begin(0)
    learner.collect(0)
    learner.refresh()
    learner.learn_models(0)
    batches, real = [], learner.imagined
    learner.imagined = lambda streams: (batches.append(real(streams)), batches[-1])[1]
    found = learner.improve_policy(0)
    none, some, everything = found["dead_zone"].tolist()
    assert none == 0 < 0.1 < some < 0.9
    assert everything == 1  # even where models agree: U is kept at 1e-8 at least
    by_hand = [(b.advantage.abs() < a[:, None] * b.sqrt_u).float().mean(1)
               for a in [torch.tensor([0.0, 200.0, 1e6])] for b, _ in batches]  # fmt: skip
    assert len(batches) == 3
    torch.testing.assert_close(found["dead_zone"], torch.stack(by_hand).mean(0))
    torch.testing.assert_close(found["sqrt_u"], torch.stack([b.sqrt_u.mean(1) for b, _ in batches]).mean(0))
    # official scaling leaves U as it is: the two differ by the bounds of U only
    torch.testing.assert_close(found["sqrt_u"], found["sqrt_u_raw"], rtol=0.02, atol=1e-3)
    assert found["kl"][2] < found["kl"][0]


def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path):
    config = tiny(arms=("pombu",), replicas=2, iterations=3)
    whole = run_loop(config, new_run(tmp_path, config, "whole"))

    def kill(iteration: int) -> None:
        if iteration == 1:
            raise KeyboardInterrupt

    killed = new_run(tmp_path, config, "killed", checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        run_loop(config, killed, on_iteration=kill)
    assert killed.result is None
    again = new_run(tmp_path, config, "killed")
    assert run_loop(config, again) == whole
    assert [line["step"] for line in again.metrics()] == [0, 0, 1, 1, 2, 2]
    assert run_loop(config, again) == whole  # finished: read, not run


SHORT = {"horizon": 8, "rollouts": 8, "batch_size": 32, "model_epochs": 10}


@pytest.fixture(scope="module")
def plain_result(tmp_path_factory):
    config = tiny(**SHORT)
    return run_loop(config, new_run(tmp_path_factory.mktemp("plain"), config))


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 3.0}, {"u_scaling": "paper"}, {"exploration": "policy"}, {"bessel": True},
        {"objective": "p_improve_ppo"}, {"objective": "p_improve_ppo2"}, {"lam": 0.5}, {"beta": 0.0}, {"seed": 1},
        {"improver": "trpo"}, {"observation_noise": 0.1}, {"action_noise": 0.1}, {"std_resets": 0},
        {"reinitialise_every": 1},
    ],
)  # fmt: skip
def test_every_switch_changes_what_comes_out(tmp_path, plain_result, changes):
    other = tiny(**SHORT | changes)
    base = plain_result["arms"]["pombu"]
    found = run_loop(other, new_run(tmp_path, other, "b"))["arms"]["pombu"]
    assert json.dumps(base) != json.dumps(found)
    assert torch.isfinite(torch.tensor(found["stochastic_return"])).all()


@pytest.mark.parametrize("name", [name for name, task in worlds.TASKS.items() if task.gym])
def test_the_papers_networks_on_every_task(tmp_path, name):
    """The full configuration's shapes, with few and short episodes; noise on both sides."""
    few = {"iterations": 2, "episodes": 2, "horizon": 5, "updates": 1, "rollouts": 4, "epochs": 1, "batch_size": 10}
    config = LoopConfig(
        environment=name, arms=("pombu", "meppo"), model_epochs=2, evaluations=1, observation_noise=0.1,
        action_noise=0.1, **few,
    )  # fmt: skip
    found = run_loop(config, new_run(tmp_path, config))
    for arm in config.arms:
        assert torch.isfinite(torch.tensor([found["arms"][arm][n] for n in found["arms"][arm]])).all()


def test_models_start_anew_when_it_is_time(tmp_path):
    config = tiny(reinitialise_every=2)
    learner = Learner(config, torch.device("cpu"))
    weights = []
    for iteration in range(3):
        learner.begin(iteration)
        learner.collect(iteration)
        learner.refresh()
        before = learner.ensemble.net.layers[0].direction.detach().clone()
        started = []
        real = learner.ensemble.initialise
        learner.ensemble.initialise = lambda seeds, real=real, s=started: (s.append(seeds), real(seeds))[1]
        learner.learn_models(iteration)
        learner.ensemble.initialise = real
        weights.append((before, bool(started)))
        learner.improve_policy(iteration)
    assert [fresh for _, fresh in weights] == [True, False, True]
    assert learner.experience.splits.rows == 3 * 2 * 20


def test_log_std_is_reset_in_the_first_iterations_only():
    learner = Learner(tiny(std_resets=2), torch.device("cpu"))
    for iteration, kept in ((0, False), (1, False), (2, True)):
        with torch.no_grad():
            learner.policy.log_std.fill_(-0.5)
        learner.begin(iteration)
        assert bool((learner.policy.log_std == -0.5).all()) == kept
    rates = []
    for iteration in (0, 55, 109, 200):
        learner.begin(iteration)
        rates.append(learner.judge.optimizer.param_groups[0]["lr"] / 1e-3)
    assert rates == pytest.approx([1.0, 0.5, 1 / 110, 1 / 110])


def test_the_return_scale_is_the_spread_of_returns_to_go():
    task = worlds.TASKS["pendulum"]
    experience = Experience(task, 1, 2, gamma=0.5)
    reward = torch.tensor([[[1.0, 2.0, 4.0], [0.0, 0.0, 8.0]]])
    state = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    played = worlds.Played(state, torch.full((1, 2, 3, 1), 7.0), state + 1, reward)
    experience.add(played, torch.Generator().manual_seed(0))
    to_go = torch.tensor([3.0, 4.0, 4.0, 2.0, 4.0, 8.0])  # 1 + 2/2 + 4/4, 2 + 4/2, ...
    assert experience.reward_scale().item() == pytest.approx(to_go.std(correction=0).item(), rel=1e-5)
    assert (experience.rows["action"] == 1).all()  # what the simulator makes of 7
    assert torch.equal(experience.starts, state[:, :, 0])
    mean, std, change, spread = experience.model_statistics()
    torch.testing.assert_close(mean[0, :3], state.flatten(0, 2).mean(0))
    torch.testing.assert_close(change, torch.ones(1, 3))
    assert (spread >= 1e-3).all()
    assert std[0, 3].item() == pytest.approx(1e-3)


def test_lanes_and_arms():
    config = tiny(arms=("pombu", "alpha-0.25"), replicas=2, seed=3, alpha=0.75)
    assert config.lanes == [("pombu", 0), ("pombu", 1), ("alpha-0.25", 0), ("alpha-0.25", 1)]
    assert config.seeds == [derive(3, 0), derive(3, 1)] * 2
    assert [arm_alpha(arm, 0.75) for arm in ("pombu", "meppo", "alpha-0.25")] == [0.75, 0.0, 0.25]
    assert LoopConfig.of(config, alpha=0.1).alpha == 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"environment": "humanoid"}, "there is no task"),
        ({"arms": ("alpha-x",)}, "an arm is"),
        ({"arms": ("alpha--1",)}, "an arm is"),
        ({"arms": ()}, "at least one arm"),
        ({"batch_size": 10_000}, "imagined transitions"),
        ({"members": 1}, "greater than or equal to 2"),
        ({"alpha": -0.1}, "greater than or equal to 0"),
        ({"learning_rates": 1.0}, "Extra inputs"),
    ],
)
def test_bad_settings_are_refused(changes, words):
    with pytest.raises((ValidationError, InputError), match=words):
        tiny(**changes)


# -- rivals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["pombu", "pombu-scaled", "meppo", "me-trpo", "ppo", "sac", "mbpo"])
def test_every_rival_plays_the_same_task_for_as_many_steps(tmp_path, algorithm):
    before_all = random.getstate(), np.random.get_state()[1].tolist()
    config = tiny(**SHORT, mbpo_updates=1, mbpo_rollouts=16, mbpo_keep=20)
    run = new_run(tmp_path, config)
    before = torch.get_rng_state()
    found = baselines.run_algorithm(algorithm, config, run)
    assert torch.equal(before, torch.get_rng_state())
    if algorithm not in baselines.IN_LOOP:  # TensorBoard's writer draws from Python's generator
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before_all
    assert found["steps"] == [16, 32]
    for name in ("stochastic_return", "mean_return"):
        assert len(found[name]) == 1
        assert len(found[name][0]) == 2
        assert all(-8 * 20 < value <= 0 for value in found[name][0])
    again = baselines.run_algorithm(algorithm, config, Run.open(tmp_path / "run", config))
    assert again == found


def test_rollouts_grow_by_the_schedule():
    """k_min up to the first epoch, k_max from the last one on, whole numbers in between; an epoch is 1000 steps."""
    schedule = (20, 100, 1, 25)
    assert [baselines.rollout_length(1000 * epoch, schedule) for epoch in (0, 20, 23, 24, 60, 99, 100, 500)] == [
        1, 1, 1, 2, 13, 24, 25, 25,
    ]  # fmt: skip
    assert baselines.rollout_length(23_999, schedule) == 1
    assert {baselines.rollout_length(1000 * epoch, baselines.ONE_STEP) for epoch in range(0, 300, 10)} == {1}
    assert set(baselines.SCHEDULES) <= set(worlds.TASKS)


class Recorder:
    """In SAC's place: actions of 3, which count as 1; keeps what is put into the buffer."""

    def __init__(self) -> None:
        self.actor = self.replay_buffer = self
        self.rows: list[list[np.ndarray]] = []

    def action_log_prob(self, state: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.full((len(state), 1), 3.0), None

    def add(self, *rows: np.ndarray) -> None:
        self.rows.append(list(rows))


def model_rollouts(gaussian: bool) -> tuple[Recorder, DynamicsEnsemble, Experience]:
    """400 rollouts of three steps by two members; those with a variance are equal."""
    models = DynamicsEnsemble(1, 2, 3, 1, (8,), learned_variance=gaussian, seeds=[0]).requires_grad_(False)
    if gaussian:
        for value in models.parameters():
            value[1:] = value[:1]
    experience = Experience(worlds.TASKS["pendulum"], 1, 2, 0.99)
    experience.rows["state"] = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(0))
    sac = Recorder()
    baselines._add_model_steps(sac, models, experience, Streams([1]), 400, 3)
    return sac, models, experience


@pytest.mark.parametrize("gaussian", [True, False])
def test_model_rollouts_go_on_from_where_a_member_led(gaussian):
    sac, models, experience = model_rollouts(gaussian)
    assert len(sac.rows) == 3
    known = {tuple(row) for row in experience.rows["state"][0].tolist()}
    assert {tuple(row) for row in sac.rows[0][0].tolist()} == known  # the first steps begin in real states
    assert np.array_equal(sac.rows[1][0], sac.rows[0][1])
    assert np.array_equal(sac.rows[2][0], sac.rows[1][1])
    for state, after, action, paid, done, _ in sac.rows:
        assert (action == 1).all()
        assert not done.any()
        now = torch.tensor(state), torch.tensor(action)
        assert paid == pytest.approx(experience.task.reward(*now).numpy())
        expected, spread = (x[0].numpy() for x in models.outcome(*(x[None] for x in now)))
        if gaussian:
            drawn = (after - expected[0]) / spread[0]
            assert drawn.mean() == pytest.approx(0, abs=0.1)  # 1,200 numbers from N(0, 1)
            assert drawn.std() == pytest.approx(1, abs=0.07)
        else:
            off = np.abs(after - expected).max(-1)  # (members, rollouts)
            assert off.min(0).max() < 1e-5
            assert 0.4 < (off.argmin(0) == 0).mean() < 0.6  # both members move


def test_model_data_are_kept_when_rollouts_grow(tmp_path):
    from stable_baselines3 import SAC

    config = tiny(**SHORT, mbpo_rollouts=3, mbpo_keep=4)
    sac = SAC("MlpPolicy", baselines._environment(config), seed=0, device="cpu")
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


def test_mbpos_schedule_changes_what_comes_out(tmp_path):
    found = []
    for name, more in (("as it is", {}), ("changed", {"mbpo_schedule": (0, 1, 3, 3)})):
        config = tiny(**SHORT, mbpo_updates=1, mbpo_rollouts=16, mbpo_keep=20, **more)
        found.append(baselines.run_algorithm("mbpo", config, new_run(tmp_path, config, name)))
    assert found[0] != found[1]


def test_the_scaled_variant_differs_in_its_scaling_only():
    config = tiny(u_scaling="official", alpha=0.7)
    plain, scaled = (baselines.config_for(name, config) for name in ("pombu", "pombu-scaled"))
    assert (plain.u_scaling, scaled.u_scaling) == ("official", "paper")
    assert scaled.model_copy(update={"u_scaling": "official"}) == plain
    assert baselines.config_for("pombu", tiny(u_scaling="paper")).u_scaling == "paper"


def test_an_unknown_rival_is_refused(tmp_path):
    config = tiny()
    with pytest.raises(InputError, match="there is no algorithm 'td3'"):
        baselines.run_algorithm("td3", config, new_run(tmp_path, config))
    with pytest.raises(InputError, match="the loop runs"):
        baselines.config_for("sac", config)
