"""Imagined rollouts on models whose answer is known, and what the members' disagreement comes to."""

import math
from collections import Counter

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.method.imagination import Draws, draw, follow_members, imagine
from labkit.rl.gaussian import gaussian_log_prob
from labkit.rl.streams import Streams

COPIES, MEMBERS, ROLLOUTS, STEPS, SIZE, ACTION = 2, 3, 4, 6, 2, 1
GENERATOR = torch.Generator().manual_seed(0)
A = 0.3 * torch.randn(COPIES, MEMBERS, SIZE, SIZE, generator=GENERATOR, dtype=torch.float64)
B = torch.randn(COPIES, MEMBERS, SIZE, ACTION, generator=GENERATOR, dtype=torch.float64)
GAIN = torch.randn(COPIES, ACTION, SIZE, generator=GENERATOR, dtype=torch.float64)
START = torch.randn(COPIES, ROLLOUTS, SIZE, generator=GENERATOR, dtype=torch.float64)
VALUE = torch.randn(COPIES, SIZE, generator=GENERATOR, dtype=torch.float64)


def dynamics(state: Tensor, action: Tensor) -> Tensor:
    """s' = A_k s + B_k a."""
    return torch.einsum("lkij,lbj->lkbi", A, state) + torch.einsum("lkij,lbj->lkbi", B, action)


def by_member(state: Tensor, action: Tensor) -> Tensor:
    return torch.einsum("lkij,lkbj->lkbi", A, state) + torch.einsum("lkij,lkbj->lkbi", B, action)


def policy(state: Tensor) -> tuple[Tensor, Tensor]:
    return torch.einsum("laj,lbj->lba", GAIN, state), torch.full((COPIES, 1, ACTION), -1.0, dtype=torch.float64)


def value(state: Tensor, step: int) -> Tensor:
    return torch.einsum("lj,lbj->lb", VALUE, state) * (step + 1)


def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
    return -(after**2).sum(-1) - 0.1 * (action**2).sum(-1) + state[..., 0]


def some_draws() -> Draws:
    draws = draw(Streams([1, 2]), STEPS, ROLLOUTS, ACTION, MEMBERS)
    return draws._replace(noise=draws.noise.double())


def written_out(draws: Draws, gamma: float, bound: float) -> dict[str, Tensor]:
    """Every copy, rollout, step and member by itself."""
    wanted = {n: torch.zeros(STEPS, COPIES, ROLLOUTS, dtype=torch.float64) for n in ("reward", "uncertainty", "last")}
    for copy in range(COPIES):
        for n in range(ROLLOUTS):
            s = START[copy, n]
            for t in range(STEPS):
                a = GAIN[copy] @ s + math.exp(-1) * draws.noise[t, copy, n]
                a = a.clamp(-bound, bound)
                after = [A[copy, k] @ s + B[copy, k] @ a for k in range(MEMBERS)]
                r = torch.stack([-(x @ x) - 0.1 * (a @ a) + s[0] for x in after])
                q = r + gamma * torch.stack([(VALUE[copy] @ x) * (t + 2) for x in after])
                wanted["reward"][t, copy, n] = r.mean()
                wanted["uncertainty"][t, copy, n] = ((q - q.mean()) ** 2).mean()
                wanted["last"][t, copy, n] = s[0]
                s = after[int(draws.member[t, copy, n])]
    return wanted


@pytest.mark.parametrize("bound", [0.5, 100.0])
def test_a_rollout_of_linear_models_is_the_loop_written_out(bound):
    draws = some_draws()
    got = imagine(dynamics, policy, value, reward, START, draws, gamma=0.9, action_bound=bound)
    wanted = written_out(draws, 0.9, bound)
    torch.testing.assert_close(got.reward, wanted["reward"], rtol=0, atol=1e-6)
    torch.testing.assert_close(got.uncertainty, wanted["uncertainty"], rtol=0, atol=1e-6)
    torch.testing.assert_close(got.state[..., 0], wanted["last"], rtol=0, atol=1e-6)
    for t in range(STEPS):
        mean, log_std = policy(got.state[t])
        torch.testing.assert_close(got.log_prob[t], gaussian_log_prob(got.action[t], mean, log_std))
        torch.testing.assert_close(got.value[t], value(got.state[t], t))
    assert not got.done.any()
    assert not got.diverged.any()


def test_identical_models_are_sure_whatever_they_say():
    def same(state: Tensor, action: Tensor) -> Tensor:
        return dynamics(state, action)[:, :1].expand(-1, MEMBERS, -1, -1)

    got = imagine(same, policy, value, reward, START, some_draws(), gamma=0.9)
    torch.testing.assert_close(got.uncertainty, torch.zeros_like(got.uncertainty), rtol=0, atol=1e-20)


def test_the_last_step_is_unsure_of_where_it_leads():
    """Where members agree on the reward gamma V(s_T) is left, as in the official code; nothing where V is 0 there."""

    def known(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return state[..., 0]

    def timed(state: Tensor, step: int) -> Tensor:
        return value(state, step) * (step < STEPS)

    plain, theory = (imagine(dynamics, policy, v, known, START, some_draws(), gamma=0.9) for v in (value, timed))
    last = dynamics(plain.state[-1], plain.action[-1].clamp(-1, 1))  # (copies, members, rollouts, state)
    wanted = (0.9 * (STEPS + 1) * torch.einsum("lj,lkbj->lkb", VALUE, last)).var(1, correction=0)
    torch.testing.assert_close(plain.uncertainty[-1], wanted)
    assert wanted.min() > 1e-3
    assert torch.equal(theory.uncertainty[:-1], plain.uncertainty[:-1])
    assert theory.uncertainty[-1].abs().max() < 1e-20


def test_members_may_predict_a_reward_and_an_end():
    """Two further outputs; the reward is the first of them, the end where the second is above 1/2. For the members that
    see an end nothing comes after it, and the episode ends where the member that moves sees it."""

    def more(state: Tensor, action: Tensor) -> Tensor:
        after = dynamics(state, action)
        return torch.cat([after, after.sum(-1, keepdim=True), after[..., :1]], -1)

    def learnt(state: Tensor, action: Tensor, outcome: Tensor) -> Tensor:
        return outcome[..., SIZE]

    def ends(state: Tensor, action: Tensor, outcome: Tensor) -> Tensor:
        return outcome[..., -1] > 0.5

    draws = some_draws()
    got = imagine(more, policy, value, learnt, START, draws, gamma=0.9, terminates=ends)
    for t in range(STEPS):
        after = dynamics(got.state[t], got.action[t].clamp(-1, 1))
        over = after[..., 0] > 0.5
        v = torch.einsum("lj,lkbj->lkb", VALUE, after) * (t + 2) * ~over
        torch.testing.assert_close(got.reward[t], after.sum(-1).mean(1))
        torch.testing.assert_close(got.uncertainty[t], (after.sum(-1) + 0.9 * v).var(1, correction=0))
        mover = draws.member[t][:, None]
        assert torch.equal(got.done[t], over.gather(1, mover)[:, 0])
        if t < STEPS - 1:
            torch.testing.assert_close(
                got.state[t + 1], after.gather(1, mover[..., None].expand(-1, -1, -1, SIZE))[:, 0]
            )
    assert got.done.any()
    assert not got.done.all()


def test_bessels_divisor():
    draws = some_draws()
    plain, wide = (
        imagine(dynamics, policy, value, reward, START, draws, gamma=0.9, bessel=bessel) for bessel in (False, True)
    )
    torch.testing.assert_close(wide.uncertainty, plain.uncertainty * MEMBERS / (MEMBERS - 1))


def test_transform_and_bounds():
    draws = some_draws()
    got = imagine(dynamics, policy, value, reward, START, draws, gamma=0.9, transform=lambda r: r / 10, state_bound=0.3)
    torch.testing.assert_close(got.reward, got.task_reward / 10)
    assert got.state[1:].abs().max() <= 0.3
    low, high = torch.tensor([-0.2, -0.1], dtype=torch.float64), torch.tensor([0.1, 0.2], dtype=torch.float64)
    boxed = imagine(dynamics, policy, value, reward, START, draws, gamma=0.9, state_bound=(low, high)).state[1:]
    assert ((boxed >= low) & (boxed <= high)).all()


def test_models_that_leave_the_numbers_are_marked():
    def broken(state: Tensor, action: Tensor) -> Tensor:
        return dynamics(state, action) + torch.where(state[:, None] > 0.5, float("nan"), 0.0)

    got = imagine(broken, policy, value, reward, START, some_draws(), gamma=0.9)
    assert got.diverged.any()
    assert all(torch.isfinite(x).all() for x in got)


def test_following_one_member():
    noise = some_draws().noise
    got = follow_members(by_member, policy, reward, START, noise, MEMBERS, action_bound=100.0)
    assert got.shape == (STEPS, COPIES, MEMBERS, ROLLOUTS)
    for k in range(MEMBERS):
        member = torch.full((STEPS, COPIES, ROLLOUTS), k)

        def only(state: Tensor, action: Tensor, k: int = k) -> Tensor:
            return dynamics(state, action)[:, k : k + 1].expand(-1, MEMBERS, -1, -1)

        alone = imagine(only, policy, value, reward, START, Draws(noise, member), gamma=0.9, action_bound=100.0)
        torch.testing.assert_close(got[:, :, k], alone.reward)


# -- draws ------------------------------------------------------------------------------------------------------------


def test_members_are_drawn_anew_for_every_sample_and_step():
    draws = draw(Streams([0]), 50, 400, ACTION, 5)
    counts = Counter(draws.member.flatten().tolist())
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert all(abs(count / 20_000 - 0.2) < 0.015 for count in counts.values())
    assert len({tuple(row.tolist()) for row in draws.member[:, 0].T}) == 400
    same = (draws.member[1:] == draws.member[:-1]).float().mean().item()
    assert same == pytest.approx(0.2, abs=0.02)  # not the same member all along
    assert draws.noise.std().item() == pytest.approx(1.0, abs=0.02)


def test_a_mixture_is_how_often_each_member_moves():
    mixture = torch.tensor([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0]])
    draws = draw(Streams([0, 1]), 50, 400, ACTION, 3, mixture)
    for copy in range(2):
        shares = torch.bincount(draws.member[:, copy].flatten(), minlength=3) / 20_000
        torch.testing.assert_close(shares, mixture[copy], rtol=0, atol=0.015)


def test_a_copy_has_draws_of_its_own():
    pair, alone = (draw(Streams(seeds), STEPS, ROLLOUTS, ACTION, MEMBERS) for seeds in ([3, 4], [4]))
    for both, one in zip(pair, alone, strict=True):
        assert torch.equal(both[:, 1], one[:, 0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw(Streams([0]), 0, 5, 1, 3), "at least one step"),
        (lambda: draw(Streams([0]), 5, 5, 1, 1), "two members"),
        (lambda: draw(Streams([0]), 5, 5, 1, 2, torch.tensor([[0.5, 0.6]])), "distributions"),
        (lambda: draw(Streams([0]), 5, 5, 1, 2, torch.tensor([[-0.5, 1.5]])), "distributions"),
        (lambda: imagine(dynamics, policy, value, reward, START[:, :2], some_draws(), gamma=0.9), "draws are for"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        call()
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)
