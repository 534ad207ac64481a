"""The stages of the loop on the pendulum: what is learned, logged, reset and collected."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.pombu.experiment.tasks import TASKS
from labkit.papers.pombu.experiment.worlds import make_world
from labkit.papers.pombu.method.episodes import Episodes, Task
from labkit.papers.pombu.method.loop import Experience, Learner, Purpose, Settings

TINY = {
    "iterations": 2, "episodes": 2, "horizon": 20, "updates": 2, "rollouts": 16, "epochs": 2, "batch_size": 64,
    "members": 2, "model_hidden": (32, 32), "policy_hidden": (16, 16), "model_batch": 16, "model_epochs": 20,
    "model_learning_rate": 2e-3, "learning_rate": 1e-3, "evaluations": 2,
}  # fmt: skip


WHOLE = torch.full((1, 2), 3), torch.zeros(1, 2, dtype=torch.bool)  # lengths and endings of two episodes of 3 steps


def a_learner(seeds: tuple[int, ...] = (0,), **changes: object) -> Learner:
    settings = Settings(**TINY | changes)
    return Learner(make_world("pendulum", settings.horizon), settings, seeds, torch.device("cpu"))


def with_models(learner: Learner) -> Learner:
    """After the first iteration's real episodes and model training."""
    learner.begin(0)
    learner.collect(0)
    learner.refresh()
    learner.learn_models(0)
    return learner


@pytest.mark.slow
def test_two_iterations_are_finite_and_the_models_learn():
    """Validation errors are in units of the variance of the state's change: .03 +- .02 over 40 seeds."""
    learner = a_learner((0, 1))
    history = [learner.iterate(iteration) for iteration in range(2)]
    for measured in history:
        for name, value in measured.items():
            assert value.shape == (2,), name
            assert torch.isfinite(value).all(), name
        assert (measured["validation_error"] < 0.5).all()
        assert ((measured["stochastic_return"] > -20 * 20) & (measured["stochastic_return"] <= 0)).all()
    assert learner.experience.splits.rows == 2 * 2 * 20
    assert history[0]["collected_return"][0] != history[0]["collected_return"][1]


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.0, 0.0, 0.0), (200.0, 0.01, 0.99), (1e6, 1.0, 1.0)])
def test_what_is_logged_says_why_a_policy_stands_still(alpha, low, high):
    """The dead zone grows with alpha and is empty at 0; sqrt(U) is in the unit of A, and raw.

    With alpha 1e6 it is everything even where models agree: U is kept at 1e-8 at least.
    """
    learner = with_models(a_learner(alpha=alpha, iterations=1, updates=3))
    batches, original = [], learner.imagined
    learner.imagined = lambda streams: (batches.append(original(streams)), batches[-1])[1]
    logged = learner.improve_policy(0)
    assert len(batches) == 3
    assert low <= logged["dead_zone"].item() <= high
    by_hand = [(b.advantage.abs() < alpha * b.sqrt_u).float().mean(1) for b, _ in batches]
    torch.testing.assert_close(logged["dead_zone"], torch.stack(by_hand).mean(0))
    torch.testing.assert_close(logged["sqrt_u"], torch.stack([b.sqrt_u.mean(1) for b, _ in batches]).mean(0))
    # official scaling leaves U as it is: the two differ by the bounds of U only
    torch.testing.assert_close(logged["sqrt_u"], logged["sqrt_u_raw"], rtol=0.02, atol=1e-3)


def test_models_start_anew_when_it_is_time():
    learner, fresh = a_learner(reinitialise_every=2), []
    original = learner.ensemble.initialize
    learner.ensemble.initialize = lambda seeds: (fresh.append(tuple(seeds)), original(seeds))[1]
    counts = []
    for iteration in range(3):
        learner.begin(iteration)
        learner.collect(iteration)
        learner.refresh()
        learner.learn_models(iteration)
        counts.append(len(fresh))
    assert counts == [1, 1, 2]
    assert fresh[0] != fresh[1]


@pytest.mark.slow
def test_data_are_cut_anew_when_the_models_start_anew_and_only_then():
    learner, cuts = a_learner(reinitialise_every=2), []
    for iteration in range(3):
        learner.begin(iteration)
        learner.collect(iteration)
        learner.refresh()
        learner.learn_models(iteration)
        cuts.append(learner.experience.splits.valid.clone())
    assert [cut.shape[1] for cut in cuts] == [8, 16, 24]  # a fifth of 2 episodes of 20 steps each
    assert torch.equal(cuts[1][:, :8], cuts[0])
    assert not torch.equal(cuts[2][:, :16], cuts[1])


def test_imagined_episodes_begin_where_the_simulator_resets_or_where_real_ones_began():
    fresh, known = with_models(a_learner()), with_models(a_learner(starts="recorded"))
    streams = [learner.streams(0, Purpose.IMAGINATION) for learner in (fresh, known)]
    real = {tuple(row) for row in known.experience.starts[0].tolist()}
    got = known.starts(streams[1])
    assert got.shape == (1, 16, 3)
    assert {tuple(row) for row in got[0].tolist()} == real  # two episodes, sixteen draws
    got = [fresh.starts(streams[0]) for _ in range(2)]
    assert len({tuple(row) for one in got for row in one[0].tolist()} - real) == 32
    torch.testing.assert_close(got[0][..., :2].norm(dim=-1), torch.ones(1, 16))  # angles, as after a reset


def test_episodes_of_different_lengths():
    """What a shorter one is filled up with is no data: not for the members, the statistics, or the cuts."""
    task = Task("half known", None, 2, 1, terminates=None)
    experience = Experience(task, 1, 2, gamma=0.5)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(1, 2, 4, 2, generator=generator)
    reward = torch.tensor([[[1.0, 2.0, 4.0, 8.0], [3.0, 5.0, 0.0, 0.0]]])
    state[0, 1, 2:] = 0
    action = torch.zeros(1, 2, 4, 1)
    lengths, ended = torch.tensor([[4, 2]]), torch.tensor([[False, True]])
    experience.add(Episodes(state, action, state + 1, reward, lengths, ended), generator)
    assert experience.splits.trajectories == [(1, 4), (1, 2)]
    played = torch.cat([state[0, 0], state[0, 1, :2]])
    assert torch.equal(experience.rows["state"][0], played)
    outcome = torch.cat([played + 1, torch.tensor([1.0, 2, 4, 8, 3, 5])[:, None], torch.zeros(6, 1)], 1)
    outcome[5, 3] = 1  # the end, where the task ended; the first episode's time was up
    assert torch.equal(experience.rows["outcome"][0], outcome)
    mean, _, change, _ = experience.model_statistics()
    torch.testing.assert_close(mean[0, :2], played.mean(0))
    torch.testing.assert_close(change[0], torch.tensor([1, 1, 23 / 6, 1 / 6]))
    to_go = torch.tensor([4.0, 6.0, 8.0, 8.0, 5.5, 5.0])  # 1 + 2/2 + 4/4 + 8/8, ...
    assert experience.reward_scale().item() == pytest.approx(to_go.std(correction=0).item(), rel=1e-5)
    both = Episodes(*(torch.cat([x, x]) for x in (state, action, state, reward, lengths, ended)))
    with pytest.raises(InputError, match="one copy at a time"):
        Experience(task, 2, 2, gamma=0.5).add(both, generator)


def test_a_task_says_what_it_knows_and_asks_the_members_for_the_rest():
    def low(state: torch.Tensor, action: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return after[..., 0] < 0

    state, action = torch.zeros(3, 2), torch.zeros(3, 1)
    outcome = torch.tensor([[-1.0, 0, 7, 0.4], [1, 0, 8, 0.6], [1, 0, 9, 1.1]])
    learnt = Task("learnt", None, 2, 1, terminates=None)
    assert learnt.imagined_reward(state, action, outcome).tolist() == [7, 8, 9]
    assert learnt.imagined_end(state, action, outcome).tolist() == [False, True, True]
    known = Task("known", lambda s, a, n: 2 * n[..., 0], 2, 1, terminates=low, low=(-1.0, -2.0), high=(1.0, 2.0))
    assert known.imagined_reward(state, action, outcome[:, :2]).tolist() == [-2, 2, 2]
    assert known.imagined_end(state, action, outcome[:, :2]).tolist() == [True, False, False]
    assert [bound.tolist() for bound in known.state_bounds(torch.device("cpu"))] == [[-1, -2], [1, 2]]
    sizes = [task.extra_outputs for task in (learnt, known, Task("ends", None, 2, 1), TASKS["pendulum"])]
    assert sizes == [2, 0, 1, 0]


def test_log_std_is_reset_in_the_first_iterations_only():
    learner = a_learner(std_resets=2)
    for iteration, stays in ((0, False), (1, False), (2, True)):
        with torch.no_grad():
            learner.policy.log_std.fill_(-0.5)
        learner.begin(iteration)
        assert bool((learner.policy.log_std == -0.5).all()) == stays
    rates = []
    for iteration in (0, 55, 109, 200):
        learner.begin(iteration)
        rates.append({o.param_groups[0]["lr"] / 1e-3 for o in learner.optimizers.values()})
    assert [len(rate) for rate in rates] == [1] * 4  # the same for all three
    assert [rate.pop() for rate in rates] == pytest.approx([1.0, 0.5, 1 / 110, 1 / 110])


def test_the_return_scale_is_the_spread_of_returns_to_go():
    task = TASKS["pendulum"]
    experience = Experience(task, 1, 2, gamma=0.5)
    reward = torch.tensor([[[1.0, 2.0, 4.0], [0.0, 0.0, 8.0]]])
    state = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    episodes = Episodes(state, torch.full((1, 2, 3, 1), 7.0), state + 1, reward, *WHOLE)
    experience.add(episodes, torch.Generator().manual_seed(0))
    to_go = torch.tensor([3.0, 4.0, 4.0, 2.0, 4.0, 8.0])  # 1 + 2/2 + 4/4, 2 + 4/2, ...
    assert experience.reward_scale().item() == pytest.approx(to_go.std(correction=0).item(), rel=1e-5)
    assert (experience.rows["action"] == 1).all()  # what the simulator makes of 7
    assert torch.equal(experience.starts, state[:, :, 0])
    mean, std, change, spread = experience.model_statistics()
    torch.testing.assert_close(mean[0, :3], state.flatten(0, 2).mean(0))
    torch.testing.assert_close(change, torch.ones(1, 3))
    assert (spread >= 1e-3).all()
    assert std[0, 3].item() == pytest.approx(1e-3)
