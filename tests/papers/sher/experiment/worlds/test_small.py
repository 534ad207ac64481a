"""Goal worlds against known values, against exact geometry in fractions, and against worlds with a bug put in."""

import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.sher.experiment.worlds import small
from labkit.papers.sher.experiment.worlds.small import (
    EVERYWHERE,
    LAYOUTS,
    BitFlip,
    GoalEnvironment,
    Layout,
    Push,
    Reach,
    Walls,
)

CLOSED = Layout(  # a room without a door, and one wall inside that touches two of its sides in corners
    walls=(
        ((-0.5, -0.5), (-0.5, 0.5)),
        ((0.5, -0.5), (0.5, 0.5)),
        ((-0.5, -0.5), (0.5, -0.5)),
        ((-0.5, 0.5), (0.5, 0.5)),
        ((0.1, -0.5), (0.1, 0.2)),
    ),
    starts=((-0.4, 0.4, -0.4, 0.4),),
    training_goals=(EVERYWHERE,),
    test_goals=(EVERYWHERE,),
)
OPEN = Layout(walls=(), starts=((-0.6, -0.4, -0.5, 0.5),), training_goals=(EVERYWHERE,), test_goals=(EVERYWHERE,))
WORLDS = {
    "bits": lambda: BitFlip(6),
    "line": lambda: Reach(1),
    "plane": lambda: Reach(2, step=0.2, tolerance=0.1, horizon=20),
    "push": Push,
    **{name: lambda name=name: Walls(name) for name in LAYOUTS},
    "open": lambda: Walls(OPEN),
}


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def actions(world: GoalEnvironment, copies: int, episodes: int, steps: int, seed: int = 5) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    if isinstance(world, BitFlip):
        return [torch.randint(world.action_size, (copies, episodes), generator=draw) for _ in range(steps)]
    shape = (copies, episodes, world.action_size)
    return [1.5 * torch.randn(shape, generator=draw) for _ in range(steps)]


@pytest.mark.parametrize("make", WORLDS.values(), ids=WORLDS)
def test_a_copy_is_the_same_alone_and_among_others(make):
    many, alone = make(), make()
    asked = actions(many, 3, 4, steps=12)
    for training in (True, False):
        together = [many.reset(3, 4, generators(1, 2, 3), training), *map(many.step, asked)]
        single = [alone.reset(1, 4, generators(2), training), *(alone.step(a[1:2]) for a in asked)]
        for one, other in zip(together, single, strict=True):
            for key in ("observation", "achieved_goal", "desired_goal"):
                assert torch.equal(one[key][1:2], other[key])
        assert not torch.equal(together[0]["observation"][0], together[0]["observation"][2])


@pytest.mark.parametrize("make", WORLDS.values(), ids=WORLDS)
def test_sizes_rewards_and_that_the_past_stays(make):
    world = make()
    assert isinstance(world, GoalEnvironment)
    first = world.reset(2, 5, generators(0, 1))
    kept = {key: value.clone() for key, value in first.items()}
    for action in actions(world, 2, 5, steps=3):
        now = world.step(action)
    assert all(torch.equal(first[key], kept[key]) for key in kept)  # a stored state is not overwritten by the next
    assert now["observation"].shape == (2, 5, world.observation_size)
    assert now["achieved_goal"].shape == now["desired_goal"].shape == (2, 5, world.goal_size)
    goal = now["desired_goal"]
    assert torch.equal(world.compute_reward(goal, goal), torch.zeros(2, 5))
    far = 1 - goal if isinstance(world, BitFlip) else goal + 1
    assert torch.equal(world.compute_reward(far, goal), -torch.ones(2, 5))
    assert torch.equal(
        world.is_success(now["achieved_goal"], goal), world.compute_reward(now["achieved_goal"], goal) == 0
    )


def placed(point: tuple[float, float], disc: tuple[float, float]) -> Push:
    world = Push(step=0.1, radius=0.2)
    world.reset(1, 1, generators(0))
    world._point, world._disc = (torch.tensor(position)[None, None] for position in (point, disc))
    return world


def test_a_disc_is_pushed_straight_and_only_where_it_is_touched():
    world = placed((-0.5, 0.0), (0.0, 0.0))
    where = [world.step(torch.tensor([[[1.0, 0.0]]]))["achieved_goal"][0, 0].tolist() for _ in range(5)]
    assert where[:3] == [[0.0, 0.0]] * 3  # the point is at -.4, -.3, -.2: now they touch
    np.testing.assert_allclose(where[3:], [[0.1, 0.0], [0.2, 0.0]], atol=1e-6)
    world = placed((-0.25, 0.1), (0.0, 0.0))
    now = world.step(torch.tensor([[[1.0, 0.0]]]))
    point, disc = now["observation"][0, 0, :2], now["achieved_goal"][0, 0]
    normal = torch.tensor([0.15, -0.1]) / torch.tensor([0.15, -0.1]).norm()  # a push beside the middle turns it aside
    torch.testing.assert_close(disc, torch.tensor([-0.15, 0.1]) + 0.2 * normal)
    torch.testing.assert_close(now["observation"][0, 0, 2:], disc - point)


def test_at_the_edge_the_disc_stands_and_the_point_with_it():
    world = placed((0.75, 0.0), (0.97, 0.0))
    for _ in range(3):
        now = world.step(torch.tensor([[[1.0, 0.0]]]))
    torch.testing.assert_close(now["achieved_goal"][0, 0], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(now["observation"][0, 0, :2], torch.tensor([0.8, 0.0]))
    back = world.step(torch.tensor([[[-1.0, 0.0]]]))
    torch.testing.assert_close(back["achieved_goal"][0, 0], torch.tensor([1.0, 0.0]))  # it is pushed, never pulled


def test_nothing_is_entered_nothing_leaves_and_what_is_not_touched_teaches_nothing():
    world = Push()
    first = world.reset(2, 200, generators(0, 1))
    assert float((first["observation"][..., 2:].norm(dim=-1)).min()) >= 0.2 - 1e-6
    path = [first["achieved_goal"]]
    for action in actions(world, 2, 200, steps=50):
        now = world.step(action)
        path.append(now["achieved_goal"])
        point, gap = now["observation"][..., :2], now["observation"][..., 2:].norm(dim=-1)
        assert float(now["achieved_goal"].abs().max()) <= 1
        assert float(point.abs().max()) <= 1
        free = (now["achieved_goal"].abs() < 0.8).all(-1)  # in a corner there may be no room for both
        assert float(gap[free].min()) >= 0.2 - 1e-5
    discs = torch.stack(path, 2)
    still = (discs == discs[:, :, :1]).all(-1).all(-1)
    assert 0.1 < float(still.float().mean()) < 0.9
    rewards = world.compute_reward(discs[:, :, 1:-1], discs[:, :, 2:])  # relabelled with what comes next
    assert bool((rewards[still] == 0).all())


def test_bits_flip_one_at_a_time():
    world = BitFlip(4)
    start = world.reset(1, 3, generators(0))["observation"].clone()
    now = world.step(torch.tensor([[0, 2, 2]]))["observation"]
    assert (now != start).tolist() == [
        [[True, False, False, False], [False, False, True, False], [False, False, True, False]]
    ]
    assert torch.equal(world.step(torch.tensor([[0, 2, 2]]))["observation"], start)
    many = BitFlip(4).reset(1, 20_000, generators(1))
    right = (many["observation"] == many["desired_goal"]).all(-1).float().mean()
    assert abs(right - 1 / 16) < 4 * (1 / 16 * 15 / 16 / 20_000) ** 0.5


def test_the_optimal_value_on_a_line_has_its_known_values():
    """-(1 - .98^k) / .02 for k = 1, 10, 50 penalties; the goal is k + 1 steps away, for arriving is not punished."""
    world = Reach(1, step=0.01, tolerance=0.005)
    goal = torch.zeros(3, 1, dtype=torch.float64)
    position = 0.01 * torch.tensor([[2.0], [11.0], [51.0]], dtype=torch.float64)
    assert world.penalties(position, goal).tolist() == [1, 10, 50]
    expected = torch.tensor([-1.0, -9.146, -31.79], dtype=torch.float64)
    torch.testing.assert_close(world.optimal_value(position, goal, 0.98), expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_optimal_value_is_what_the_straight_way_earns(dimensions):
    """Moving every coordinate straight to the goal is optimal here; its discounted rewards, summed, are V*."""
    world, gamma = Reach(dimensions, step=0.15, tolerance=0.12), 0.9
    now = world.reset(4, 500, generators(0, 1, 2, 3))
    value = world.optimal_value(now["achieved_goal"].double(), now["desired_goal"].double(), gamma)
    earned = torch.zeros(4, 500, dtype=torch.float64)
    for t in range(40):
        now = world.step((now["desired_goal"] - now["achieved_goal"]) / world.stride)
        earned += gamma**t * world.compute_reward(now["achieved_goal"], now["desired_goal"]).double()
    torch.testing.assert_close(value, earned, rtol=0, atol=1e-9)
    assert value.unique().numel() > 8


def test_no_policy_beats_the_optimal_value():
    """Breadth-first search over a grid of places, step .1 on a grid of .05: the least steps to the ball."""
    world = Reach(1, step=0.1, tolerance=0.06)
    places = torch.linspace(-1, 1, 41, dtype=torch.float64)
    goal = torch.tensor([0.35], dtype=torch.float64)
    steps = torch.where((places - goal).abs() <= 0.06, 0.0, torch.inf)
    for n in range(1, 41):
        near = torch.stack([steps.roll(k) for k in (-2, -1, 1, 2)])
        near[0, -2:], near[1, -1:], near[2, :1], near[3, :2] = (torch.inf,) * 4
        steps = torch.where((near.amin(0) == n - 1) & steps.isinf(), n, steps)
    penalties = world.penalties(places[:, None], goal.expand(41, 1))
    assert torch.equal(penalties, (steps - 1).clamp_min(0))


def crosses(start: tuple[Fraction, ...], end: tuple[Fraction, ...], wall, across: int) -> bool:
    """Exactly: does the way from start to end meet the wall, other than by beginning on it?"""
    (first, second), position = wall, Fraction(wall[0][across])
    low, high = sorted((Fraction(first[1 - across]), Fraction(second[1 - across])))
    a, b = start[across] - position, end[across] - position
    if a == 0 or a * b > 0 or start[across] == end[across]:
        return False
    where = start[1 - across] + (end[1 - across] - start[1 - across]) * a / (a - b)
    return low <= where <= high


def exact_move(start: list[float], move: list[float], layout: Layout) -> list[float]:
    """The three looks in fractions, wall by wall: an independent way to say what `Walls.step` does."""
    position = tuple(Fraction(x) for x in start)
    goal = [min(max(p + Fraction(m), Fraction(-1)), Fraction(1)) for p, m in zip(position, move, strict=True)]
    for across in (0, 1, 0):
        for wall in layout.walls:
            if wall[0][across] == wall[1][across] and crosses(position, tuple(goal), wall, across):
                goal[across] = position[across]
    return [float(x) for x in goal]


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), CLOSED, OPEN], ids=[*LAYOUTS, "closed", "open"])
def test_steps_agree_with_geometry_in_fractions(layout):
    world = Walls(layout)
    draw = torch.Generator().manual_seed(3)
    position = (2 * torch.rand(1, 400, 2, generator=draw) - 1).mul(0.7)
    action = 2 * torch.rand(1, 400, 2, generator=draw) - 1
    moved = world.move(position, action)
    expected = [exact_move(p, a, layout) for p, a in zip(position[0].tolist(), (0.2 * action)[0].tolist(), strict=True)]
    torch.testing.assert_close(moved[0], torch.tensor(expected), rtol=0, atol=1e-6)
    free = (position + 0.2 * action).clamp(-1, 1)
    assert (moved != free).any() == bool(layout.walls)  # the draw meets walls where there are some


def check_nobody_leaves_the_closed_room(world: Walls) -> None:
    now = world.reset(1, 3000, generators(7))
    for action in actions(world, 1, 3000, steps=150):
        now = world.step(action)
    assert now["observation"].abs().max() < 0.5


def test_a_closed_room_has_no_leak():
    check_nobody_leaves_the_closed_room(Walls(CLOSED))


class VerticalOnlyOnce(Walls):
    def move(self, position: Tensor, action: Tensor) -> Tensor:
        target = (position + self.stride * action.clamp(-1, 1)).clamp(-1, 1)
        for walls, across in ((self._vertical, 0), (self._horizontal, 1)):
            target = small._stop(position, target, walls, across)
        return target


class LandingIsNotCrossing(Walls):
    """A point that comes to lie on the wall walks through with its next step."""

    def move(self, position: Tensor, action: Tensor) -> Tensor:
        moved = super().move(position, action)
        free = (position + self.stride * action.clamp(-1, 1)).clamp(-1, 1)
        landed = (free == 0.5).any(-1, keepdim=True)
        return torch.where(landed, free, moved)


def test_the_leak_check_rejects_a_single_look():
    with pytest.raises(AssertionError):
        check_nobody_leaves_the_closed_room(VerticalOnlyOnce(CLOSED))


def check_landing_on_a_wall_is_crossing(world: Walls) -> None:
    right = torch.tensor([[[1.0, 0.0]]])
    position = torch.tensor([[[0.3, 0.0]]])
    world.stride = 0.2
    once = world.move(position, right)
    assert world.move(once, right)[0, 0, 0] < 0.5


def test_landing_on_a_wall_is_crossing():
    check_landing_on_a_wall_is_crossing(Walls(CLOSED))
    with pytest.raises(AssertionError):
        check_landing_on_a_wall_is_crossing(LandingIsNotCrossing(CLOSED))


def test_a_point_slides_along_a_wall():
    moved = Walls("twoway").move(torch.tensor([[[-0.1, 0.0]]]), torch.tensor([[[1.0, 0.5]]]))
    torch.testing.assert_close(moved, torch.tensor([[[-0.1, 0.1]]]))
    over = Walls("twoway").move(torch.tensor([[[-0.1, 0.39]]]), torch.tensor([[[1.0, 0.5]]]))  # crosses at y = .44
    torch.testing.assert_close(over, torch.tensor([[[0.1, 0.49]]]))


def test_starts_and_goals_lie_where_the_setting_says():
    """[ours] The lesson's setting: training goals anywhere within .9, test goals behind the wall; 25 steps of .2."""
    regions = {
        "gap": ((-0.6, -0.4, -0.5, 0.0), (0.2, 0.8, -0.7, 0.0)),
        "twoway": ((-0.4, -0.3, -0.1, 0.1), (0.2, 0.7, -0.3, 0.3)),
        "pocket": ((-0.05, 0.05, -0.05, 0.05), (0.4, 0.8, -0.3, 0.3)),
    }
    for name, (start, goal) in regions.items():
        world = Walls(name)
        assert (world.horizon, world.stride, world.tolerance) == (25, 0.2, 0.15)
        for training, region in ((True, (-0.9, 0.9, -0.9, 0.9)), (False, goal)):
            now = world.reset(2, 4000, generators(0, 1), training)
            for points, box in ((now["observation"], start), (now["desired_goal"], region)):
                low, high = torch.tensor(box[0::2]), torch.tensor(box[1::2])
                assert ((points >= low) & (points <= high)).all()
                spread = (points.amax((0, 1)) - points.amin((0, 1))) / (high - low)
                assert (spread > 0.99).all()


def test_copies_may_live_in_different_worlds():
    names = ["gap", "pocket", OPEN, "twoway"]
    mixed = Walls(names)
    assert mixed.reset(4, 6, generators(0, 1, 2, 3), training=False)["observation"].shape == (4, 6, 2)
    asked = actions(mixed, 4, 6, steps=25)
    alone = [Walls(name) for name in names]
    for k, world in enumerate(alone):
        world.reset(1, 6, generators(k), training=False)
    for action in asked:
        now = mixed.step(action)
        for k, world in enumerate(alone):
            assert torch.equal(now["observation"][k : k + 1], world.step(action[k : k + 1])["observation"])
    with pytest.raises(InputError, match=r"ask layouts\[copy\]"):
        _ = mixed.walls
    assert mixed.layouts[1].walls == alone[1].walls == LAYOUTS["pocket"].walls


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: BitFlip(0), "bits must be at least 1; got 0"),
        (lambda: Push(horizon=0), "horizon must be at least 1; got 0"),
        (lambda: Push(tolerance=0.0), "tolerance must lie in (0, 1]"),
        (lambda: Push(step=0.15, radius=0.2), "radius 0.2 must be above 0.212, a step's diagonal"),
        (lambda: Reach(0), "dimensions must be at least 1; got 0"),
        (lambda: Reach(2, step=0.0), "step must lie in (0, 2]"),
        (lambda: Reach(2, tolerance=-1.0), "tolerance must lie in (0, 2]"),
        (
            lambda: Reach(1).optimal_value(torch.zeros(1, 1), torch.zeros(1, 1), 1.0),
            "gamma must lie in [0, 1); got 1.0",
        ),
        (lambda: Walls("two-way"), "did you mean 'twoway'? (layouts: gap, twoway, pocket)"),
        (lambda: Walls([]), "layout needs at least one name"),
        (lambda: Walls("gap", step=0.0), "must be positive"),
        (
            lambda: Layout((((0.0, 0.0), (1.0, 1.0)),), (EVERYWHERE,), (EVERYWHERE,), (EVERYWHERE,)),
            "vertical or horizontal",
        ),
        (lambda: Layout((), (), (EVERYWHERE,), (EVERYWHERE,)), "starts needs at least one box"),
        (lambda: Walls("gap").reset(2, 3, generators(0)), "each of the 2 copies needs a generator of its own; got 1"),
        (lambda: Walls("gap").reset(1, 0, generators(0)), "copies and episodes must be at least 1; got 1 and 0"),
        (lambda: Walls(["gap", "pocket"]).reset(1, 3, generators(0)), "a layout for each of 2 copies; got copies=1"),
        (lambda: Walls("gap").step(torch.zeros(1, 1, 2)), "shape (copies, episodes, size) = (0, 0, 2)"),
    ],
)
def test_bad_input_is_refused_in_words(wrong, text):
    with pytest.raises(InputError, match=re.escape(text)):
        wrong()


def test_a_bit_world_says_which_actions_it_takes():
    world = BitFlip(3)
    world.reset(1, 2, generators(0))
    for action in (torch.zeros(1, 2, 3), torch.zeros(1, 2)):
        with pytest.raises(InputError, match=re.escape("action must be (1, 2) bit indices")):
            world.step(action)
