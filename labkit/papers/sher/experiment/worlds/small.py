"""Goal-reaching worlds that run in thousands at once, as tensors.

Every world has a leading dimension `copies` (one training seed each) and, behind it, `episodes` played side by side:

    world = Walls("twoway")
    now = world.reset(copies=10, episodes=8, generators=generators)   # {"observation", "achieved_goal", "desired_goal"}
    now = world.step(action)                                          # each of shape (copies, episodes, size)
    reward = world.compute_reward(now["achieved_goal"], now["desired_goal"])   # -1 away from the goal, 0 at it

Episodes end at the `horizon` only. The reward is that of the next state: r_t = -1[ ||m(s_{t+1}) - g|| > tolerance ].
Copy i draws from generator i alone: its starts and goals do not depend on the other copies.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from labkit.errors import InputError
from labkit.papers.sher.method.hindsight import EndsAt

Point = tuple[float, float]
Segment = tuple[Point, Point]
Box = tuple[float, float, float, float]  # x from, x to, y from, y to
Observation = dict[str, Tensor]
Ends = tuple[Tensor | None, Tensor | None]  # lengths and ended, see `Episodes`


@runtime_checkable
class GoalEnvironment(Protocol):
    """The face of all worlds, small ones and robots."""

    horizon: int
    observation_size: int
    goal_size: int
    action_size: int

    @property
    def rewards(self) -> tuple[float, float]: ...  # the least and the greatest
    @property
    def ends_at(self) -> EndsAt | None: ...  # None: the environment ends at no goal
    @property
    def over(self) -> bool: ...  # have all episodes ended before the horizon?
    @property
    def ends(self) -> Ends: ...  # of the episodes since the last reset
    def reset(
        self, copies: int, episodes: int, generators: Sequence[Generator], training: bool = True
    ) -> Observation: ...
    def step(self, action: Tensor) -> Observation: ...
    def is_success(self, achieved: Tensor, desired: Tensor) -> Tensor: ...
    def compute_reward(self, achieved: Tensor, desired: Tensor) -> Tensor: ...


class FixedHorizon:
    """Worlds whose episodes all last for `horizon` steps: time ends them, nothing else. Rewards are -1 and 0."""

    rewards: tuple[float, float] = (-1.0, 0.0)
    ends_at: EndsAt | None = None
    over: bool = False
    ends: Ends = (None, None)


class BitFlip(FixedHorizon):
    """Turn one row of n bits into another; n steps are always enough, and one in 2^n random rows is right.

    An action is the index of the bit to flip: (copies, episodes) integers.
    """

    def __init__(self, bits: int, *, device: str | torch.device = "cpu") -> None:
        if bits < 1:
            raise InputError(f"bits must be at least 1; got {bits}")
        self.horizon = self.observation_size = self.goal_size = self.action_size = bits
        self.device = torch.device(device)
        self._state = self._goal = torch.zeros(0, 0, bits, device=self.device)

    def reset(self, copies: int, episodes: int, generators: Sequence[Generator], training: bool = True) -> Observation:
        """New rows and new goals, both uniform; training and test goals have the same distribution."""
        drawn = (_uniform(copies, episodes, 2 * self.goal_size, generators) < 0.5).float().to(self.device)
        self._state, self._goal = drawn.chunk(2, dim=-1)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """Flip the chosen bit."""
        shape = self._state.shape[:-1]
        if action.shape != shape or action.is_floating_point():
            raise InputError(f"action must be {tuple(shape)} bit indices; got {tuple(action.shape)} of {action.dtype}")
        flips = torch.nn.functional.one_hot(action.long(), self.goal_size).float()
        self._state = (self._state - flips).abs()
        return self._observe()

    def is_success(
        self, achieved: Float[Tensor, "*batch bits"], desired: Float[Tensor, "*batch bits"]
    ) -> Bool[Tensor, "*batch"]:
        """All bits agree."""
        return (achieved == desired).all(-1)

    def compute_reward(
        self, achieved: Float[Tensor, "*batch bits"], desired: Float[Tensor, "*batch bits"]
    ) -> Float[Tensor, "*batch"]:
        """-1 while a bit is wrong, else 0."""
        return self.is_success(achieved, desired).float() - 1

    def _observe(self) -> Observation:
        return {"observation": self._state, "achieved_goal": self._state, "desired_goal": self._goal}


class _Near(FixedHorizon):
    """Worlds whose goal is a position, reached within `tolerance` of it."""

    tolerance: float

    def is_success(
        self, achieved: Float[Tensor, "*batch space"], desired: Float[Tensor, "*batch space"]
    ) -> Bool[Tensor, "*batch"]:
        """Within the tolerance, in Euclid's distance (also through a wall)."""
        return (achieved - desired).norm(dim=-1) <= self.tolerance

    def compute_reward(
        self, achieved: Float[Tensor, "*batch space"], desired: Float[Tensor, "*batch space"]
    ) -> Float[Tensor, "*batch"]:
        """-1 outside the tolerance, else 0."""
        return self.is_success(achieved, desired).float() - 1


class Reach(_Near):
    """A point in [-1, 1]^d that moves by `step` * clip(a, -1, 1); start and goal are uniform. The optimum is known."""

    def __init__(
        self,
        dimensions: int = 1,
        step: float = 0.1,
        tolerance: float = 0.05,
        horizon: int = 50,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        for name, value, low in (("dimensions", dimensions, 1), ("horizon", horizon, 1)):
            if value < low:
                raise InputError(f"{name} must be at least {low}; got {value}")
        for name, size in (("step", step), ("tolerance", tolerance)):
            if not 0 < size <= 2:
                raise InputError(f"{name} must lie in (0, 2], the width of the world; got {size}")
        self.observation_size = self.goal_size = self.action_size = dimensions
        self.stride, self.tolerance, self.horizon, self.device = step, tolerance, horizon, torch.device(device)
        self._position = self._goal = torch.zeros(0, 0, dimensions, device=self.device)

    def reset(self, copies: int, episodes: int, generators: Sequence[Generator], training: bool = True) -> Observation:
        """New starts and goals, both uniform; training and test goals have the same distribution."""
        drawn = (2 * _uniform(copies, episodes, 2 * self.goal_size, generators) - 1).to(self.device)
        self._position, self._goal = drawn.chunk(2, dim=-1)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """p <- clip(p + step * clip(a, -1, 1), -1, 1)"""
        _refuse_other_shape(action, self._position)
        self._position = (self._position + self.stride * action.clamp(-1, 1)).clamp(-1, 1)
        return self._observe()

    def penalties(
        self, position: Float[Tensor, "*batch space"], goal: Float[Tensor, "*batch space"]
    ) -> Float[Tensor, "*batch"]:
        """Number of rewards of -1 under the optimal policy.

        After n steps a point can be anywhere in the box of half-width n * step around it. Let n be the least number of
        steps whose box touches the goal's ball. The n-th reward is 0, so max(n, 1) - 1 rewards are -1.
        """
        away = (position - goal).abs()
        most = int(2 / self.stride) + 2
        reach = self.stride * torch.arange(most, device=away.device, dtype=away.dtype)
        left = (away[..., None, :] - reach[:, None]).clamp_min(0).norm(dim=-1)  # (*batch, steps)
        steps = (left > self.tolerance).sum(-1)
        return (steps.clamp_min(1) - 1).to(away.dtype)

    def optimal_value(
        self, position: Float[Tensor, "*batch space"], goal: Float[Tensor, "*batch space"], gamma: float
    ) -> Float[Tensor, "*batch"]:
        """V*(p, g) = -(1 - gamma^k) / (1 - gamma) with k = `penalties(p, g)`, over an infinite horizon."""
        if not 0 <= gamma < 1:
            raise InputError(f"gamma must lie in [0, 1); got {gamma}")
        return -(1 - gamma ** self.penalties(position, goal)) / (1 - gamma)

    def _observe(self) -> Observation:
        return {"observation": self._position, "achieved_goal": self._position, "desired_goal": self._goal}


class Push(_Near):
    """A point in [-1, 1]^2 that moves by `step` * clip(a, -1, 1) and pushes a disc; the goal is a position of the disc.

    The disc has no mass: where the point would enter it, the disc moves away along the line between the two. At the
    edge of the world the disc stops, and the point with it. The difficulty is FetchPush's [ours]: while the disc is not
    touched the achieved goal does not change, so every relabelled reward is 0.

    Args:
        radius: of the disc. It must be larger than a step's diagonal, or the point could jump across.
    """

    def __init__(
        self,
        step: float = 0.1,
        radius: float = 0.2,
        tolerance: float = 0.15,
        horizon: int = 50,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        if horizon < 1:
            raise InputError(f"horizon must be at least 1; got {horizon}")
        for name, size in (("step", step), ("radius", radius), ("tolerance", tolerance)):
            if not 0 < size <= 1:
                raise InputError(f"{name} must lie in (0, 1], half the width of the world; got {size}")
        if radius <= step * 2**0.5:
            raise InputError(f"radius {radius} must be above {step * 2**0.5:.3f}, a step's diagonal")
        self.observation_size, self.goal_size, self.action_size = 4, 2, 2
        self.stride, self.radius, self.tolerance = step, radius, tolerance
        self.horizon, self.device = horizon, torch.device(device)
        self._point = self._disc = self._goal = torch.zeros(0, 0, 2, device=self.device)

    def reset(self, copies: int, episodes: int, generators: Sequence[Generator], training: bool = True) -> Observation:
        """Point anywhere beside the disc, disc in the inner half, goal in the inner .7; all uniform, tests too."""
        drawn = (2 * _uniform(copies, episodes, 6, generators) - 1).to(self.device)
        self._disc, self._goal = 0.5 * drawn[..., 2:4], 0.7 * drawn[..., 4:]
        self._point = self._outside(drawn[..., :2], self._disc)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """The point moves, the disc gives way, and at the edge the point does."""
        _refuse_other_shape(action, self._point)
        point = (self._point + self.stride * action.clamp(-1, 1)).clamp(-1, 1)
        self._disc = self._outside(self._disc, point).clamp(-1, 1)
        self._point = self._outside(point, self._disc).clamp(-1, 1)
        return self._observe()

    def _outside(self, mover: Float[Tensor, "*batch 2"], other: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """`mover`, shifted straight away from `other` to a distance of `radius` where it is nearer than that."""
        apart = mover - other
        distance = apart.norm(dim=-1, keepdim=True)
        sideways = torch.tensor([1.0, 0.0], device=mover.device)  # one on top of the other: any direction will do
        direction = torch.where(distance > 0, apart / distance.clamp_min(1e-12), sideways)
        return torch.where(distance < self.radius, other + self.radius * direction, mover)

    def _observe(self) -> Observation:
        observation = torch.cat([self._point, self._disc - self._point], dim=-1)
        return {"observation": observation, "achieved_goal": self._disc, "desired_goal": self._goal}


@dataclass(frozen=True)
class Layout:
    """Walls without thickness, and where episodes start and where goals lie (a box is picked, then a point in it)."""

    walls: tuple[Segment, ...]
    starts: tuple[Box, ...]
    training_goals: tuple[Box, ...]
    test_goals: tuple[Box, ...]

    def __post_init__(self) -> None:
        for (x0, y0), (x1, y1) in self.walls:
            if x0 != x1 and y0 != y1:
                raise InputError(f"a wall must be vertical or horizontal; got ({x0}, {y0}) to ({x1}, {y1})")
        for name in ("starts", "training_goals", "test_goals"):
            if not getattr(self, name):
                raise InputError(f"{name} needs at least one box (x from, x to, y from, y to)")


EVERYWHERE: Box = (-0.9, 0.9, -0.9, 0.9)

# [ours] One obstacle each: a gap at the top, two equally short ways round, a pocket that is a trap.
LAYOUTS: dict[str, Layout] = {
    "gap": Layout(
        walls=(((0.0, -1.1), (0.0, 0.3)),),
        starts=((-0.6, -0.4, -0.5, 0.0),),
        training_goals=(EVERYWHERE,),
        test_goals=((0.2, 0.8, -0.7, 0.0),),
    ),
    "twoway": Layout(
        walls=(((0.0, -0.4), (0.0, 0.4)),),
        starts=((-0.4, -0.3, -0.1, 0.1),),
        training_goals=(EVERYWHERE,),
        test_goals=((0.2, 0.7, -0.3, 0.3),),
    ),
    "pocket": Layout(
        walls=(((0.2, -0.2), (0.2, 0.2)), ((-0.1, 0.2), (0.2, 0.2)), ((-0.1, -0.2), (0.2, -0.2))),
        starts=((-0.05, 0.05, -0.05, 0.05),),
        training_goals=(EVERYWHERE,),
        test_goals=((0.4, 0.8, -0.3, 0.3),),
    ),
}


class Walls(_Near):
    """A point in the square [-1, 1]^2 that moves by `step` * clip(a, -1, 1) and slides along walls it cannot cross.

    `layout` is a name out of LAYOUTS, a Layout, or one of these per copy, so that several layouts train in one stack.
    A wall cancels the component of the move that would cross it or end on it; the other component is kept. Vertical
    walls are checked first, horizontal ones second, vertical ones once more: a horizontal wall changes the path, and
    the new path may cross a vertical wall that the first one missed. Training goals lie everywhere, test goals in the
    layout's own region (behind the wall).
    """

    observation_size = goal_size = action_size = 2

    def __init__(
        self,
        layout: "str | Layout | Sequence[str | Layout]",
        *,
        step: float = 0.2,
        tolerance: float = 0.15,
        horizon: int = 25,
        device: str | torch.device = "cpu",
    ) -> None:
        if horizon < 1 or step <= 0 or tolerance <= 0:
            raise InputError(f"step, tolerance and horizon must be positive; got {step}, {tolerance}, {horizon}")
        given: list[str | Layout] = [layout] if isinstance(layout, (str, Layout)) else list(layout)
        if not given:
            raise InputError(f"layout needs at least one name: {', '.join(LAYOUTS)}")
        self.layouts = tuple(_layout(one) for one in given)
        self.copies = None if isinstance(layout, (str, Layout)) else len(self.layouts)
        self.stride, self.tolerance, self.horizon, self.device = step, tolerance, horizon, torch.device(device)
        self._vertical = _stack_walls(self.layouts, across=0).to(self.device)
        self._horizontal = _stack_walls(self.layouts, across=1).to(self.device)
        self._boxes = {name: _stack_boxes(self.layouts, name) for name in ("starts", "training_goals", "test_goals")}
        self._position = self._goal = torch.zeros(0, 0, 2, device=self.device)

    @property
    def walls(self) -> tuple[Segment, ...]:
        """The segments to draw, where all copies share one layout."""
        if len(set(self.layouts)) > 1:
            raise InputError("the copies have different layouts: ask layouts[copy].walls")
        return self.layouts[0].walls

    def reset(self, copies: int, episodes: int, generators: Sequence[Generator], training: bool = True) -> Observation:
        """New starts; goals everywhere when `training`, else in the layout's test region."""
        if self.copies not in (None, copies):
            raise InputError(f"this world has a layout for each of {self.copies} copies; got copies={copies}")
        drawn = _uniform(copies, episodes, 6, generators)
        self._position = _in_boxes(self._boxes["starts"], drawn[..., :3]).to(self.device)
        goals = self._boxes["training_goals" if training else "test_goals"]
        self._goal = _in_boxes(goals, drawn[..., 3:]).to(self.device)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """Move; walls stop."""
        _refuse_other_shape(action, self._position)
        self._position = self.move(self._position, action)
        return self._observe()

    def move(
        self, position: Float[Tensor, "copies episodes 2"], action: Float[Tensor, "copies episodes 2"]
    ) -> Float[Tensor, "copies episodes 2"]:
        """The position after `action` at `position`; the world's own state does not change."""
        target = (position + self.stride * action.clamp(-1, 1)).clamp(-1, 1)
        for walls, across in ((self._vertical, 0), (self._horizontal, 1), (self._vertical, 0)):
            if walls.shape[1]:
                target = _stop(position, target, walls, across)
        return target

    def _observe(self) -> Observation:
        return {"observation": self._position, "achieved_goal": self._position, "desired_goal": self._goal}


def _layout(given: str | Layout) -> Layout:
    if isinstance(given, Layout):
        return given
    if given not in LAYOUTS:
        near = difflib.get_close_matches(given, LAYOUTS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"there is no layout '{given}'{hint} (layouts: {', '.join(LAYOUTS)})")
    return LAYOUTS[given]


def _stack_walls(layouts: Sequence[Layout], across: int) -> Float[Tensor, "copies walls 3"]:
    """Walls across axis `across` as (coordinate, from, to); smaller layouts are filled up with NaN: never crossed."""
    rows = []
    for layout in layouts:
        kept = [w for w in layout.walls if w[0][across] == w[1][across] and w[0][1 - across] != w[1][1 - across]]
        ends = [sorted((first[1 - across], second[1 - across])) for first, second in kept]
        rows.append([(wall[0][across], low, high) for wall, (low, high) in zip(kept, ends, strict=True)])
    most = max(len(row) for row in rows)
    nothing = (float("nan"),) * 3
    return torch.tensor([row + [nothing] * (most - len(row)) for row in rows]).reshape(len(rows), most, 3)


def _stack_boxes(
    layouts: Sequence[Layout], name: str
) -> tuple[Float[Tensor, "copies boxes 4"], Float[Tensor, "copies 1"]]:
    rows = [list(getattr(layout, name)) for layout in layouts]
    most = max(len(row) for row in rows)
    boxes = torch.tensor([row + row[:1] * (most - len(row)) for row in rows])
    return boxes, torch.tensor([[float(len(row))] for row in rows])


def _in_boxes(
    boxes: tuple[Tensor, Tensor], drawn: Float[Tensor, "copies episodes 3"]
) -> Float[Tensor, "copies episodes 2"]:
    """The first number picks the box, the other two the point in it."""
    corners, counts = boxes
    index = (drawn[..., 0] * counts).long()  # (copies, episodes)
    corners = corners.expand(len(drawn), -1, -1)
    chosen = corners.gather(1, index[..., None].expand(-1, -1, 4))
    low, high = chosen[..., 0::2], chosen[..., 1::2]
    return low + (high - low) * drawn[..., 1:]


def _stop(
    start: Float[Tensor, "copies episodes 2"],
    target: Float[Tensor, "copies episodes 2"],
    walls: Float[Tensor, "#copies walls 3"],
    across: int,
) -> Float[Tensor, "copies episodes 2"]:
    """Cancel the component `across` of every move that crosses one of the walls."""
    wall, low, high = (walls[:, None, :, k] for k in range(3))  # (copies, 1, walls)
    begin, end = start[..., across, None], target[..., across, None]
    meets = ((begin - wall) * (end - wall) <= 0) & (begin != wall) & (begin != end)
    along = start[..., 1 - across, None]
    share = (wall - begin) / torch.where(begin == end, torch.ones_like(begin), end - begin)
    where = along + share * (target[..., 1 - across, None] - along)
    rounding = 1e-6  # two walls that share a corner leave no hole between them
    hit = (meets & (where >= low - rounding) & (where <= high + rounding)).any(-1)
    stopped = torch.where(hit, start[..., across], target[..., across])
    other = target[..., 1 - across]
    return torch.stack((stopped, other) if across == 0 else (other, stopped), dim=-1)


def _uniform(
    copies: int, episodes: int, numbers: int, generators: Sequence[Generator]
) -> Float[Tensor, "copies episodes numbers"]:
    """Row i of the result comes from generator i and from nothing else."""
    if copies < 1 or episodes < 1:
        raise InputError(f"copies and episodes must be at least 1; got {copies} and {episodes}")
    if len(generators) != copies:
        raise InputError(f"each of the {copies} copies needs a generator of its own; got {len(generators)} generators")
    return torch.stack([torch.rand(episodes, numbers, generator=one, device=one.device) for one in generators])


def _refuse_other_shape(action: Tensor, position: Tensor) -> None:
    if action.shape != position.shape:
        raise InputError(
            f"action must have the shape (copies, episodes, size) = {tuple(position.shape)} of the last reset; "
            f"got {tuple(action.shape)}"
        )
