"""Linear models: the closed form, the sampled code and brute force agree."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.pombu.method import lqr
from labkit.papers.pombu.method.uncertainty import local_uncertainty, propagate

HORIZON = 12


@pytest.fixture(scope="module")
def rolled():
    """Trajectories in which every step follows a member drawn at random."""
    models, generator = lqr.example(), torch.Generator().manual_seed(0)
    state, states, actions, following = torch.randn(6, 4, generator=generator, dtype=torch.float64), [], [], []
    for _ in range(HORIZON):
        noise = torch.randn(6, 2, generator=generator, dtype=torch.float64)
        action = -state @ models.gain.T + models.std * noise
        after = models.next_states(state, action)
        states.append(state)
        actions.append(action)
        following.append(after)
        state = after[torch.arange(6), torch.randint(5, (6,), generator=generator)]
    return models, torch.stack(states, 1), torch.stack(actions, 1), torch.stack(following, 1)


def test_value_matrices_are_the_mean_of_sampled_returns():
    models, generator = lqr.example(), torch.Generator().manual_seed(1)
    a, b = models.a.mean(0), models.b.mean(0)
    start = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    state, total = start.expand(40_000, 4), torch.zeros(40_000, dtype=torch.float64)
    for t in range(HORIZON):
        noise = torch.randn(40_000, 2, generator=generator, dtype=torch.float64)
        action = -state @ models.gain.T + models.std * noise
        total = total + models.gamma**t * models.reward(state, action)
        state = state @ a.T + action @ b.T
    p, c = lqr.value_functions(models, HORIZON)
    error = 4 * float(total.std()) / 200
    assert float(total.mean()) == pytest.approx(float(lqr.value(models, p[0], c[0], start)), abs=error)


def test_the_sampled_code_gives_the_closed_form(rolled):
    models, states, actions, following = rolled
    p, c = lqr.value_functions(models, HORIZON)
    reward = models.reward(states, actions)
    q = torch.stack(
        [
            reward[:, t, None] + models.gamma * lqr.value(models, p[t + 1], c[t + 1], following[:, t])
            for t in range(HORIZON)
        ]
    )  # (time, batch, members)
    u = local_uncertainty(q, dim=-1)
    trace = propagate(reward.T, u, gamma=models.gamma)
    closed = lqr.closed_form_uncertainty(models, states, actions)
    torch.testing.assert_close(trace.uncertainty_target.T, closed, rtol=1e-9, atol=1e-12)
    assert float(closed[:, :-2].min()) > 0
    assert (closed[:, -1] == 0).all()  # V is 0 after the last step, and the reward is known


def test_certain_models_have_no_uncertainty(rolled):
    _, states, actions, _ = rolled
    one = lqr.example()
    same = lqr.LinearEnsemble(
        one.a[:1].expand(5, 4, 4), one.b[:1].expand(5, 4, 2), one.cost_state, one.cost_action, one.gain, 0.2, 0.97
    )
    assert float(lqr.closed_form_uncertainty(same, states, actions).abs().max()) < 1e-20


def test_shapes_that_do_not_fit_are_refused():
    one = lqr.example()
    with pytest.raises(InputError, match="gain must be"):
        lqr.LinearEnsemble(one.a, one.b, one.cost_state, one.cost_action, one.gain.T, 0.2, 0.97)
