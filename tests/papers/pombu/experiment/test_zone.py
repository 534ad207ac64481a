"""The Zone task and the phase of improvement: the world, what copies share, the controls, the effect itself."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.experiment import offline, zone
from labkit.papers.pombu.experiment.config import CONFIGS, ZONE_STUDIES
from labkit.papers.pombu.experiment.evaluate import summarize_zone
from labkit.papers.pombu.experiment.offline import Arms, Referee, Setting, TimedValue
from labkit.papers.pombu.experiment.point import FakeEnsemble, Point
from labkit.papers.pombu.experiment.zone import Zone
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.rl.streams import Streams
from labkit.workbench.runs import Run

QUICK = Setting(clone_steps=150, model_steps=100, updates=3, rollouts=8, prefit=20, value_steps=3, evaluations=20)
TASK = Zone()


# -- the world --------------------------------------------------------------------------------------------------------


def test_steering_is_plain_on_the_right_and_turned_on_the_left():
    right, left = torch.tensor([[1.0, 0.3]]), torch.tensor([[-1.0, 0.3]])
    action = torch.tensor([[0.6, -0.2]])
    torch.testing.assert_close(TASK.step(right, action), right + 0.1 * action, rtol=0, atol=1e-6)
    angle = 2.2 * (1 + math.sin(6 * 0.3 - 2))  # phi at (-1, .3); the sigmoid is 1 there
    turned = torch.tensor(
        [[0.6 * math.cos(angle) + 0.2 * math.sin(angle), 0.6 * math.sin(angle) - 0.2 * math.cos(angle)]]
    )
    torch.testing.assert_close(TASK.step(left, action), left + 0.1 * turned, rtol=1e-5, atol=1e-6)
    assert TASK.step(left, 5 * action).sub(left).norm() <= 0.1 * math.sqrt(2) + 1e-6  # actions count within [-1, 1]


def test_the_controller_goes_straight_home_on_both_sides():
    for x, pull in ((1.0, 0.9), (-1.0, 1.0)):
        state = torch.tensor([[x, 0.4]])
        after = TASK.step(state, TASK.controller(state))
        home = -state / (state.norm() + 0.1)
        torch.testing.assert_close((after - state) / 0.1, pull * home, rtol=1e-4, atol=1e-5)


def test_noise_is_larger_on_the_left():
    noise = torch.ones(2, 2)
    state, still = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.zeros(2, 2)
    moved = TASK.step(state, still, noise) - TASK.step(state, still)
    torch.testing.assert_close(moved, torch.tensor([[0.05, 0.05], [0.01, 0.01]]))


def test_starts_are_half_left_and_recorded_ones_as_asked():
    streams = Streams([0, 1])
    assert (TASK.starts(streams, 100)[..., 0] < 0).float().mean() == 0.5
    assert (TASK.data_starts(streams, 8)[..., 0] < 0).sum(1).tolist() == [1, 1]
    assert (replace(TASK, left=8).data_starts(streams, 32)[..., 0] < 0).sum(1).tolist() == [8, 8]
    with pytest.raises(InputError, match="between 0 and all can start on the left"):
        replace(TASK, left=9).data_starts(streams, 8)


def test_reward_is_the_distance_in_its_unit():
    here = torch.tensor([[3.0, 4.0]])
    assert float(TASK.reward(here, here, here)) == -5
    assert float(replace(TASK, unit=10.0).reward(here, here, here)) == -50


def test_point_task_and_its_fake_ensemble():
    task, state = Point(), torch.full((1, 4000, 3), 0.5)
    action = torch.tensor([2.0, -0.5, 0.0]).expand(1, 4000, 3)
    truth = task.step(state, action, torch.ones(1, 4000, 3))
    torch.testing.assert_close(truth[0, 0], torch.tensor([0.6, 0.45, 0.5]))
    assert float(task.reward(state, action, truth)[0, 0]) == pytest.approx(-float(truth[0, 0].norm()))
    models = FakeEnsemble(task, 0.02, 5, torch.Generator().manual_seed(0))
    first, second = models(state, action), models(state, action)
    assert first.shape == (1, 5, 4000, 3)
    assert not torch.equal(first, second)  # fresh at every step
    errors = first - truth[:, None]
    assert float(errors.std()) == pytest.approx(0.02, rel=0.05)
    assert abs(float(torch.corrcoef(errors[0, :2, :, 0])[0, 1])) < 0.1  # members are independent


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_arms_of_a_seed_share_everything_but_the_penalty(tmp_path, double_precision):
    """Two copies of one seed with equal alpha are equal; another alpha moves away."""
    config = CONFIGS["smoke"]
    seeds = (5, 6)
    prepared = offline.prepare(TASK, QUICK, seeds)
    names = ("alpha-1", "alpha-1.0", "alpha-3")
    arms = Arms(names, 2)
    actual = offline.improve(TASK, prepared, arms, QUICK, seeds, Run.open(tmp_path, config))
    left = actual.history["left"].view(-1, 3, 2)
    torch.testing.assert_close(left[:, 0], left[:, 1], rtol=0, atol=1e-8)
    torch.testing.assert_close(left[0, 0], left[0, 2], rtol=0, atol=1e-8)
    assert (left[-1, 0] - left[-1, 2]).abs().min() > 1e-4
    assert (left[:, 0, 0] - left[:, 0, 1]).abs().min() > 1e-4
    assert actual.history["policy/log_std"].shape[:2] == (2, 3)  # before the first update, after the last; first seed


def test_a_seed_does_not_depend_on_its_neighbours(double_precision):
    """Cloning, data and the referee come from a stream of the seed's own."""
    together, alone = (offline.streams_for(seeds, offline.Purpose.DATA) for seeds in ((3, 4), (4,)))
    both, one = (offline.clone_controller(TASK, QUICK, streams) for streams in (together, alone))
    torch.testing.assert_close(both.mean.layers[1].weight[1], one.mean.layers[1].weight[0], rtol=1e-7, atol=1e-9)
    rows_both, rows_one = (
        offline.record_episodes(TASK, policy, QUICK, streams)[0] for policy, streams in ((both, together), (one, alone))
    )
    torch.testing.assert_close(rows_both[1], rows_one[0], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_studies_of_one_world_share_its_models():
    other = replace(QUICK, u_scaling="official", updates=7, prefit=1)
    assert offline.prepare(TASK, QUICK, (5, 6)) is offline.prepare(TASK, other, (5, 6))
    assert offline.prepare(TASK, QUICK, (5, 6)) is not offline.prepare(TASK, replace(QUICK, action_noise=0.1), (5, 6))


def test_recorded_transitions_are_the_world_s():
    streams = Streams([0])
    policy = offline.clone_controller(TASK, QUICK, streams)
    quiet = replace(TASK, noise_left=0.0, noise_right=0.0)
    states, actions, after = offline.record_episodes(quiet, policy, QUICK, streams)
    assert states.shape == (1, 160, 2)
    torch.testing.assert_close(after, quiet.step(states, actions), rtol=1e-5, atol=1e-6)
    noisy = replace(QUICK, observation_noise=0.1)
    states, actions, after = offline.record_episodes(quiet, policy, noisy, streams)
    off = (after - quiet.step(states, actions)).std()
    assert 0.1 < float(off) < 0.25  # two noisy looks at every step
    torch.testing.assert_close(after[0, :19], states[0, 1:20])  # the next observation is the one that is acted on


def test_models_shared_by_arms_see_every_copy_s_own_rows():
    prepared = offline.prepare(TASK, QUICK, (5, 6))
    generator = torch.Generator().manual_seed(0)
    state, action = (torch.rand(6, 4, 2, generator=generator) - 0.5 for _ in range(2))
    actual = offline.shared_by_arms(prepared.ensemble, 2)(state, action)
    assert actual.shape == (6, 5, 4, 2)
    for arm in range(3):
        rows = slice(2 * arm, 2 * arm + 2)
        torch.testing.assert_close(actual[rows], prepared.ensemble(state[rows], action[rows]))


def test_referee_is_the_world_with_the_same_luck_for_all():
    """A policy without noise in a world without noise: returns by hand."""
    quiet = replace(TASK, noise_left=0.0, noise_right=0.0)
    policy = GaussianPolicy(2, 2, (4, 4), [0])
    policy.log_std.data.fill_(-30.0)
    for value in policy.mean.parameters():
        value.data.zero_()
    referee = Referee(quiet, QUICK, (0,))
    wanted = -20 * referee.start[0].norm(dim=-1)  # it never moves
    torch.testing.assert_close(referee.returns(policy)[0], wanted, rtol=1e-4, atol=1e-4)
    twice = referee.returns(offline.repeat_policy(policy, 3))
    assert torch.equal(twice[0], twice[2])


def test_timed_value_is_0_after_the_end_and_learns_returns():
    value = TimedValue(2, TASK, 16, [torch.Generator().manual_seed(k) for k in range(2)])
    state = torch.rand(2, 5, 2)
    assert float(value.value(state, 20).abs().max()) == 0
    assert not torch.equal(value.value(state, 0), value.value(state, 10))
    prepared = offline.prepare(TASK, QUICK, (5, 6))
    first = offline.first_value(TASK, replace(QUICK, prefit=200), prepared.policy, prepared.ensemble, (5, 6))
    rollout = offline.roll_out(TASK, QUICK, prepared.policy, prepared.ensemble, first, Streams([1, 2]), 16)
    returns = offline.returns_of(rollout, TASK.gamma)
    explained = 1 - (rollout.value - returns).var() / returns.var()
    assert float(explained) > 0.8  # .942 +- .018 over 20 seeds


# -- the controls -----------------------------------------------------------------------------------------------------


def check_shuffle(shuffle: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    """`shuffle(sqrt_u, generator)`, (copies, samples): the control that keeps a copy's values, not their places."""
    generator = torch.Generator().manual_seed(0)
    sqrt_u = torch.rand(3, 400, generator=generator) + torch.tensor([[0.0], [1.0], [2.0]])
    kept = sqrt_u.clone()
    first, second = shuffle(sqrt_u, generator), shuffle(sqrt_u, generator)
    assert torch.equal(sqrt_u, kept), "the uncertainty itself must stay as it is: return a new tensor"
    assert first.shape == sqrt_u.shape, f"wanted shape {tuple(sqrt_u.shape)}, got {tuple(first.shape)}"
    assert torch.equal(first.sort(-1).values, sqrt_u.sort(-1).values), (
        "each copy must keep exactly its own values: the same average penalty, or the control is no control"
    )
    for copy in range(3):
        correlation = float(torch.corrcoef(torch.stack([first[copy], sqrt_u[copy]]))[0, 1])
        assert abs(correlation) < 0.2, f"a value still stands near its place: correlation {correlation:.2f}"
    assert not torch.equal(first, second), "draw anew in every call: the generator is there to be used"


def test_shuffled_keeps_values_and_forgets_places():
    check_shuffle(lambda sqrt_u, generator: offline.shuffled(sqrt_u, _streams(generator, len(sqrt_u))))


def _streams(generator, copies):
    return Streams([int(torch.randint(2**30, (1,), generator=generator)) for _ in range(copies)])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda sqrt_u, generator: sqrt_u,
        lambda sqrt_u, generator: offline.averaged(sqrt_u),
        lambda sqrt_u, generator: sqrt_u.flatten()[torch.randperm(sqrt_u.numel(), generator=generator)].view_as(sqrt_u),
        lambda sqrt_u, generator: sqrt_u.flip(-1),
        lambda sqrt_u, generator: offline.shuffled(sqrt_u, Streams([0, 1, 2])),
    ],
)
def test_wrong_controls_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_shuffle(wrong)


def test_each_arm_gets_its_own_penalty():
    arms = Arms(("alpha-2", "shuffled-2", "constant-2"), 2)
    assert arms.alpha.tolist() == [2.0] * 6
    sqrt_u = torch.rand(6, 50)
    got = arms.penalties(sqrt_u, Streams(range(6)))
    assert torch.equal(got[:2], sqrt_u[:2])
    assert not torch.equal(got[2:4], sqrt_u[2:4])
    assert torch.equal(got[2:4].sort(1).values, sqrt_u[2:4].sort(1).values)
    torch.testing.assert_close(got[4:], sqrt_u[4:].mean(1, keepdim=True).expand(2, 50))


def test_equal_models_leave_no_penalty(double_precision):
    """No disagreement, no caution: u = 0, and what is left of U is its floor of 1e-8."""
    prepared, seeds = offline.prepare(TASK, QUICK, (5,)), (5,)
    with torch.no_grad():
        for value in prepared.ensemble.net.parameters():
            value.copy_(value[:1].expand_as(value).clone())
    first = offline.first_value(TASK, QUICK, prepared.policy, prepared.ensemble, seeds)
    streams = Streams([0])
    rollout = offline.roll_out(TASK, QUICK, prepared.policy, prepared.ensemble, first, streams, 8)
    batch, _ = offline.batch_for_arms(TASK, QUICK, Arms(("alpha-2",), 1), rollout, streams)
    assert rollout.uncertainty.max() < 1e-20
    torch.testing.assert_close(batch.sqrt_u, torch.full_like(batch.sqrt_u, 1e-4), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"updates": 0}, "updates must be at least 1"),
        ({"members": 1}, "2 members"),
        ({"evaluations": 1}, "2 evaluations"),
        ({"std": 0.0}, "std, clip and learning_rate must be positive"),
        ({"action_noise": -0.1}, "noise at least 0"),
    ],
)
def test_impossible_settings_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        replace(QUICK, **changes)


# -- studies ----------------------------------------------------------------------------------------------------------


def test_every_study_has_its_variation_and_changes_what_it_says():
    config = CONFIGS["lesson"]
    assert set(zone.VARIATIONS) == set(ZONE_STUDIES)
    assert zone.task_of("zone-more-data").left == 8
    assert zone.setting_of("zone-more-data", config).episodes == 32
    assert zone.arms_of("zone-more-data", config) == config.variation_arms
    assert zone.setting_of("zone-reward-x10-official", config).u_scaling == "official"
    assert zone.setting_of("zone-action-noise", config).action_noise == 0.3
    assert zone.arms_of("zone", config) == config.zone_arms
    assert zone.arms_of("zone-slow", config) == ("alpha-0", "alpha-2")
    with pytest.raises(InputError, match="there is no study 'mud'"):
        zone.task_of("mud")


def test_more_left_data_leave_the_right_as_it_was():
    """The family in which only one amount changes: "zone" itself is its member with one episode on the left."""
    config = CONFIGS["lesson"]
    plain = zone.setting_of("zone", config)
    assert zone.task_of("zone").left == 1
    assert plain.episodes == zone.RIGHT + 1
    for left in (2, 4, 8, 16):
        name = f"zone-left-{left}"
        assert zone.task_of(name) == replace(zone.task_of("zone"), left=left)
        assert zone.setting_of(name, config) == replace(plain, episodes=7 + left)
        starts = zone.task_of(name).data_starts(Streams([0, 1]), 7 + left)[..., 0]
        assert (starts < 0).sum(1).tolist() == [left, left]
        assert (starts > 0).sum(1).tolist() == [7, 7]
        assert {"alpha-0", "alpha-2", "shuffled-2"} < set(zone.arms_of(name, config)) < set(config.zone_arms)


@pytest.mark.slow
def test_scaling_by_the_raw_variance_makes_the_unit_of_reward_disappear(tmp_path, double_precision):
    """The same seeds with rewards times 10: the same policies up to the 1e-8 that keep divisions from 0. With the
    official code's division, others."""
    actual = {}
    for unit, scaling in ((1.0, "paper"), (10.0, "paper"), (10.0, "official")):
        task, setting = replace(TASK, unit=unit), replace(QUICK, u_scaling=scaling, updates=2)
        prepared = offline.prepare(task, setting, (5,))
        run = Run.open(tmp_path / f"{unit}-{scaling}", CONFIGS["smoke"])
        out = offline.improve(task, prepared, Arms(("alpha-2",), 1), setting, (5,), run)
        actual[unit, scaling] = float(out.history["left"][-1] + out.history["right"][-1]) / unit
    assert actual[10.0, "paper"] == pytest.approx(actual[1.0, "paper"], abs=2e-3)
    assert abs(actual[10.0, "official"] - actual[1.0, "paper"]) > 1e-2


def test_summary_counts_what_happened():
    history = offline.History()
    for step in range(3):
        change = torch.tensor([0.0, 0.0, 1.0, -1.0]) * step
        history.add(left=-10 + change, right=-10 + change, model=-12 + 2 * change, ratio=torch.full((4,), 0.2))
    actual = summarize_zone(history, Arms(("alpha-0", "alpha-2"), 2))
    assert actual["start"] == -10
    assert actual["arms"]["alpha-2"]["real"] == [2.0, -2.0]
    assert actual["arms"]["alpha-2"]["claimed"] == [4.0, -4.0]
    assert actual["arms"]["alpha-2"]["worst"] == -2
    assert actual["arms"]["alpha-2"]["steps"] == 0.5
    assert actual["arms"]["alpha-2"]["improved_curve"] == [0.0, 0.5, 0.5]
    assert actual["arms"]["alpha-0"]["real_curve"] == [0.0, 0.0, 0.0]
