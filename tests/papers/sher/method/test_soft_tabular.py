"""Check 5: maximum-entropy control where everything can be counted."""

import itertools
import math

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.sher.experiment.worlds.small import BitFlip
from labkit.papers.sher.method import soft_tabular as lab

GAMMA = 0.98


@pytest.mark.parametrize("bits", [1, 3, 6, 8])
def test_hard_value_is_a_geometric_sum(bits):
    """From distance d the best way is paid -1 for d - 1 steps and 0 once; then it must leave (no stay) or may stay."""
    states = torch.arange(2**bits)
    distance = sum((states >> b) & 1 for b in range(bits))
    stay = lab.hard_values(lab.bit_flip(bits, stay=True), GAMMA).v
    wanted = -(1 - GAMMA ** (distance - 1).clamp(min=0).double()) / (1 - GAMMA)
    torch.testing.assert_close(stay, wanted, atol=1e-9, rtol=0)
    leaving = lab.hard_values(lab.bit_flip(bits), GAMMA).v
    at_goal = -1 / (1 - GAMMA**2)  # -1, 0, -1, 0, ...
    torch.testing.assert_close(float(leaving[0]), at_goal, atol=1e-9, rtol=0)


def test_the_table_is_the_environment():
    """One step of the torch world from every state, for every action, lands where the table says."""
    bits = 4
    task, world = lab.bit_flip(bits), BitFlip(bits)
    world.reset(1, 2**bits, [torch.Generator().manual_seed(0)])
    places = 2 ** torch.arange(bits)
    states = torch.arange(2**bits)
    for action in range(bits):
        world._state = ((states[:, None] // places) % 2).float()[None]
        world._goal = torch.zeros(1, 2**bits, bits)
        now = world.step(torch.full((1, 2**bits), action))
        assert torch.equal((now["observation"][0].long() * places).sum(-1), task.successor[:, action])
        reward = world.compute_reward(now["achieved_goal"], now["desired_goal"])
        assert torch.equal(reward[0].double(), task.reward[:, action])


@pytest.mark.parametrize("alpha", [0.003, 0.03, 0.3, 3.0])
def test_soft_values_lie_above_the_hard_ones_and_within_the_bound(alpha):
    task = lab.bit_flip(6, stay=True)
    gap = lab.soft_values(task, alpha, GAMMA).v - lab.hard_values(task, GAMMA).v
    assert float(gap.min()) >= -1e-9
    assert float(gap.max()) <= lab.gap_bound(task, alpha, GAMMA) + 1e-9


def test_soft_becomes_hard_as_alpha_goes_to_zero():
    task = lab.bit_flip(6, stay=True)
    hard = lab.hard_values(task, GAMMA)
    gaps = [float((lab.soft_values(task, a, GAMMA).v - hard.v).abs().max()) for a in (0.1, 0.01, 0.001)]
    assert gaps[0] > gaps[1] > gaps[2]
    torch.testing.assert_close(lab.soft_values(task, 1e-3, GAMMA).policy, hard.policy, atol=1e-3, rtol=0)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0])
def test_the_fixed_point_is_the_policys_own_value(alpha):
    """pi = softmax(Q / alpha) evaluated by a linear solve gives back V = alpha logsumexp(Q / alpha)."""
    for task in (lab.bit_flip(5), lab.grid(["..#", "..G", "..."])[0]):
        soft = lab.soft_values(task, alpha, GAMMA)
        torch.testing.assert_close(soft.policy, torch.softmax(soft.q / alpha, -1))
        torch.testing.assert_close(lab.evaluate_policy(task, soft.policy, alpha, GAMMA), soft.v, atol=1e-8, rtol=0)


def test_no_other_policy_is_worth_more():
    """Catches a wrong sign of the entropy: then the uniform policy would be beaten by nobody, or by everybody."""
    task = lab.bit_flip(4, stay=True)
    soft = lab.soft_values(task, 0.1, GAMMA)
    generator = torch.Generator().manual_seed(0)
    for sharpness in (0.0, 1.0, 10.0):
        other = torch.softmax(sharpness * torch.rand(16, 5, generator=generator, dtype=torch.float64), -1)
        assert bool((lab.evaluate_policy(task, other, 0.1, GAMMA) <= soft.v + 1e-9).all())
    best = lab.hard_values(task, GAMMA).policy
    assert bool((lab.evaluate_policy(task, best, 0.1, GAMMA) <= soft.v + 1e-9).all())


def test_a_uniform_policy_at_the_goal_is_worth_the_entropy():
    """With reward 0 everywhere V is alpha log|A| / (1 - gamma): the sheet's 8.3 is this for a 4-dimensional action."""
    task = lab.bit_flip(3)
    free = lab.Task(task.successor, torch.zeros_like(task.reward))
    soft = lab.soft_values(free, 0.03, 0.99)
    torch.testing.assert_close(
        soft.v, torch.full((8,), 0.03 * math.log(3) / 0.01, dtype=torch.float64), atol=1e-8, rtol=0
    )
    assert 0.03 * 4 * math.log(2) / 0.01 == pytest.approx(8.3, abs=0.02)


def test_the_clip_cuts_the_bonus_off_at_the_goal():
    """In a corner three actions hold the goal (stay, two walls): worth alpha log 3 a step, for ever; cut, almost 0."""
    task, cells = lab.grid(["...", "...", "..G"])
    goal = cells.tolist().index([2, 2])
    for alpha in (0.01, 0.1):
        soft, cut = (lab.soft_values(task, alpha, GAMMA, clip=c) for c in (False, True))
        assert float(soft.v[goal]) == pytest.approx(alpha * math.log(3) / (1 - GAMMA), rel=0.02)
        assert bool((cut.q <= 0).all())
        assert bool((cut.v <= soft.v + 1e-12).all())
        assert float(cut.v[goal]) == pytest.approx(alpha * math.log(3), rel=0.1)  # the entropy of one step is left


def test_control_is_inference_by_enumeration():
    """p(a_1 | s_1, all O = 1) from all 4^4 action sequences, weighted by exp(sum r / alpha)."""
    alpha, horizon, start = 0.5, 4, 5
    task = lab.bit_flip(3, stay=True)
    weights = torch.zeros(4, dtype=torch.float64)
    for actions in itertools.product(range(4), repeat=horizon):
        state, total = start, 0.0
        for a in actions:
            total += float(task.reward[state, a])
            state = int(task.successor[state, a])
        weights[actions[0]] += math.exp(total / alpha)
    actual = lab.posterior_policy(task, alpha, horizon)
    assert actual.shape == (horizon, 8, 4)
    torch.testing.assert_close(actual[0, start], weights / weights.sum())


def test_sparse_rewards_are_probabilities():
    rewards = lab.bit_flip(3).reward
    assert torch.equal(torch.unique(torch.exp(rewards)), torch.tensor([math.exp(-1), 1.0], dtype=torch.float64))


def test_a_grid_from_text():
    task, cells = lab.grid(["#.", "G."])
    assert cells.tolist() == [[0, 1], [1, 0], [1, 1]]
    assert task.successor[0].tolist() == [0, 2, 0, 0, 0]  # up, down, left (a wall), right, stay
    assert task.reward[2].tolist() == [-1.0, -1.0, 0.0, -1.0, -1.0]


def test_entropy():
    task = lab.bit_flip(3)
    entropy = lab.soft_values(task, 100.0, GAMMA).entropy
    torch.testing.assert_close(entropy, torch.full((8,), math.log(3), dtype=torch.float64), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lab.bit_flip(0), "between 1 and 14"),
        (lambda: lab.grid(["..", "."]), "rows of one length"),
        (lambda: lab.grid(["GG"]), "exactly one 'G'"),
        (lambda: lab.soft_values(lab.bit_flip(2), -0.1, 0.9), "alpha must be above 0"),
        (lambda: lab.soft_values(lab.bit_flip(2), 0.1, 1.0), r"\[0, 1\)"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
