"""Episodes as they are played, and success at the last step against success at any."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.sher.experiment.evaluate import (
    play_test,
    same_generators,
    success_at_end,
    success_ever,
    success_rate,
)
from labkit.papers.sher.experiment.rollout import rollout
from labkit.papers.sher.experiment.worlds.small import BitFlip, Reach, Walls
from labkit.papers.sher.method.hindsight import Episodes
from labkit.rl.streams import Streams


def straight(t, now):
    """The shortest way: as far as a step goes, exactly there at the end."""
    return ((now["desired_goal"] - now["observation"]) / 0.1).clamp(-1, 1)


def test_an_episode_is_what_was_played():
    world = Reach(1, step=0.1, tolerance=0.05, horizon=30)
    played = rollout(straight, world, 2, 3, Streams([1, 2]).generators)
    assert played.observation.shape == (2, 3, 31, 1)
    assert played.action.shape == (2, 3, 30, 1)
    moved = (played.observation[:, :, :-1] + 0.1 * played.action).clamp(-1, 1)
    torch.testing.assert_close(moved, played.observation[:, :, 1:])
    assert bool(success_at_end(played, world).all())


def test_passing_the_goal_is_not_success():
    """Catches success at any step: this policy meets every goal on the line and always ends at the right."""
    world = Reach(1, step=0.1, tolerance=0.1, horizon=60)
    played = rollout(
        lambda t, now: torch.full_like(now["observation"], -1.0 if t < 20 else 1.0), world, 1, 50, same_generators(1)
    )
    at_end, ever = success_at_end(played, world), success_ever(played, world)
    assert bool((ever | ~at_end).all())
    assert float(ever.float().mean()) > 0.9
    assert float(at_end.float().mean()) < 0.3


def test_every_copy_and_every_call_meets_the_same_test_episodes():
    world = Walls("gap")
    still = lambda t, now: torch.zeros_like(now["observation"])  # noqa: E731
    first, again = (play_test(still, world, 3, 5) for _ in range(2))
    assert torch.equal(first.desired, again.desired)
    assert torch.equal(first.desired[0], first.desired[2])
    assert bool((first.desired[..., 0] > 0).all())  # behind the wall: test goals, not training ones


def test_indices_are_stored_as_one_number():
    world = BitFlip(3)
    played = rollout(lambda t, now: torch.full((1, 4), t % 3), world, 1, 4, same_generators(1))
    assert played.action.shape == (1, 4, 3, 1)
    assert played.action[0, 0, :, 0].tolist() == [0.0, 1.0, 2.0]
    flipped = 1 - played.observation[:, :, 0]
    torch.testing.assert_close(played.observation[:, :, -1], flipped)


def test_success_rates_are_per_copy():
    world = Reach(1, step=0.1, tolerance=0.05, horizon=30)
    good = torch.tensor([1.0, 0.0])[:, None, None]
    rates = success_rate(lambda t, now: good * straight(t, now), world, 2, 40)
    assert float(rates[0]) == 1
    assert float(rates[1]) < 0.2


def test_a_policy_that_diverged_is_named():
    world = Reach(1, horizon=3)
    with pytest.raises(InputError, match="training diverged"):
        rollout(lambda t, now: torch.full_like(now["observation"], torch.nan), world, 1, 2, same_generators(1))


def test_success_looks_at_the_last_moment_only():
    world = Reach(1, tolerance=0.1)
    achieved = torch.tensor([[[[0.0], [0.5], [0.0]], [[0.0], [0.0], [0.5]]]])
    episodes = Episodes(achieved, achieved, torch.full((1, 2, 1), 0.5), torch.zeros(1, 2, 2, 1))
    assert success_at_end(episodes, world).tolist() == [[False, True]]
    assert success_ever(episodes, world).tolist() == [[True, True]]
