"""The learners against plain re-statements, closed forms and each other."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from papers.sher.sher_stacks import SMALL, agent_of, normal, transitions
from torch import nn

from labkit.errors import InputError
from labkit.papers.sher.experiment.baselines import QLearning
from labkit.papers.sher.method.agent import Optimizers, Sizes, clip_target, explore
from labkit.papers.sher.method.model import GaussianPolicy, GoalInput
from labkit.rl.gaussian import gaussian_log_prob, tanh_gaussian

CPU = torch.device("cpu")
RATES = {"critic": 3e-3, "policy": 3e-3, "temperature": 1e-3}


def torch_network(stack, copy: int) -> nn.Sequential:
    """Copy `copy` of a StackedMLP in torch's own layers."""
    layers: list[nn.Module] = []
    for layer in stack.layers:
        linear = nn.Linear(layer.inputs, layer.outputs).double()
        linear.weight.data = layer.weight.data[copy].T.contiguous().clone()
        linear.bias.data = layer.bias.data[copy, 0].clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def gradients(losses, agent):
    return {
        name: torch.autograd.grad(losses[name].sum(), parameters, retain_graph=True)
        for name, parameters in agent.parts().items()
    }


# -- SHER against the formulas, one network at a time, in torch's own layers ------------------------------------------


@pytest.mark.parametrize("batch_entropy", [False, True])
@pytest.mark.parametrize("minimum", [False, True])
@pytest.mark.parametrize("clip", ["both", "lower", "none"])
def test_sher_is_the_sheets_losses(clip, minimum, batch_entropy):
    """Catches: V's target from V-bar, the minimum in the wrong place, a gradient into a target, a missing half."""
    agent = agent_of("sher", (1, 2), (0.3, 0.3), clip=clip, minimum_in_actor=minimum, batch_entropy=batch_entropy)
    nn.init.constant_(agent.v_target.network.layers[-1].bias[0], 3.0)  # so that the clip has something to cut
    nn.init.constant_(agent.v_target.network.layers[-1].bias[1], -30.0)
    batch, noise = transitions(2), normal(2, 32, 2)
    losses = agent.losses(batch, noise)
    for copy in range(2):
        pi, q1, q2, v, v_bar = (
            torch_network(stack, copy)
            for stack in (
                agent.policy.trunk,
                agent.q1.network,
                agent.q2.network,
                agent.v.network,
                agent.v_target.network,
            )
        )
        x = torch.cat([batch.observation[copy], batch.goal[copy]], 1)
        x2 = torch.cat([batch.next_observation[copy], batch.goal[copy]], 1)
        mean, raw = pi(x).chunk(2, 1)
        log_std = -5 + 0.5 * 7 * (torch.tanh(raw) + 1)
        u = mean + log_std.exp() * noise[copy]
        a = torch.tanh(u)
        gaussian = torch.distributions.Normal(mean, log_std.exp())
        log_pi = (gaussian.log_prob(u) - 2 * (math.log(2) - u - F.softplus(-2 * u))).sum(1)

        def q(net, action, x=x):
            return net(torch.cat([x, action], 1))[:, 0]

        target = batch.reward[copy] + SMALL.gamma * v_bar(x2)[:, 0] * ~batch.ended[copy]
        low, high = -1 / (1 - SMALL.gamma), 0.0
        target = {"both": target.clamp(low, high), "lower": target.clamp(min=low), "none": target}[clip].detach()
        least = torch.minimum(q(q1, a), q(q2, a))
        v_goal = (least - 0.3 * (log_pi.mean() if batch_entropy else log_pi)).detach()
        stored = batch.action[copy]
        j_q = 0.5 * F.mse_loss(q(q1, stored), target) + 0.5 * F.mse_loss(q(q2, stored), target)
        j_v = 0.5 * F.mse_loss(v(x)[:, 0], v_goal)
        j_pi = (0.3 * log_pi - (least if minimum else q(q1, a))).mean()
        torch.testing.assert_close(losses["critic"][copy], j_q + j_v)
        torch.testing.assert_close(losses["policy"][copy], j_pi)
        ours = torch.autograd.grad(losses["policy"][copy], agent.policy.trunk.layers[0].weight, retain_graph=True)[0]
        theirs = torch.autograd.grad(j_pi, pi[0].weight, retain_graph=True)[0]
        torch.testing.assert_close(ours[copy], theirs.T)
        ours = torch.autograd.grad(losses["critic"][copy], agent.v.network.layers[0].weight, retain_graph=True)[0]
        torch.testing.assert_close(ours[copy], torch.autograd.grad(j_v, v[0].weight)[0].T)


def test_batch_entropy_is_the_released_broadcast():
    """(B, 1) - alpha (B,) gives (B, B), and the mean square of (B, 1) against it the gradient that we have."""
    agent = agent_of("sher", (1,), (0.3,), batch_entropy=True)
    batch, noise = transitions(1), normal(1, 32, 2)
    x = agent.inputs(batch.observation, batch.goal)
    with torch.no_grad():
        action, log_pi = tanh_gaussian(*agent.policy(x), noise)
        least = torch.minimum(agent.q1(x, action), agent.q2(x, action))[0]
        backup = least[:, None] - 0.3 * log_pi[0]
    assert backup.shape == (32, 32)
    loss = 0.5 * ((backup - agent.v(x)[0][:, None]) ** 2).mean()
    parameters = list(agent.v.parameters())
    ours = torch.autograd.grad(agent.losses(batch, noise)["critic"].sum(), parameters)
    for mine, theirs in zip(ours, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_her_is_ddpg():
    agent = agent_of("her", (1, 2), (0.7, 0.7))
    batch = transitions(2)
    losses = agent.losses(batch, torch.zeros(2, 32, 2))
    for copy in range(2):
        pi, q_net = torch_network(agent.policy, copy), torch_network(agent.q.network, copy)
        x = torch.cat([batch.observation[copy], batch.goal[copy]], 1)
        x2 = torch.cat([batch.next_observation[copy], batch.goal[copy]], 1)
        y = batch.reward[copy] + SMALL.gamma * q_net(torch.cat([x2, torch.tanh(pi(x2))], 1))[:, 0] * ~batch.ended[copy]
        y = y.clamp(-1 / (1 - SMALL.gamma), 0).detach()
        a = torch.tanh(pi(x))
        j_pi = -q_net(torch.cat([x, a], 1)).mean() + 0.7 * (a**2).mean()
        j_q = 0.5 * F.mse_loss(q_net(torch.cat([x, batch.action[copy]], 1))[:, 0], y)
        torch.testing.assert_close(losses["critic"][copy], j_q)
        torch.testing.assert_close(losses["policy"][copy], j_pi)


def test_sac_2_bootstraps_with_fresh_actions_and_target_twins():
    agent = agent_of("sac", (1,), (0.2,), clip="none")
    nn.init.constant_(agent.q1_target.network.layers[-1].bias, 0.5)
    batch, noise = transitions(1), normal(1, 32, 4)
    x2 = torch.cat([batch.next_observation, batch.goal], -1)
    with torch.no_grad():
        mean, log_std = agent.policy(x2)
        a2, log_pi = tanh_gaussian(mean, log_std, noise[..., 2:])
        q = torch.minimum(agent.q1_target(x2, a2), agent.q2_target(x2, a2))
        y = batch.reward + SMALL.gamma * (q - 0.2 * log_pi) * ~batch.ended
        x = torch.cat([batch.observation, batch.goal], -1)
        wanted = 0.5 * ((agent.q1(x, batch.action) - y) ** 2 + (agent.q2(x, batch.action) - y) ** 2).mean()
    torch.testing.assert_close(agent.losses(batch, noise)["critic"][0], wanted)


def test_q_learning_takes_the_best_next_action():
    agent = QLearning(Sizes(3, 2, 4), SMALL, [torch.Generator().manual_seed(1)]).double()
    batch = transitions(1)
    batch = batch._replace(action=torch.arange(32).remainder(4).double()[None, :, None])
    x, x2 = (torch.cat([o, batch.goal], -1) for o in (batch.observation, batch.next_observation))
    with torch.no_grad():
        y = (batch.reward + SMALL.gamma * agent.q(x2).max(-1).values * ~batch.ended).clamp(-1 / (1 - SMALL.gamma), 0)
        chosen = torch.stack([agent.q(x)[0, row, int(batch.action[0, row, 0])] for row in range(32)])
    wanted = 0.5 * F.mse_loss(chosen, y[0])
    torch.testing.assert_close(agent.losses(batch, torch.zeros(1, 32, 1))["critic"][0], wanted)


# -- check 6: temperature is width ------------------------------------------------------------------------------------


def test_the_policy_gradient_settles_at_the_closed_form():
    """E[Q] + alpha H for Q = -c/2 (a - m)^2 and an unsquashed Gaussian: sigma^2 = alpha / c, mu = m."""
    alpha, curvature, peak = 0.04, 4.0, 0.3
    mean, log_std = (torch.zeros(1, requires_grad=True, dtype=torch.float64) for _ in range(2))
    noise = normal(100, 1)
    noise = torch.cat([noise, -noise])
    noise = noise / noise.pow(2).mean().sqrt()  # moments 0 and 1 exactly: the gradient has no scatter
    optimizer = torch.optim.LBFGS([mean, log_std], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        action = mean + log_std.exp() * noise
        log_pi = gaussian_log_prob(action, mean.expand_as(action), log_std)
        j_pi = (alpha * log_pi + curvature / 2 * (action[:, 0] - peak) ** 2).mean()
        j_pi.backward()
        return j_pi

    optimizer.step(loss)
    assert float(mean.detach()) == pytest.approx(peak, rel=1e-3)
    assert float(log_std.detach().exp()) == pytest.approx(math.sqrt(alpha / curvature), rel=1e-3)


# -- check 7: alpha -> 0 and sigma -> 0 is DDPG -----------------------------------------------------------------------


def test_without_entropy_and_width_the_actors_gradient_is_ddpgs():
    soft = agent_of("sher", (3,), (0.0,), log_std=(-30.0, -29.9))
    hard = agent_of("her", (3,), (0.0,))
    hard.q.load_state_dict(soft.q1.state_dict())
    with torch.no_grad():
        for ours, theirs in zip(hard.policy.layers, soft.policy.trunk.layers, strict=True):
            ours.weight.copy_(theirs.weight[..., : ours.outputs])
            ours.bias.copy_(theirs.bias[..., : ours.outputs])
    batch, noise = transitions(1), normal(1, 32, 2)
    mine = gradients(soft.losses(batch, noise), soft)["policy"]
    wanted = gradients(hard.losses(batch, noise), hard)["policy"]
    for ours, theirs in zip(mine, wanted, strict=True):
        torch.testing.assert_close(ours[..., : theirs.shape[-1]], theirs)


# -- check 11: a stack is its networks --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sher", "sac", "her"])
def test_a_stack_trains_as_its_networks_alone(name):
    """Ten updates of three copies with temperatures (penalties) and seeds of their own against three stacks of one."""
    values, seeds = (0.03, 0.1, 0.5 if name == "her" else None), (4, 5, 6)

    def learn(rows):
        agent = agent_of(name, seeds[rows], values[rows])
        optimizers = Optimizers(agent, RATES, CPU)
        for step in range(10):
            batch, noise = transitions(3, seed=step), normal(3, 32, agent.noise_size, seed=step)
            optimizers.descend(agent.losses(type(batch)(*(v[rows] for v in batch)), noise[rows]))
            agent.update_targets(0.9)
        return agent.state_dict()

    together = learn(slice(0, 3))
    for copy in range(3):
        alone = learn(slice(copy, copy + 1))
        for key, value in together.items():
            if key in alone and value.dim() and len(value) == 3:
                # in double precision: Adam turns the sign of a gradient that is all rounding into a whole step
                torch.testing.assert_close(
                    value[copy], alone[key][0], rtol=1e-4, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
                )


def test_learned_temperature_moves_only_where_it_is_learned_and_towards_the_target():
    agent = agent_of("sher", (1, 2), (0.03, None))
    optimizers = Optimizers(agent, {"critic": 3e-3, "policy": 1e-9, "temperature": 0.05}, CPU)
    for step in range(20):
        optimizers.descend(agent.losses(transitions(2, seed=step), normal(2, 32, 2, seed=step)))
    fixed, learned = agent.temperature().flatten().tolist()
    assert fixed == pytest.approx(0.03)
    # a fresh policy of width about 1 has far more entropy than -2: Adam lowers log alpha by .05 in each of 20 steps
    assert learned == pytest.approx(0.1 * math.exp(-1), rel=0.05)


# -- check 10: the same numbers in Stable-Baselines3 ------------------------------------------------------------------


def test_stable_baselines3_gives_the_same_actions_and_densities():
    sb3 = pytest.importorskip("stable_baselines3.sac.policies")
    import gymnasium
    from stable_baselines3.common.torch_layers import FlattenExtractor

    agent = agent_of("sher", (1,), (0.03,)).float()
    box = gymnasium.spaces.Box(-1, 1, (5,))
    actor = sb3.Actor(box, gymnasium.spaces.Box(-1, 1, (2,)), [16, 16], FlattenExtractor(box), 5)
    ours = agent.policy.trunk.layers
    with torch.no_grad():
        for layer, position in zip(ours[:2], (0, 2), strict=True):
            actor.latent_pi[position].weight.copy_(layer.weight[0].T)
            actor.latent_pi[position].bias.copy_(layer.bias[0, 0])
        for head, half in ((actor.mu, slice(0, 2)), (actor.log_std, slice(2, 4))):
            head.weight.copy_(ours[2].weight[0].T[half])
            head.bias.copy_(ours[2].bias[0, 0, half])
    x, noise = normal(50, 5).float(), normal(1, 50, 2, seed=1).float()
    with torch.no_grad():
        mean, raw, _ = actor.get_action_dist_params(x)
        log_std = -5 + 3.5 * (torch.tanh(agent.policy.trunk(x[None])[0, :, 2:]) + 1)  # ours squashes, SB3 clips
        torch.testing.assert_close(raw, agent.policy.trunk(x[None])[0, :, 2:].clamp(-20, 2), atol=1e-5, rtol=0)
        torch.testing.assert_close(actor(x, deterministic=True), agent.act(x[None], None)[0], atol=1e-5, rtol=0)
        action, log_prob = tanh_gaussian(mean[None], log_std[None], noise)
        theirs = actor.action_dist.proba_distribution(mean, log_std).log_prob(action[0])
    inside = action[0].abs().amax(-1) < 0.9  # SB3 adds 1e-6 inside of the logarithm, and inverts the tanh in float32
    assert int(inside.sum()) > 25
    torch.testing.assert_close(log_prob[0][inside], theirs[inside], atol=1e-3, rtol=0)


# -- parts ------------------------------------------------------------------------------------------------------------


def test_the_official_head_is_a_bottleneck():
    """Both heads read dim(a) numbers: the Jacobian of (mean, raw) has rank 2 at most, the standard one has rank 4."""
    x = normal(1, 1, 5).float()
    for head, rank in (("official", 2), ("standard", 4)):
        policy = GaussianPolicy(1, 5, 2, (16, 16), head, (-5.0, 2.0), 1.0, [torch.Generator().manual_seed(0)])
        jacobian = torch.autograd.functional.jacobian(lambda y, p=policy: torch.cat(p(y), -1).flatten(), x)
        assert int(torch.linalg.matrix_rank(jacobian.view(4, 5), rtol=1e-4)) == rank
        _, log_std = policy(10 * x)
        assert bool((log_std >= -5).all())
        assert bool((log_std <= 2).all())


def test_the_clip():
    target = torch.tensor([[-30.0, -5.0, 3.0]])
    assert clip_target(target, 0.95, "both").tolist() == [[pytest.approx(-20), -5.0, 0.0]]
    assert clip_target(target, 0.95, "lower").tolist() == [[pytest.approx(-20), -5.0, 3.0]]
    assert clip_target(target, 0.95, "none").tolist() == target.tolist()
    with pytest.raises(InputError, match="clip must be"):
        clip_target(target, 0.95, "upper")


def test_targets_are_clipped_to_what_rewards_can_add_up_to():
    """Rewards of 0 and 1: a geometric series; of 1 and 2: once and then the end, or 2 for ever. Catches -20 and 0."""
    target = torch.tensor([[-3.0, 0.5, 15.0, 30.0, 70.0]])
    assert clip_target(target, 0.95, "both", (0.0, 1.0))[0].tolist() == pytest.approx([0.0, 0.5, 15.0, 20.0, 20.0])
    assert clip_target(target, 0.95, "both", (1.0, 2.0))[0].tolist() == pytest.approx([1.0, 1.0, 15.0, 30.0, 40.0])
    assert clip_target(target, 0.95, "lower", (0.0, 1.0))[0].tolist() == pytest.approx([0.0, 0.5, 15.0, 30.0, 70.0])


@pytest.mark.parametrize(("rewards", "gamma"), [((0.0, 0.0), 0.9), ((0.0, math.nan), 0.9), ((-1.0, 0.0), 1.0)])
def test_settings_that_bound_no_value(rewards, gamma):
    with pytest.raises(InputError, match=r"gamma must|rewards are"):
        replace(SMALL, rewards=rewards, gamma=gamma)


def test_nothing_follows_an_end():
    """The next state of an ended transition has no say in the losses, and everywhere else it has."""
    for name in ("sher", "sac", "her"):
        agent = agent_of(name, (1,), (0.2,), clip="none")
        for network in (getattr(agent, n) for n in ("v_target", "q_target", "q1_target") if hasattr(agent, n)):
            nn.init.normal_(network.network.layers[0].weight)
        batch, noise = transitions(1), normal(1, 32, agent.noise_size)
        for ended in (True, False):
            flags = torch.full((1, 32), ended)
            losses = [
                agent.losses(batch._replace(next_observation=state, ended=flags), noise)["critic"]
                for state in (batch.next_observation, batch.next_observation + 1)
            ]
            assert torch.equal(*losses) == ended, name


def test_exploration_by_the_numbers():
    rows = 200_000
    generator = torch.Generator().manual_seed(0)
    action = torch.zeros(2, rows, 1)
    noise, random = torch.randn(2, rows, 1, generator=generator), torch.full((2, rows, 1), 7.0)
    coin = torch.rand(2, rows, generator=generator)
    out = explore(action, noise, coin, random, torch.tensor([[0.2], [0.0]]), torch.tensor([[0.3], [0.0]]))
    assert float((out[0] == 7).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert float(out[0][out[0] != 7].std()) == pytest.approx(0.2, rel=0.01)
    assert bool((out[1] == 0).all())
    assert float(explore(action + 1, noise + 5, coin, random, torch.ones(2, 1), torch.zeros(2, 1)).max()) == 1


def test_inputs_are_normalised_with_the_goals_trained_with():
    inputs = GoalInput(1, 3, 2, normalize=True)
    batch = transitions(1, rows=500)
    inputs.update(batch)
    out = inputs(batch.observation, batch.goal)
    assert float(out.mean()) == pytest.approx(0, abs=0.01)
    assert float(out.std()) == pytest.approx(1, abs=0.02)
    plain = GoalInput(1, 3, 2, normalize=False)
    plain.update(batch)
    assert torch.equal(plain(batch.observation, batch.goal), torch.cat([batch.observation, batch.goal], -1))
