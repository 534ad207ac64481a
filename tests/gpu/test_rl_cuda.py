"""Worlds, goal rules and replay on a GPU: the numbers of the CPU, and all of it inside a CUDA graph."""

import pytest
import torch

from labkit.papers.sher.experiment.worlds.goal_rule import GoalRule
from labkit.papers.sher.experiment.worlds.robots import RobotWorld
from labkit.papers.sher.experiment.worlds.small import BitFlip, Reach, Walls
from labkit.papers.sher.method.hindsight import DRAWS, EpisodeBuffer, Episodes, Transitions
from labkit.rl.recorded import Recorded

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PEN = GoalRule(0.05, 0.1, ignores_turn_about_z=True)


def hand_goals(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and rotations, many of them near each other."""
    draw = torch.Generator().manual_seed(seed)
    goals = torch.randn(rows, 7, generator=draw)
    other = goals + 0.03 * torch.randn(rows, 7, generator=draw)
    for pose in (goals, other):
        pose[:, 3:] /= pose[:, 3:].norm(dim=-1, keepdim=True)
    return goals, other


@pytest.mark.parametrize(
    "make",
    [
        lambda device: BitFlip(8, device=device),
        lambda device: Reach(2, device=device),
        lambda device: Walls(["gap", "pocket", "twoway"], device=device),
    ],
    ids=["bits", "reach", "walls"],
)
def test_a_world_on_the_gpu_is_the_world_on_the_cpu(make):
    here, there = make("cpu"), make("cuda")
    draw = torch.Generator().manual_seed(9)
    observations = [world.reset(3, 50, [torch.Generator().manual_seed(k) for k in range(3)]) for world in (here, there)]
    for _ in range(here.horizon):
        if isinstance(here, BitFlip):
            action = torch.randint(8, (3, 50), generator=draw)
        else:
            action = 3 * torch.rand(3, 50, here.action_size, generator=draw) - 1.5
        observations = [here.step(action), there.step(action.cuda())]
        for key, value in observations[0].items():
            assert observations[1][key].is_cuda
            torch.testing.assert_close(observations[1][key].cpu(), value, rtol=0, atol=1e-5)
    rewards = [
        w.compute_reward(s["achieved_goal"], s["desired_goal"])
        for w, s in zip((here, there), observations, strict=True)
    ]
    assert (rewards[0] != rewards[1].cpu()).float().mean() < 0.01


def test_the_goal_rule_gives_the_same_rewards():
    achieved, desired = hand_goals(20_000)
    here, there = PEN.compute_reward(achieved, desired), PEN.compute_reward(achieved.cuda(), desired.cuda()).cpu()
    assert 0.05 < (here == 0).float().mean() < 0.95
    assert (here != there).float().mean() < 1e-3  # pairs at the very tolerance


def filled(device: str, episodes: int = 6, copies: int = 2, horizon: int = 10) -> EpisodeBuffer:
    draw = torch.Generator().manual_seed(1)
    buffer = EpisodeBuffer(copies, 8, horizon, 5, 7, 3, device=device)
    goals = hand_goals(copies * episodes * (horizon + 1))[0].reshape(copies, episodes, horizon + 1, 7)
    buffer.add(
        Episodes(
            torch.randn(copies, episodes, horizon + 1, 5, generator=draw),
            goals,
            goals[:, :, -1] + 0.01,
            torch.randn(copies, episodes, horizon, 3, generator=draw),
        )
    )
    return buffer


@pytest.mark.parametrize("strategy", ["future", "final", "episode", "random", "next", "none"])
def test_relabelled_transitions_are_those_of_the_cpu(strategy):
    here, there = filled("cpu"), filled("cuda")
    u = torch.rand(2, DRAWS, 500, generator=torch.Generator().manual_seed(3))
    rows = zip(
        here.take(u, PEN.compute_reward, strategy), there.take(u.cuda(), PEN.compute_reward, strategy), strict=True
    )
    for ours, theirs in rows:
        assert theirs.is_cuda
        assert torch.equal(ours, theirs.cpu())


def test_sampling_runs_inside_a_graph_and_sees_what_is_added_later():
    """The graph reads the random numbers and the number of episodes anew at each replay; nothing waits for the GPU."""
    buffer, plain = filled("cuda", episodes=1), filled("cuda", episodes=1)
    u = torch.zeros(2, DRAWS, 256, device="cuda")
    step: Recorded[Transitions] = Recorded(lambda: buffer.take(u, PEN.compute_reward), torch.device("cuda"))
    draw = torch.Generator().manual_seed(0)
    for number in range(8):
        u.copy_(torch.rand(u.shape, generator=draw))
        for graphed, eager in zip(step(), plain.take(u, PEN.compute_reward), strict=True):
            assert torch.equal(graphed, eager)
        if number == 5:  # long recorded by now
            for one in (buffer, plain):
                one.add(Episodes(*(values[:, :3] for values in only(filled("cuda")))))
    assert len(buffer) == 4


def only(buffer: EpisodeBuffer) -> Episodes:
    return Episodes(buffer.observation, buffer.achieved, buffer.desired, buffer.action)


def test_robots_hand_their_numbers_to_the_gpu():
    here, there = RobotWorld("FetchPush-v4"), RobotWorld("FetchPush-v4", threads=4, device="cuda")
    actions = 2 * torch.rand(5, 2, 3, 4, generator=torch.Generator().manual_seed(0)) - 1
    observations = [world.reset(2, 3, [torch.Generator().manual_seed(k) for k in range(2)]) for world in (here, there)]
    for action in actions:
        observations = [here.step(action), there.step(action.cuda())]
    for key, value in observations[0].items():
        assert torch.equal(observations[1][key].cpu(), value)
    here.close()
    there.close()
