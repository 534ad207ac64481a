"""One update: what the minibatches hold, copies that do not mix, exploration that is put back."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.pombu.method import exploration
from labkit.papers.pombu.method.episodes import Episodes
from labkit.papers.pombu.method.imagination import Rollout
from labkit.papers.pombu.method.improvement import Batch, CriticPass, Pass, PolicyPass, batch_of, update_size
from labkit.papers.pombu.method.networks import Critics, GaussianPolicy
from labkit.papers.pombu.method.objective import scale_uncertainty, standardize
from labkit.papers.pombu.method.uncertainty import propagate
from labkit.rl.gaussian import gaussian_log_prob
from labkit.rl.recorded import Recorded
from labkit.rl.streams import Streams

STATE, ACTION, SAMPLES = 3, 2, 64


def a_policy(seeds=(1, 2)) -> GaussianPolicy:
    return GaussianPolicy(STATE, ACTION, (8,), list(seeds))


def a_batch(policy: GaussianPolicy, seed: int = 0, samples: int = SAMPLES) -> Batch:
    copies = policy.log_std.shape[0]
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(copies, samples, STATE, generator=generator)
    with torch.no_grad():
        mean, log_std = policy(state)
        action = mean + log_std.exp() * torch.randn(mean.shape, generator=generator)
        log_prob = gaussian_log_prob(action, mean, log_std)
    wanted = torch.tensor([0.5, -0.5])
    advantage = standardize(-(action - wanted).square().sum(-1))
    sqrt_u = torch.rand(copies, samples, generator=generator)
    return Batch(state, action, log_prob, advantage, sqrt_u, state.sum(-1), sqrt_u**2)


def a_pass(policy: GaussianPolicy, **changes: object) -> PolicyPass:
    return PolicyPass(policy, **({"learning_rate": 3e-3, "clip": 0.2, "max_norm": 0.5} | changes))


# -- from rollout to batch --------------------------------------------------------------------------------------------


def a_rollout(diverged: bool = False, copies: int = 2) -> Rollout:
    generator = torch.Generator().manual_seed(0)
    time, rollouts = 5, 4
    r, task_reward, u, v, log_prob = torch.randn(5, time, copies, rollouts, generator=generator)
    state = torch.arange(time * copies * rollouts * STATE).float().view(time, copies, rollouts, STATE)
    action = torch.randn(time, copies, rollouts, ACTION, generator=generator)
    flags = (torch.full((time, copies, rollouts), flag) for flag in (False, diverged))
    return Rollout(state, action, log_prob, r, task_reward, u.abs(), v, *flags)


@pytest.mark.parametrize("scaling", ["paper", "official"])
def test_a_batch_keeps_each_copies_samples_together(scaling):
    rollout, uncertainty_value = a_rollout(), torch.rand(5, 2, 4)
    batch = batch_of(rollout, uncertainty_value, gamma=0.9, lam=0.8, scaling=scaling)
    trace = propagate(rollout.reward, rollout.uncertainty, rollout.value, uncertainty_value, gamma=0.9, lam=0.8)
    for copy in range(2):
        assert torch.equal(batch.state[copy], rollout.state[:, copy].reshape(20, STATE))
        advantage, u = trace.advantage[:, copy].flatten(), trace.uncertainty_target[:, copy].flatten()
        torch.testing.assert_close(batch.advantage[copy], standardize(advantage))
        torch.testing.assert_close(batch.sqrt_u[copy], scale_uncertainty(u, advantage, scaling))
        torch.testing.assert_close(batch.value_target[copy], trace.value_target[:, copy].flatten())


def test_models_that_diverged_are_told():
    with pytest.raises(InputError, match="not finite"):
        batch_of(a_rollout(diverged=True), None, gamma=0.9, lam=1.0)


def test_what_is_imagined_after_an_end_is_left_out():
    """A rollout that ends with its second step is one of two steps: its numbers are those of the short one alone."""
    rollout = a_rollout(copies=1)
    rollout.done[1, 0, 2] = True
    rollout.diverged[3, 0, 2] = True  # after the end nobody cares
    batch = batch_of(rollout, None, gamma=0.9, lam=0.8)
    assert batch.advantage.shape == (1, 17)
    ended = rollout.state[:2, 0, 2]
    kept = [bool((ended == row).all(1).any()) for row in batch.state[0]]
    assert sum(kept) == 2
    short = propagate(*(x[:2, 0, 2] for x in (rollout.reward, rollout.uncertainty, rollout.value)), gamma=0.9, lam=0.8)
    torch.testing.assert_close(batch.value_target[0, kept], short.value_target)
    torch.testing.assert_close(batch.uncertainty_target[0, kept], short.uncertainty_target)
    assert float(batch.advantage.mean()) == pytest.approx(0, abs=1e-5)  # standardized over what is left
    two = a_rollout()
    two.done[1, 0, 2] = True
    with pytest.raises(InputError, match="one copy at a time"):
        batch_of(two, None, gamma=0.9, lam=0.8)


# -- passes -----------------------------------------------------------------------------------------------------------


def test_a_pass_shows_every_sample_once_an_epoch_and_each_copy_its_own():
    shown: list[Tensor] = []
    one = Pass(lambda batch, rows: shown.append(rows.clone()), torch.device("cpu"), graphs=False)
    batch = a_batch(a_policy(), samples=50)
    one(batch, 3, 16, Streams([0, 1]))
    assert len(shown) == 9  # 2 of 50 are left out of each epoch
    for epoch in range(3):
        rows = torch.cat(shown[3 * epoch : 3 * epoch + 3], 1)
        assert ((rows[0] >= 0) & (rows[0] < 50)).all()
        assert ((rows[1] >= 50) & (rows[1] < 100)).all()
        assert all(len(set(copy.tolist())) == 48 for copy in rows)
    assert not torch.equal(shown[0], shown[3])
    with pytest.raises(InputError, match="as many imagined steps"):
        one(batch, 1, 51, Streams([0, 1]))


def test_copies_do_not_mix(double_precision):
    """Two copies with their own alpha are two single runs, minibatches and gradient clipping included."""
    both = a_policy((1, 2))
    batch, alphas = a_batch(both), torch.tensor([0.0, 1.5])
    start = deepcopy(both.state_dict())
    a_pass(both)(batch, alphas, 4, 16, Streams([10, 11]))
    for copy in range(2):
        alone = a_policy((1 + copy,))
        alone.load_state_dict({name: value[copy : copy + 1].clone() for name, value in start.items()})
        mine = Batch(*(x[copy : copy + 1] for x in batch))
        a_pass(alone)(mine, alphas[copy : copy + 1], 4, 16, Streams([10 + copy]))
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(both.state_dict()[name][copy : copy + 1], value, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_alpha_holds_the_policy_back():
    """Over 20 seeds a KL is 2.1 to 3.2 times the next, the last 1e-4 of the first, and alpha = 0 gains .165 +- .007."""
    distances = []
    for alpha in (0.0, 0.5, 2.0, 50.0):
        policy = a_policy((1,))
        batch = a_batch(policy)
        a_pass(policy)(batch, torch.tensor([alpha]), 20, 16, Streams([3]))
        distances.append(update_size(policy, batch, 0.2))
    kls = [d.kl.item() for d in distances]
    assert kls[0] > kls[1] > kls[2] > kls[3]
    assert kls[3] < 0.01 * kls[0]
    assert distances[0].gain.item() > 0.1
    assert distances[1].sigmas.item() == pytest.approx(
        distances[1].gain.item() / (distances[1].risk.item() + 1e-5), rel=1e-5
    )


def test_v_and_u_learn_their_targets():
    """Over 40 seeds at most .0012 of the error is left."""
    critics = Critics(STATE, (32,), [1, 2])
    batch = a_batch(a_policy(), samples=256)
    critics_pass = CriticPass(critics, learning_rate=1e-2, max_norm=0.5)
    errors = []
    for _ in range(2):
        errors.append((critics.value(batch.state) - batch.value_target).square().mean(1))
        critics_pass(batch, 60, 64, Streams([0, 1]))
    final = (critics.value(batch.state) - batch.value_target).square().mean(1)
    assert (final < 0.1 * errors[0]).all()


def test_the_critics_loss_is_mse_v_plus_half_mse_u():
    critics = Critics(STATE, (4,), [1])
    batch = a_batch(a_policy((1,)))
    critics_pass = CriticPass(critics, learning_rate=1e-9, max_norm=1e9)
    critics_pass(batch, 1, SAMPLES, Streams([0]))
    loss = nn.functional.mse_loss(critics.value(batch.state), batch.value_target) + 0.5 * nn.functional.mse_loss(
        critics.uncertainty(batch.state), batch.uncertainty_target
    )
    wanted = torch.autograd.grad(loss, list(critics.parameters()))
    for parameter, gradient in zip(critics.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


def test_without_a_gpu_a_recorded_step_is_an_ordinary_call():
    calls = iter(range(10))
    recorded = Recorded(lambda: next(calls), torch.device("cpu"))
    assert [recorded() for _ in range(6)] == list(range(6))


# -- exploration ------------------------------------------------------------------------------------------------------


def test_mixture_weights_are_distributions():
    weights = exploration.mixture_weights(Streams([0, 1]), 5)
    assert weights.shape == (2, 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights.min() >= 0
    assert not torch.equal(weights[0], weights[1])


def test_the_bonus():
    a, u = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 2.0]])
    assert exploration.exploration_advantage(a, u, 10.0).tolist() == [[6.0, 19.0]]
    with pytest.raises(InputError, match="beta must be 0 or more"):
        exploration.exploration_advantage(a, u, -1.0)


def explored(policy: GaussianPolicy, policy_pass: PolicyPass):
    """Weights with which each real episode was played, the mixtures asked for, the episodes."""
    weights, mixtures = [], []

    def imagined(mixture: Tensor) -> Batch:
        mixtures.append(mixture)
        return a_batch(policy)

    def play_one(number: int) -> Episodes:
        weights.append([p.detach().clone() for p in policy.parameters()])
        return Episodes(*[torch.full((2, 1, 1), float(number))] * 6)

    episodes = exploration.explore(
        policy, policy_pass, imagined, play_one, Streams([5, 6]),
        policies=3, members=4, beta=10.0, epochs=2, minibatch=16,
    )  # fmt: skip
    return weights, mixtures, episodes


def test_exploration_policies_differ_and_are_put_back_but_adam_remembers():
    policy = a_policy()
    before, policy_pass = [p.detach().clone() for p in policy.parameters()], a_pass(policy)
    weights, mixtures, episodes = explored(policy, policy_pass)
    assert all(torch.equal(p, q) for p, q in zip(policy.parameters(), before, strict=True))
    assert [e.state[0, 0, 0].item() for e in episodes] == [0, 1, 2]
    assert len({tuple(m.flatten().tolist()) for m in mixtures}) == 3
    first = [tensors[0] for tensors in weights]
    assert not torch.equal(first[0], before[0])
    assert not torch.equal(first[0], first[1])
    steps = [moments["step"].item() for moments in policy_pass.optimizer.state.values()]
    assert set(steps) == {3 * 2 * SAMPLES // 16}, "the optimiser of the exploration policies was restarted"
