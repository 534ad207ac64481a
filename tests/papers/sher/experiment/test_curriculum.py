"""CHER's sampler against a slow, literal facility location."""

import itertools
import math

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.sher.experiment.curriculum import curriculum, diversity, lazy_greedy, nearest_neighbours, pools_of
from labkit.papers.sher.method.hindsight import Transitions


def transitions(goal: torch.Tensor, achieved: torch.Tensor, row: torch.Tensor) -> Transitions:
    """Candidates whose action and reward say which row they are."""
    return Transitions(goal, row[..., None], goal, achieved, achieved, goal, row, row > 31, row < 0)


def literal_gain(goals: torch.Tensor, chosen: set[int], candidate: int) -> float:
    """F(chosen + candidate) - F(chosen), F(A) = sum_i max_{j in A} s_ij, s_ij only for i's nearest neighbour j."""
    count = len(goals)
    gaps = torch.cdist(goals, goals)
    gaps.fill_diagonal_(math.inf)
    distance, neighbour = gaps.min(1)
    similarity = torch.exp(-((distance / distance.mean()) ** 2))

    def value(some: set[int]) -> float:
        return sum(float(similarity[i]) for i in range(count) if int(neighbour[i]) in some)

    return value(chosen | {candidate}) - value(chosen)


def literal_greedy(goals: torch.Tensor, achieved: torch.Tensor, picks: int, lambda_: float, u: torch.Tensor) -> list:
    """The released loop, word for word in its effect: `covered` is overwritten as soon as a candidate leads."""
    count = len(goals)
    gaps = torch.cdist(goals, goals)
    gaps.fill_diagonal_(math.inf)
    distance, neighbour = gaps.min(1)
    similarity = torch.exp(-((distance / distance.mean()) ** 2))
    covered, left, chosen = torch.zeros(count), set(range(count)), []
    for pick in range(picks):
        best, index = -math.inf, -1
        for j in sorted(left, key=lambda j: -float(u[pick, j]))[:3]:
            now = torch.where(neighbour == j, similarity.maximum(covered), covered)
            score = float((now - covered).sum()) - lambda_ * float((goals[j] - achieved[j]).norm())
            if score > best:
                best, index, covered = score, j, now
        left.remove(index)
        chosen.append(index)
    return chosen


def test_picks_are_those_of_the_released_loop():
    """20 pools of 128 at four stages of lambda, 1,280 picks each. Catches: no memory (see below), a pick's order."""
    generator = torch.Generator().manual_seed(0)
    agree = without_memory = 0
    for step in (0, 5_000, 20_000, 60_000):
        goals, achieved = (torch.randn(5, 128, 3, generator=generator, dtype=torch.float64) for _ in range(2))
        u = torch.rand(5, 64, 128, generator=generator)
        gain, cost = diversity(goals), 1.0001**step * (goals - achieved).norm(dim=-1)
        ours = lazy_greedy(gain, cost, 64, u)
        plain = lazy_greedy(torch.zeros_like(gain), cost - gain, 64, u)  # the same scores, never spent
        for pool in range(5):
            theirs = torch.tensor(literal_greedy(goals[pool], achieved[pool], 64, 1.0001**step, u[pool]))
            agree += int((ours[pool] == theirs).sum())
            without_memory += int((plain[pool] == theirs).sum())
    assert agree == 4 * 5 * 64
    assert without_memory < agree


def test_a_pool_is_128_candidates_whatever_the_batch():
    """Two copies, batch 192: six pools, each chosen as it is alone."""
    assert [pools_of(batch) for batch in (64, 192, 1216, 32, 100)] == [1, 3, 19, 1, 1]
    generator = torch.Generator().manual_seed(0)
    goal, achieved = (torch.randn(2, 384, 2, generator=generator) for _ in range(2))
    row = torch.arange(384.0).expand(2, -1)
    candidates = transitions(goal, achieved, row)
    u = torch.rand(2, 3, 64, 128, generator=generator)
    together = curriculum(candidates, 192, 0, u.flatten(0, 1)).reward
    for copy, pool in itertools.product(range(2), range(3)):
        cut = slice(128 * pool, 128 * (pool + 1))
        alone = curriculum(transitions(goal[copy : copy + 1, cut], achieved[copy : copy + 1, cut], row[:1, cut]), 64, 0,
                           u[copy, pool][None])  # fmt: skip
        assert torch.equal(together[copy, 64 * pool : 64 * (pool + 1)], alone.reward[0])


def test_gain_is_the_literal_one_whatever_was_chosen():
    """The function is modular: what a candidate adds does not depend on what was picked, and is its `diversity`."""
    goals = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    ours = diversity(goals[None])[0]
    chosen: set[int] = set()
    for candidate in range(20):
        assert literal_gain(goals, chosen, candidate) == pytest.approx(float(ours[candidate]), abs=1e-5)
        chosen.add(candidate)


def test_neighbours_exclude_the_goal_itself():
    goals = torch.tensor([[[0.0], [1.0], [1.5], [9.0]]])
    distance, neighbour = nearest_neighbours(goals)
    assert distance.tolist() == [[1.0, 0.5, 0.5, 7.5]]
    assert neighbour.tolist() == [[1, 2, 1, 2]]


def test_greedy_takes_the_best_of_three_and_nothing_twice():
    scores = torch.arange(12.0)[None].expand(2, -1).contiguous()
    u = torch.rand(2, 6, 12, generator=torch.Generator().manual_seed(0))
    chosen = lazy_greedy(torch.zeros_like(scores), -scores, 6, u)
    for copy in range(2):
        left = set(range(12))
        for pick, index in enumerate(chosen[copy].tolist()):
            looked_at = sorted(left, key=lambda j: -float(u[copy, pick, j]))[:3]
            assert index == max(looked_at)
            left.remove(index)


def test_favours_high_scores_but_not_only():
    """Of 100 with scores 0..99, 50 picks: their mean is well above 49.5, and the worst are not all left out."""
    u = torch.rand(1, 50, 100, generator=torch.Generator().manual_seed(1))
    scores = torch.arange(100.0)[None]
    chosen = lazy_greedy(torch.zeros_like(scores), -scores, 50, u)[0]
    assert 60 < float(chosen.float().mean()) < 74.5
    assert int(chosen.min()) < 30


def test_lambda_grows_from_one_until_only_the_distance_counts():
    generator = torch.Generator().manual_seed(0)
    goal = 0.1 * torch.randn(5, 64, 2, generator=generator)
    achieved = 0.1 * torch.randn(5, 64, 2, generator=generator)
    row = torch.arange(64.0).expand(5, -1)
    candidates = transitions(goal, achieved, row)
    u = torch.rand(5, 32, 64, generator=generator)
    early, late = (curriculum(candidates, 32, step, u) for step in (0, 200_000))
    far = (goal - achieved).norm(dim=-1)
    assert torch.equal(early.reward.long(), lazy_greedy(diversity(goal), far, 32, u))
    assert torch.equal(late.reward.long(), lazy_greedy(torch.zeros_like(far), far, 32, u))
    assert not torch.equal(early.reward, late.reward)
    torch.testing.assert_close(early.action[..., 0], early.reward)  # rows stay together
    torch.testing.assert_close(early.goal[0], goal[0, early.reward[0].long()])
    assert torch.equal(early.relabelled, early.reward > 31)


def test_too_few_candidates():
    with pytest.raises(InputError, match="need more than 4 candidates"):
        lazy_greedy(torch.zeros(1, 4), torch.zeros(1, 4), 3, torch.rand(1, 3, 4))
