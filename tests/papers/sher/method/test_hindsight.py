"""Hindsight's laws: which later moment is drawn, how often, and that a relabelled reward is the environment's own."""

import math

import pytest
import torch
from scipy import stats

from labkit.errors import InputError
from labkit.papers.sher.experiment.worlds.small import Reach
from labkit.papers.sher.method.hindsight import (
    DRAWS,
    EpisodeBuffer,
    Episodes,
    future_law,
    hindsight_time,
    only_episodes,
)
from labkit.rl.streams import Streams

T = 50
ROWS = 200_000


def traced_episodes(copies: int = 1, episodes: int = 4, horizon: int = 6, first: int = 0) -> Episodes:
    """Every number tells where it stands: copy * 1e4 + episode * 100 + moment."""
    copy = torch.arange(copies).view(-1, 1, 1) * 10_000.0
    episode = (first + torch.arange(episodes)).view(1, -1, 1) * 100.0
    moment = torch.arange(horizon + 1).view(1, 1, -1)
    position = (copy + episode + moment)[..., None]
    desired = -(copy + episode)[..., 0, None] - 1
    return Episodes(position, position + 0.5, desired, position[:, :, :-1] + 0.25)


def traced_buffer(**sizes) -> EpisodeBuffer:
    return only_episodes(traced_episodes(**sizes))


def sample(buffer, rows, streams, reward, *how):
    return buffer.take(streams.uniform(DRAWS, rows), reward, *how)


def near(achieved, desired):
    return ((achieved - desired).norm(dim=-1) <= 1.0).float() - 1


def never(achieved, desired):
    return torch.full(achieved.shape[:-1], -1.0)


def grid_of(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    t = (torch.rand(ROWS, generator=generator) * T).long()
    return t, torch.rand(ROWS, generator=generator)


# -- the law of the later moment --------------------------------------------------------------------------------------


def test_future_lies_strictly_ahead_and_reaches_the_end():
    t, u = grid_of()
    later = hindsight_time("future", t, T, u)
    assert int((later - t).min()) == 1
    assert int(later.max()) == T
    extremes = hindsight_time(
        "future", torch.tensor([0, 0, T - 1, T - 1]), T, torch.tensor([0.0, 1 - 2**-24, 0.0, 1 - 2**-24])
    )
    assert extremes.tolist() == [1, T, T, T]


def test_future_offsets_follow_the_exact_law():
    """Check 2. chi-squared over all 50 offsets, and the sheet's number: P(t' = t + 1) = .0900."""
    law = future_law(T)
    assert float(law.sum()) == pytest.approx(1)
    assert float(law[0]) == pytest.approx(sum(1 / j for j in range(1, T + 1)) / T)
    assert float(law[0]) == pytest.approx(0.0900, abs=5e-5)
    t, u = grid_of()
    counts = torch.bincount(hindsight_time("future", t, T, u) - t, minlength=T + 1)[1:]
    assert stats.chisquare(counts.numpy(), law.numpy() * ROWS).pvalue > 1e-4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda t, u: t + (u * (T - t + 1)).long().clamp(max=T),  # inclusive of the present
        lambda t, u: 1 + (u * T).long(),  # anywhere in the episode
        lambda t, u: t + 1 + (u**2 * (T - t)).long(),  # not uniform
        lambda t, u: torch.minimum(t + 1 + (u * T).long(), torch.tensor(T)),  # cut off at the end
    ],
)
def test_the_law_tells_wrong_ones_apart(wrong):
    t, u = grid_of()
    offsets = wrong(t, u) - t
    low = int(offsets.min()) < 1
    counts = torch.bincount(offsets.clamp(1, T), minlength=T + 1)[1:]
    assert low or stats.chisquare(counts.numpy(), future_law(T).numpy() * ROWS).pvalue < 1e-6


def test_the_other_strategies():
    t, u = grid_of()
    assert bool((hindsight_time("final", t, T, u) == T).all())
    assert bool((hindsight_time("next", t, T, u) == t + 1).all())
    for strategy in ("episode", "random"):
        counts = torch.bincount(hindsight_time(strategy, t, T, u), minlength=T + 1)
        assert int(counts[0]) == 0
        assert stats.chisquare(counts[1:].numpy()).pvalue > 1e-4
    with pytest.raises(InputError, match="strategy must be one of"):
        hindsight_time("past", t, T, u)


# -- the buffer -------------------------------------------------------------------------------------------------------


def test_rows_keep_together_what_belongs_together():
    """Check 3: no row mixes episodes, copies or moments; catches an index off by one, a copy forgotten."""
    buffer = traced_buffer(copies=3, episodes=4, horizon=6)
    batch = sample(buffer, 500, Streams([1, 2, 3]), near, "none")
    position = batch.observation[..., 0]
    copy = torch.arange(3)[:, None] * 10_000
    assert torch.equal((position // 10_000).long() * 10_000, copy.expand(3, 500))
    torch.testing.assert_close(batch.action[..., 0], position + 0.25)
    torch.testing.assert_close(batch.achieved[..., 0], position + 0.5)
    torch.testing.assert_close(batch.next_observation[..., 0], position + 1)
    torch.testing.assert_close(batch.next_achieved[..., 0], position + 1.5)
    torch.testing.assert_close(batch.goal[..., 0], -(position // 100) * 100 - 1)
    assert not bool(batch.relabelled.any())
    assert len(position.unique()) == 3 * 4 * 6  # every transition of every episode is met


@pytest.mark.parametrize("strategy", ["future", "final", "episode", "next"])
def test_relabelled_goals_are_achieved_ones_of_the_same_episode(strategy):
    buffer = traced_buffer(copies=2, episodes=4, horizon=6)
    batch = sample(buffer, 2000, Streams([1, 2]), near, strategy)
    position, goal = batch.observation[..., 0], batch.goal[..., 0]
    hit = batch.relabelled
    torch.testing.assert_close(goal[~hit], -(position[~hit] // 100) * 100 - 1)  # the others keep theirs
    moment = goal[hit] - 0.5 - (position[hit] // 100) * 100
    t = position[hit] % 100
    low, high = {"future": (t + 1, 6), "final": (6, 6), "episode": (1, 6), "next": (t + 1, t + 1)}[strategy]
    assert bool((moment >= torch.as_tensor(low)).all())
    assert bool((moment <= torch.as_tensor(high)).all())
    torch.testing.assert_close(batch.reward, near(batch.next_achieved, batch.goal))


def test_random_goals_come_from_all_episodes_of_the_own_copy():
    batch = sample(traced_buffer(copies=2, episodes=4, horizon=6), 4000, Streams([1, 2]), near, "random")
    goal, own = batch.goal[..., 0], batch.observation[..., 0] // 100
    for copy in range(2):
        hit = batch.relabelled[copy]
        source = (goal[copy, hit] - copy * 10_000) // 100
        assert source.unique().tolist() == [0, 1, 2, 3]
        assert float((source + 100 * copy == own[copy, hit]).float().mean()) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("k", [0.0, 1.0, 4.0, 8.0])
def test_share_of_relabelled_rows(k):
    """Check 3: k / (k + 1) within four standard errors."""
    batch = sample(traced_buffer(), ROWS, Streams([0]), near, "future", k)
    p = k / (k + 1)
    assert float(batch.relabelled.float().mean()) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / ROWS) + 1e-9)


def test_next_state_goals_are_reached_by_construction():
    """Of a future batch with T = 50, .8 x .09 = 7.2 % are relabelled with their own next state and have reward 0."""
    episodes = traced_episodes(episodes=20, horizon=50)
    spread = Episodes(*(10 * part for part in episodes[:4]))  # moments 10 apart: nothing else is near
    batch = sample(only_episodes(spread), ROWS, Streams([0]), near)
    share = 0.8 * float(future_law(50)[0])
    assert float((batch.reward == 0).float().mean()) == pytest.approx(share, abs=4 * math.sqrt(share / ROWS))


def test_rewards_equal_a_worlds_own_row_by_row():
    world = Reach(2, step=0.3, tolerance=0.2, horizon=10)
    streams = Streams([1])
    now = world.reset(1, 3, streams.generators)
    observations, actions = [now], []
    for _ in range(10):
        actions.append(streams.uniform(3, 2) * 2 - 1)
        observations.append(world.step(actions[-1]))
    stack = [torch.stack([s[name] for s in observations], 2) for name in ("observation", "achieved_goal")]
    buffer = only_episodes(Episodes(*stack, now["desired_goal"], torch.stack(actions, 2)))
    batch = sample(buffer, 300, streams, world.compute_reward)
    for row in range(300):
        d = float((batch.next_achieved[0, row] - batch.goal[0, row]).norm())
        assert float(batch.reward[0, row]) == (0.0 if d <= 0.2 else -1.0)
    assert 0 < float((batch.reward == 0).float().mean()) < 1


def test_a_full_buffer_forgets_the_oldest():
    buffer = EpisodeBuffer(1, 3, 6, 1, 1, 1)
    for first in (0, 2, 4):
        buffer.add(traced_episodes(episodes=2, first=first))
    assert len(buffer) == 3
    batch = sample(buffer, 500, Streams([0]), never, "none")
    assert sorted((batch.observation[..., 0] // 100).unique().tolist()) == [3, 4, 5]


def test_a_growing_buffer_is_sampled_only_where_it_is_filled():
    buffer = EpisodeBuffer(1, 1000, 6, 1, 1, 1)
    buffer.add(traced_episodes(episodes=2, first=5))
    batch = sample(buffer, 500, Streams([0]), never, "random")
    assert sorted((batch.observation[..., 0] // 100).unique().tolist()) == [5, 6]
    assert float(batch.goal[batch.relabelled].min()) > 500


def test_copies_draw_what_they_draw_alone():
    together = traced_buffer(copies=2)
    batch = sample(together, 50, Streams([3, 4]), near)
    parts = [part[1:] for part in traced_episodes(copies=2)[:4]]
    alone = sample(only_episodes(Episodes(*parts)), 50, Streams([4]), near)
    for ours, theirs in zip(batch, alone, strict=True):
        assert torch.equal(ours[1:], theirs)


def test_state_comes_back():
    buffer = EpisodeBuffer(1, 3, 6, 1, 1, 1)
    buffer.add(traced_episodes(episodes=2))
    other = EpisodeBuffer(1, 3, 6, 1, 1, 1)
    other.load_state_dict(buffer.state_dict())
    for both in (buffer, other):
        both.add(traced_episodes(episodes=2, first=8))
    u = torch.rand(1, DRAWS, 100, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(buffer.take(u, near), other.take(u, near), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="does not fit"):
        EpisodeBuffer(1, 3, 7, 1, 1, 1).load_state_dict(buffer.state_dict())


# -- episodes of any length -------------------------------------------------------------------------------------------


def ragged_buffer(length: list[int], ended: list[bool]) -> EpisodeBuffer:
    """Traced episodes of which only the first steps count."""
    whole = traced_episodes(episodes=len(length), horizon=6)
    return only_episodes(whole._replace(length=torch.tensor([length]), ended=torch.tensor([ended])))


def test_every_transition_of_ragged_episodes_is_equally_likely():
    """Catches: short episodes drawn too often, padding drawn, the last step left out."""
    length = [6, 1, 3, 2]
    batch = sample(ragged_buffer(length, [False] * 4), ROWS, Streams([0]), never, "none")
    position = batch.observation[0, :, 0].long()
    wanted = [100 * e + t for e, steps in enumerate(length) for t in range(steps)]
    met, counts = position.unique(return_counts=True)
    assert met.tolist() == wanted
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("strategy", ["future", "final", "episode", "random"])
def test_goals_of_ragged_episodes_come_from_inside_of_them(strategy):
    length = torch.tensor([6, 1, 3, 2])
    batch = sample(ragged_buffer(length.tolist(), [False] * 4), 5000, Streams([0]), never, strategy)
    goal, position = batch.goal[0, batch.relabelled[0], 0] - 0.5, batch.observation[0, batch.relabelled[0], 0]
    source, moment = (goal // 100).long(), goal % 100
    assert bool((moment >= 1).all())
    assert bool((moment <= length[source]).all())
    if strategy != "random":
        assert torch.equal(source, (position // 100).long())
    if strategy == "future":
        assert bool((moment > position % 100).all())
    assert {(int(e), int(m)) for e, m in zip(source, moment, strict=True)} >= {(0, 6), (1, 1), (2, 3), (3, 2)}


def test_only_the_last_step_of_an_ended_episode_ends():
    batch = sample(ragged_buffer([6, 1, 3, 2], [False, True, True, False]), 2000, Streams([0]), never, "none")
    ended = batch.observation[0, batch.ended[0], 0].unique()
    assert ended.tolist() == [100.0, 202.0]
    whole = sample(traced_buffer(), 2000, Streams([0]), never)
    assert not bool(whole.ended.any())


def test_a_goal_ends_where_the_environment_would_end_it():
    """Episode 0 ended at its goal, 1 by a fall. Other goals: 0 ends where they are reached, 1 at its fall as well."""
    whole = traced_episodes(episodes=2, horizon=6)
    desired = torch.tensor([[[6.5], [-1.0]]])  # episode 0 achieves 6.5 at its last moment
    buffer = only_episodes(whole._replace(desired=desired, ended=torch.tensor([[True, True]])))
    at = lambda achieved, desired: (achieved - desired).abs()[..., 0] < 0.5  # noqa: E731
    batch = buffer.take(torch.rand(1, DRAWS, 4000), never, "episode", 4.0, at)
    reached, fall = at(batch.next_achieved, batch.goal), batch.observation[..., 0] == 105
    assert torch.equal(batch.ended, reached | fall)
    missed = (batch.observation[..., 0] == 5) & ~reached  # the last step of episode 0, with a goal that it had passed
    assert bool(missed.any())
    assert not bool(batch.ended[missed].any())


def test_stable_baselines3_draws_by_the_same_law():
    """Check 10. SB3 draws an index from the *present* transition to the last, which looks like another law; but the
    goal is what that transition's *next* observation achieved. So the moments are t + 1..T, evenly, as here."""
    sb3 = pytest.importorskip("stable_baselines3")
    gymnasium = pytest.importorskip("gymnasium")
    import numpy as np

    box = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    space = gymnasium.spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
    horizon = 10

    class Silent:
        def env_method(self, name, achieved, desired, infos, indices):
            return [-(np.abs(achieved - desired)[:, 0] > 0.1).astype(np.float32)]

    buffer = sb3.her.her_replay_buffer.HerReplayBuffer(
        5000, space, gymnasium.spaces.Box(-1, 1, (1,)), env=Silent(), n_sampled_goal=1e9
    )
    for _ in range(20):
        for t in range(horizon):
            row = {name: np.array([[float(t)]]) for name in ("observation", "achieved_goal")}
            after = {name: np.array([[float(t + 1)]]) for name in ("observation", "achieved_goal")}
            goal = {"desired_goal": np.array([[-1.0]])}
            buffer.add(row | goal, after | goal, np.zeros((1, 1)), np.zeros(1), np.array([t == horizon - 1]), [{}])
    np.random.seed(0)  # SB3 draws from the global generator
    drawn = buffer.sample(20_000)
    t, goal = drawn.observations["observation"][:, 0], drawn.observations["desired_goal"][:, 0]
    offset = (goal - t)[goal >= 0].long()  # one row of the batch keeps its own goal, -1
    counts = torch.bincount(offset, minlength=horizon + 1)
    assert int(counts[0]) == 0
    assert stats.chisquare(counts[1:].numpy(), future_law(horizon).numpy() * len(offset)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sample(EpisodeBuffer(1, 3, 6, 1, 1, 1), 4, Streams([0]), near), "buffer is empty"),
        (lambda: EpisodeBuffer(1, 0, 6, 1, 1, 1), "capacity must be at least 1"),
        (lambda: EpisodeBuffer(1, 3, 7, 1, 1, 1).add(traced_episodes(episodes=2)), "observation must be"),
        (lambda: EpisodeBuffer(1, 3, 6, 1, 1, 1).add(traced_episodes(episodes=4)), "do not fit a capacity of 3"),
        (lambda: sample(traced_buffer(), 4, Streams([0]), near, "future", -1.0), "0 or more"),
        (lambda: sample(traced_buffer(), 4, Streams([0]), near, "future", math.inf), "finite; got inf"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
