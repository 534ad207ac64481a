"""The Fetch and Shadow-Hand tasks of gymnasium-robotics, many at once, stepped without their Python overhead.

    tasks = make_goal_vector("FetchReach-v4", count=8, seed=0)
    now = tasks.reset()                     # {"observation", "achieved_goal", "desired_goal"}: (8, size), float64
    now = tasks.step(actions)               # actions (8, tasks.action_size)
    reward = tasks.compute_reward(now["achieved_goal"], now["desired_goal"])    # any batch, arrays or tensors

An environment's own `step` looks up joints and sites by name, builds lists and copies them, every time; here the
addresses are looked up once and what is left is MuJoCo's `mj_step`. All states are those of the environment's own
`step`, bit for bit (`lean=False` runs that one instead). Environments share one compiled model and differ in their
data; a reset is the environment's own. MuJoCo lets go of Python's lock while it computes, so `threads` may step
several at a time.
"""

import atexit
import contextlib
import copy
import difflib
import io
import math
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from labkit.errors import InputError
from labkit.rl.vector import member_seed

Array = NDArray[np.float64]
Observation = dict[str, Array]
Batch = TypeVar("Batch", Tensor, NDArray[Any])

HAND_OBJECTS = {
    "Block": ("", "Full", "RotateZ", "RotateParallel", "RotateXYZ"),
    "Egg": ("", "Full", "Rotate"),
    "Pen": ("", "Full", "Rotate"),
}
TASKS = (
    *(f"Fetch{name}-v4" for name in ("Reach", "Push", "PickAndPlace", "Slide")),
    "HandReach-v3",
    *(f"HandManipulate{thing}{variant}-v1" for thing, variants in HAND_OBJECTS.items() for variant in variants),
)
FETCH_CAMERA = {  # half as far as the environments' own: at 160 pixels a goal must be more than one of them [ours]
    "distance": 1.2, "azimuth": 135.0, "elevation": -20.0, "lookat": np.array([1.3, 0.75, 0.6]),
}  # fmt: skip
MUJOCO_FROM, MUJOCO_BELOW = (3, 3), (3, 12)  # from 3.12 on, gymnasium-robotics cannot tell a hinge from a slide


@dataclass(frozen=True)
class GoalRule:
    """When a goal is reached, and what it is worth: the environment's own rule for whole batches.

    Positions (and fingertips): d = ||achieved - desired||, reached where d < `distance`.
    Objects in the hand carry seven numbers, place and unit quaternion: both d < `distance` and angle < `rotation`, with
    angle = 2 arccos(q_a conj(q_d))_w. That angle does not know that q and -q are one rotation [official code], and for
    pens it leaves out the turn about z (Euler's, order xyz). The reward is 0 where reached, else -1; `dense`, -d or
    -(10 d + angle).

    The environment's own rule, given a batch, mixes up rows where the turn about z is left out: it equates the third
    *row* of the Euler angles. This one does to every row of a batch what the environment does to a single goal.
    """

    distance: float
    rotation: float | None = None
    uses_position: bool = True
    uses_rotation: bool = True
    ignores_turn_about_z: bool = False
    dense: bool = False

    def is_success(self, achieved: Batch, desired: Batch) -> Batch:
        """True where the goal is reached; (..., goal) -> (...), arrays or tensors as given."""
        first, second = _as_tensors(achieved, desired)
        return _as_given(self._reached(*self._gaps(first, second)), achieved)

    def compute_reward(self, achieved: Batch, desired: Batch) -> Batch:
        """0 where the goal is reached and -1 elsewhere, or minus the distance (`dense`); single precision if sparse."""
        first, second = _as_tensors(achieved, desired)
        gap, angle = self._gaps(first, second)
        if self.dense:
            return _as_given(-gap if self.rotation is None else -(10 * gap + angle), achieved)
        if self.rotation is None:  # a gap of exactly the tolerance is not punished, and yet no success [official code]
            return _as_given(-(gap > self.distance).float(), achieved)
        return _as_given(self._reached(gap, angle).float() - 1, achieved)

    def _reached(self, gap: Tensor, angle: Tensor) -> Tensor:
        near = gap < self.distance
        return near if self.rotation is None else near & (angle < self.rotation)

    def _gaps(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and angle between goals, (...) each; an ignored one is 0."""
        nothing = torch.zeros(achieved.shape[:-1], dtype=achieved.dtype, device=achieved.device)
        if self.rotation is None:
            return (achieved - desired).norm(dim=-1), nothing
        gap = (achieved[..., :3] - desired[..., :3]).norm(dim=-1) if self.uses_position else nothing
        if not self.uses_rotation:
            return gap, nothing
        first, second = achieved[..., 3:].double(), desired[..., 3:].double()  # an arccos near 1 needs the digits
        if self.ignores_turn_about_z:
            x, y, _ = euler_from_quaternion(first).unbind(-1)
            z = euler_from_quaternion(second)[..., 2]
            first = quaternion_from_euler(torch.stack([x, y, z], dim=-1))
        cosine = (first * second).sum(-1)  # the scalar part of q_a conj(q_d)
        return gap, 2 * cosine.clamp(-1, 1).arccos()


def euler_from_quaternion(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Angles about x, y, z (each about the axis as turned so far) of the rotation q = (w, x, y, z)."""
    w, x, y, z = (q * (2 / q.square().sum(-1, keepdim=True)).sqrt()).unbind(-1)  # products below are then 2 q_i q_j
    m00, m01, m02 = 1 - (y * y + z * z), x * y - w * z, x * z + w * y
    m10, m11, m12 = x * y + w * z, 1 - (x * x + z * z), y * z - w * x
    m22 = 1 - (x * x + y * y)
    level = (m22.square() + m12.square()).sqrt()
    regular = level > 4 * torch.finfo(torch.float64).eps  # else the x and z axes coincide and x is put to 0
    about_x = torch.where(regular, -torch.atan2(m12, m22), torch.zeros_like(level))
    about_y = -torch.atan2(-m02, level)
    about_z = torch.where(regular, -torch.atan2(m01, m00), -torch.atan2(-m10, m11))
    return torch.stack([about_x, about_y, about_z], dim=-1)


def quaternion_from_euler(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """(w, x, y, z) of the turn about x, then y, then z, in the axes as turned so far: q = q_x q_y q_z."""
    cx, cy, cz = (angles / 2).cos().unbind(-1)
    sx, sy, sz = (angles / 2).sin().unbind(-1)
    return torch.stack(
        [
            cx * cy * cz - sx * sy * sz,
            sx * cy * cz + cx * sy * sz,
            cx * sy * cz - sx * cy * sz,
            cx * cy * sz + sx * sy * cz,
        ],
        dim=-1,
    )


class GoalVector:
    """`count` copies of one task. Made by `make_goal_vector`; see the top of this file."""

    def __init__(self, env_id: str, count: int, seed: int, environments: Sequence[Any], lean: bool) -> None:
        template: Any = environments[0].unwrapped
        self.env_id, self.count, self.seed, self.lean = env_id, count, seed, lean
        self.horizon: int = environments[0].spec.max_episode_steps
        space = template.observation_space
        self.observation_size: int = space["observation"].shape[0]
        self.goal_size: int = space["desired_goal"].shape[0]
        self.action_size: int = template.action_space.shape[0]
        self.rule = goal_rule(template)
        self._environments = list(environments)
        self._tasks: list[Any] = [one.unwrapped for one in environments]
        self._pool = ThreadPoolExecutor(len(environments)) if lean and len(environments) > 1 else None
        self._seeded = self._started = self._rendered = False
        self._goals = np.zeros((count, self.goal_size))
        self._new = copy.copy(template.data)
        if lean:
            self._data = [copy.copy(template.data) for _ in range(count)]
            self._randomness = [template.np_random] * count  # each gets its own at its first reset
            self._stepper = _stepper(self._tasks, self._data)

    def reset(self, seeds: Sequence[int] | None = None) -> Observation:
        """New episodes in all environments.

        Without `seeds` the first reset seeds them from the vector's own seed and later ones go on in the same random
        streams. With `seeds`, one each, an episode depends on its seed alone: it is that of a newly made environment,
        whatever was played before (the hand's own reset leaves traces of the last episode in its simulator).
        """
        if seeds is not None and len(seeds) != self.count:
            raise InputError(f"one seed an environment is needed, {self.count} in all; got {len(seeds)}")
        given: list[int | None]
        if seeds is not None:
            given = list(seeds)
        else:
            given = [None if self._seeded else member_seed(self.seed, index) for index in range(self.count)]
        if self.lean:
            self._in_threads(lambda index: self._reset_lean(index, given[index], as_new=seeds is not None))
            seen = self._observe()
        else:
            if seeds is not None:
                self._renew()
            seen = _stack([task.reset(seed=seed)[0] for task, seed in zip(self._tasks, given, strict=True)])
        self._seeded = self._started = True
        return seen

    def step(self, actions: NDArray[np.floating[Any]]) -> Observation:
        """One step, 20 of the simulator's; actions are clipped to [-1, 1]. Nothing ends: count to `horizon`."""
        if actions.shape != (self.count, self.action_size):
            raise InputError(
                f"actions must be (environments, {self.env_id}'s action size) = {(self.count, self.action_size)}; "
                f"got {actions.shape}"
            )
        if not self._started:
            raise InputError("call reset() before the first step")
        if not self.lean:
            return _stack([task.step(action)[0] for task, action in zip(self._tasks, actions, strict=True)])
        controls = self._stepper.controls(np.clip(actions, -1, 1))
        self._in_threads(lambda index: self._stepper.advance(index, controls[index]))
        return self._observe()

    def compute_reward(self, achieved: Batch, desired: Batch) -> Batch:
        """`GoalRule.compute_reward` of this task."""
        return self.rule.compute_reward(achieved, desired)

    def is_success(self, achieved: Batch, desired: Batch) -> Batch:
        """`GoalRule.is_success` of this task."""
        return self.rule.is_success(achieved, desired)

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """A picture (height, width, 3) of environment `index`, goal included. It leaves the simulation as it was."""
        if self._environments[0].render_mode != "rgb_array":
            raise InputError("to see pictures make the vector with render=(width, height)")
        if not self.lean:
            frame = self._tasks[index].render()
        else:
            import mujoco

            task = self._tasks[0]
            mujoco.mj_copyData(task.data, task.model, self._data[index])  # its own data takes no part in stepping
            task.goal = self._goals[index]
            frame = task.render()
        if not self._rendered:
            atexit.register(_close, weakref.ref(self))  # before the GL itself is shut down, or it complains
            self._rendered = True
        return frame

    def _renew(self) -> None:
        """Put every simulator into the state it was made in."""
        for task in self._tasks:
            task._mujoco.mj_copyData(task.data, task.model, self._new)

    def close(self) -> None:
        """Stop the threads and close the environments (and their picture contexts)."""
        if self._pool is not None:
            self._pool.shutdown()
        for environment in self._environments:
            environment.close()

    def _reset_lean(self, index: int, seed: int | None, as_new: bool) -> None:
        """The task's own reset, on this environment's data and random stream."""
        task = self._tasks[index % len(self._tasks)]  # a thread has one task, whose data its environments borrow
        if as_new:
            task._mujoco.mj_copyData(self._data[index], task.model, self._new)
        with _borrowed(task, self._data[index]):
            task.np_random = self._randomness[index]
            task.reset(seed=seed)
            self._randomness[index], self._goals[index] = task.np_random, task.goal
            self._stepper.capture(index)

    def _observe(self) -> Observation:
        observation, achieved = self._stepper.observe()
        return {"observation": observation, "achieved_goal": achieved, "desired_goal": self._goals.copy()}

    def _in_threads(self, call: Any) -> None:
        if self._pool is None:
            for index in range(self.count):
                call(index)
            return
        threads = len(self._tasks)

        def several(first: int) -> None:
            for index in range(first, self.count, threads):
                call(index)

        for _ in self._pool.map(several, range(threads)):
            pass


def _close(vector: "weakref.ref[GoalVector]") -> None:
    if (alive := vector()) is not None:
        alive.close()


class RoboticsWorld:
    """A task as a `GoalEnvironment`: tensors of (copies, episodes, size), every episode drawn by its copy's generator.

    An episode's seed is the next number of generator i, so copy i plays the same episodes alone and among others, and
    a generator's state is all that has to be kept to go on after an interruption. Training and test goals come from
    the same law.
    """

    def __init__(
        self,
        env_id: str,
        *,
        lean: bool = True,
        render: tuple[int, int] | None = None,
        threads: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        self.env_id, self.device = env_id, torch.device(device)
        self._options = (lean, render, threads)
        first = make_goal_vector(env_id, 1, 0, *self._options)
        self._vectors = {1: first}  # by number of environments: training and test differ in it
        self._shape = (1, 1)
        self.horizon, self.rule, self.action_size = first.horizon, first.rule, first.action_size
        self.observation_size, self.goal_size = first.observation_size, first.goal_size

    @property
    def vector(self) -> GoalVector:
        """The environments of the last reset, copy by copy."""
        return self._vectors[math.prod(self._shape)]

    def reset(
        self, copies: int, episodes: int, generators: Sequence[torch.Generator], training: bool = True
    ) -> dict[str, Tensor]:
        """New episodes, as many for each copy."""
        if copies < 1 or episodes < 1 or len(generators) != copies:
            raise InputError(
                f"{copies} copies of {episodes} episodes need at least one of each and a generator per copy; "
                f"got {len(generators)} generators"
            )
        self._shape = (copies, episodes)
        if copies * episodes not in self._vectors:
            count = copies * episodes
            self._vectors[count] = make_goal_vector(self.env_id, count, 0, *self._options)
        drawn = [torch.randint(2**31, (episodes,), generator=one, device=one.device).tolist() for one in generators]
        return self._as_tensors(self.vector.reset([seed for row in drawn for seed in row]))

    def step(self, action: Float[Tensor, "copies episodes action"]) -> dict[str, Tensor]:
        """One step of every episode."""
        if action.shape != (*self._shape, self.action_size):
            raise InputError(
                f"action must have the shape (copies, episodes, size) = {(*self._shape, self.action_size)} "
                f"of the last reset; got {tuple(action.shape)}"
            )
        return self._as_tensors(self.vector.step(action.detach().flatten(0, 1).cpu().numpy()))

    def is_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`GoalRule.is_success` of this task."""
        return self.rule.is_success(achieved, desired)

    def compute_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`GoalRule.compute_reward` of this task."""
        return self.rule.compute_reward(achieved, desired)

    def close(self) -> None:
        """Stop the threads and close the environments."""
        for vector in self._vectors.values():
            vector.close()

    def _as_tensors(self, seen: Observation) -> dict[str, Tensor]:
        return {
            key: torch.from_numpy(value).float().unflatten(0, self._shape).to(self.device)
            for key, value in seen.items()
        }


def make_goal_vector(
    env_id: str,
    count: int,
    seed: int,
    lean: bool = True,
    render: tuple[int, int] | None = None,
    threads: int = 1,
) -> GoalVector:
    """`count` environments of a Fetch or Hand task with goals; `render=(width, height)` if pictures are wanted.

    Raises InputError early: an id that does not exist (with the nearest ones), a task without goals, a MuJoCo release
    that gymnasium-robotics cannot work with.
    """
    if count < 1 or threads < 1:
        raise InputError(f"count and threads must be at least 1; got {count} and {threads}")
    if threads > 1 and not lean:
        raise InputError("threads need lean=True: the environments' own step is all Python, one thread at a time")
    options: dict[str, Any] = {}
    if render is not None:
        from labkit.papers.sher.teaching import rendering

        rendering.require_gl()  # before MuJoCo is imported: which GL it uses is settled there
        options = {"render_mode": "rgb_array", "width": render[0], "height": render[1]}
        if env_id.startswith("Fetch"):
            options["default_camera_config"] = FETCH_CAMERA
    check_task(env_id)
    import gymnasium

    environments = [
        gymnasium.make(env_id, disable_env_checker=True, **options)
        for _ in range(min(threads, count) if lean else count)
    ]
    return GoalVector(env_id, count, seed, environments, lean)


def check_task(env_id: str) -> None:
    """Raise InputError unless `env_id` is a Fetch or Hand task that this installation can run."""
    check_mujoco()
    register()
    import gymnasium

    spec = gymnasium.registry.get(env_id)
    known = sorted(name for name, one in gymnasium.registry.items() if _is_goal_task(one))
    if spec is None:
        near = difflib.get_close_matches(env_id, known, n=3) or list(TASKS)
        raise InputError(f"there is no environment '{env_id}'; did you mean {' or '.join(near)}?")
    if "MujocoPy" in str(spec.entry_point):
        stem = env_id.rpartition("-v")[0]
        newer = next(name for name in known if name.rpartition("-v")[0] == stem)
        raise InputError(f"'{env_id}' needs the abandoned package mujoco-py; use '{newer}'")
    if not _is_goal_task(spec):
        raise InputError(
            f"'{env_id}' is not a Fetch or Hand task with goals to relabel; tasks with goals: {', '.join(TASKS)}"
        )


def check_mujoco() -> None:
    """Raise InputError if the MuJoCo at hand is not one that gymnasium-robotics can work with."""
    from importlib.metadata import PackageNotFoundError, version

    span = f"mujoco>={'.'.join(map(str, MUJOCO_FROM))},<{'.'.join(map(str, MUJOCO_BELOW))}"
    try:
        found = version("mujoco")
    except PackageNotFoundError:
        raise InputError(f"MuJoCo is not installed: pip install '{span}'") from None
    release = tuple(int(part) for part in found.split(".")[:2])
    if not MUJOCO_FROM <= release < MUJOCO_BELOW:
        raise InputError(
            f"MuJoCo {found} is installed, and with it every Fetch and Hand environment stops in an assertion "
            f"of gymnasium-robotics: pip install '{span}'"
        )


_registering = threading.Lock()


def register() -> None:
    """Make the ids of gymnasium-robotics known; its notice about tasks not used here stays unprinted."""
    import gymnasium

    with _registering, contextlib.redirect_stderr(io.StringIO()):  # two threads at once would leave it redirected
        import gymnasium_robotics
    gymnasium.register_envs(gymnasium_robotics)


def goal_rule(task: Any) -> GoalRule:
    """The rule of an (unwrapped) Fetch or Hand environment."""
    dense = task.reward_type != "sparse"
    if not hasattr(task, "rotation_threshold"):
        return GoalRule(task.distance_threshold, dense=dense)
    return GoalRule(
        task.distance_threshold,
        task.rotation_threshold,
        uses_position=task.target_position != "ignore",
        uses_rotation=task.target_rotation != "ignore",
        ignores_turn_about_z=task.ignore_z_target_rotation,
        dense=dense,
    )


def _is_goal_task(spec: Any) -> bool:
    entry = str(spec.entry_point)
    folders = ("gymnasium_robotics.envs.fetch.", "gymnasium_robotics.envs.shadow_dexterous_hand.")
    return entry.startswith(folders) and "MujocoPy" not in entry


@contextlib.contextmanager
def _borrowed(task: Any, data: Any) -> Iterator[None]:
    """Let the task work on other data for a moment."""
    own, task.data = task.data, data
    try:
        yield
    finally:
        task.data = own


class _Fetch:
    """A gripper led by a mocap body: positions of sites, their velocities, the fingers (and the object)."""

    def __init__(self, task: Any, data: list[Any]) -> None:
        self.model, self.data, self.task = task.model, data, task
        self.mujoco, self.substeps, self.dt = task._mujoco, task.n_substeps, task.dt
        self.blocked, self.has_object = task.block_gripper, task.has_object
        self.body = _welded_body(task)
        names = task._model_names
        self.grip = names.site_name2id["robot0:grip"]
        self.thing = names.site_name2id["object0"] if self.has_object else None
        fingers = [names.joint_name2id[f"robot0:{side}_gripper_finger_joint"] for side in "lr"]
        self.finger_places = self.model.jnt_qposadr[fingers]
        last_two = [names.joint_name2id[name] for name in names.joint_names if name.startswith("robot")][-2:]
        self.last_qpos, self.last_qvel = self.model.jnt_qposadr[last_two], self.model.jnt_dofadr[last_two]
        self.driven = [
            (k, self.model.jnt_qposadr[self.model.actuator_trnid[k, 0]], self.model.actuator_biastype[k] != 0)
            for k in range(self.model.nu)
        ]
        count, nv = len(data), self.model.nv
        sites = 2 if self.has_object else 1
        self.place, self.matrix = np.zeros((count, sites, 3)), np.zeros((count, 9))
        self.jacobian, self.turning = np.zeros((count, sites, 3, nv)), np.zeros((count, 3, nv))
        self.qpos, self.qvel = np.zeros((count, self.model.nq)), np.zeros((count, nv))

    def controls(self, actions: NDArray[np.floating[Any]]) -> Array:
        """Where the hand shall go (5 cm at most) and how wide the fingers open: (count, 4)."""
        scaled = np.concatenate([actions[:, :3] * 0.05, actions[:, 3:]], axis=1).astype(np.float64)
        if self.blocked:
            scaled[:, 3] = 0.0
        return scaled

    def advance(self, index: int, control: Array) -> None:
        data = self.data[index]
        for k, address, relative in self.driven:
            data.ctrl[k] = data.qpos[address] + control[3] if relative else control[3]
        data.mocap_pos[0] = data.xpos[self.body] + control[:3]
        data.mocap_quat[0] = data.xquat[self.body] + _FACING_DOWN
        self.mujoco.mj_step(self.model, data, nstep=self.substeps)
        if self.blocked:
            data.qpos[self.finger_places] = 0.0
            self.mujoco.mj_forward(self.model, data)
        self.capture(index)

    def capture(self, index: int) -> None:
        data = self.data[index]
        self.place[index, 0] = data.site_xpos[self.grip]
        self.qpos[index], self.qvel[index] = data.qpos, data.qvel
        self.mujoco.mj_jacSite(self.model, data, self.jacobian[index, 0], None, self.grip)
        if self.thing is not None:
            self.place[index, 1], self.matrix[index] = data.site_xpos[self.thing], data.site_xmat[self.thing]
            self.mujoco.mj_jacSite(self.model, data, self.jacobian[index, 1], self.turning[index], self.thing)

    def observe(self) -> tuple[Array, Array]:
        """[grip, (object, object - grip,) fingers, (angles, velocities of the object,) velocities of grip, fingers]"""
        grip = self.place[:, 0]
        velocity = (self.jacobian @ self.qvel[:, None, :, None])[..., 0] * self.dt
        fingers, opening = self.qpos[:, self.last_qpos], self.qvel[:, self.last_qvel] * self.dt
        if not self.has_object:
            return np.concatenate([grip, fingers, velocity[:, 0], opening], axis=1), grip.copy()
        from gymnasium_robotics.utils import rotations

        thing = self.place[:, 1]
        angles = rotations.mat2euler(self.matrix.reshape(-1, 3, 3))
        spin = (self.turning @ self.qvel[:, :, None])[..., 0] * self.dt
        relative = velocity[:, 1] - velocity[:, 0]
        parts = [grip, thing, thing - grip, fingers, angles, relative, spin, velocity[:, 0], opening]
        return np.concatenate(parts, axis=1), thing.copy()


_FACING_DOWN = np.array([1.0, 0.0, 1.0, 0.0])


class _Hand:
    """Twenty position servos: joint angles and velocities, and the goal, fingertips or the object's pose."""

    def __init__(self, task: Any, data: list[Any]) -> None:
        self.model, self.data, self.mujoco, self.substeps = task.model, data, task._mujoco, task.n_substeps
        self.low, self.high = self.model.actuator_ctrlrange.T.copy()
        names = task._model_names
        joints = [names.joint_name2id[name] for name in names.joint_names if name.startswith("robot")]
        self.joint_qpos, self.joint_qvel = self.model.jnt_qposadr[joints], self.model.jnt_dofadr[joints]
        self.object: slice | None = None
        self.tips: list[int] = []
        if "object:joint" in names.joint_name2id:
            joint = names.joint_name2id["object:joint"]
            start, speed = int(self.model.jnt_qposadr[joint]), int(self.model.jnt_dofadr[joint])
            self.object, self.object_speed = slice(start, start + 7), slice(speed, speed + 6)
        else:
            self.tips = [names.site_name2id[f"robot0:S_{finger}tip"] for finger in ("ff", "mf", "rf", "lf", "th")]
        count = len(data)
        self.qpos, self.qvel = np.zeros((count, self.model.nq)), np.zeros((count, self.model.nv))
        self.places = np.zeros((count, len(self.tips), 3))

    def controls(self, actions: NDArray[np.floating[Any]]) -> Array:
        """Angles inside each servo's range: (count, 20)."""
        wanted = (self.high + self.low) / 2.0 + actions * ((self.high - self.low) / 2.0)
        return np.clip(wanted, self.low, self.high)

    def advance(self, index: int, control: Array) -> None:
        data = self.data[index]
        data.ctrl[:] = control
        self.mujoco.mj_step(self.model, data, nstep=self.substeps)
        self.capture(index)

    def capture(self, index: int) -> None:
        data = self.data[index]
        self.qpos[index], self.qvel[index] = data.qpos, data.qvel
        if self.tips:
            self.places[index] = data.site_xpos[self.tips]

    def observe(self) -> tuple[Array, Array]:
        """[joint angles, joint velocities, (velocities of the object,) achieved goal]"""
        parts = [self.qpos[:, self.joint_qpos], self.qvel[:, self.joint_qvel]]
        if self.object is None:
            achieved = self.places.reshape(len(self.data), -1).copy()
        else:
            achieved = self.qpos[:, self.object].copy()
            parts.append(self.qvel[:, self.object_speed])
        return np.concatenate([*parts, achieved], axis=1), achieved


class _AnyTask:
    """Tasks with more to observe (touch sensors): the task's own methods, without the wrappers around them."""

    def __init__(self, tasks: list[Any], data: list[Any]) -> None:
        self.tasks, self.data = tasks, data
        shape = tasks[0].observation_space
        self.observation = np.zeros((len(data), *shape["observation"].shape))
        self.achieved = np.zeros((len(data), *shape["achieved_goal"].shape))

    def controls(self, actions: NDArray[np.floating[Any]]) -> Any:
        return actions

    def advance(self, index: int, control: NDArray[np.floating[Any]]) -> None:
        task = self.tasks[index % len(self.tasks)]
        with _borrowed(task, self.data[index]):
            task._set_action(control)
            task._mujoco_step(control)
            task._step_callback()
            self.capture(index)

    def capture(self, index: int) -> None:
        seen = self.tasks[index % len(self.tasks)]._get_obs()  # the task has this environment's data just now
        self.observation[index], self.achieved[index] = seen["observation"], seen["achieved_goal"]

    def observe(self) -> tuple[Array, Array]:
        return self.observation.copy(), self.achieved.copy()


def _stepper(tasks: list[Any], data: list[Any]) -> _Fetch | _Hand | _AnyTask:
    from gymnasium_robotics.envs.fetch.fetch_env import MujocoFetchEnv
    from gymnasium_robotics.envs.shadow_dexterous_hand.manipulate import MujocoManipulateEnv
    from gymnasium_robotics.envs.shadow_dexterous_hand.reach import MujocoHandReachEnv

    task = tasks[0]
    if isinstance(task, MujocoFetchEnv):
        return _Fetch(task, data)
    knows_observation = type(task)._get_obs in (MujocoManipulateEnv._get_obs, MujocoHandReachEnv._get_obs)
    if knows_observation and not task.relative_control:
        return _Hand(task, data)
    return _AnyTask(tasks, data)


def _welded_body(task: Any) -> int:
    """The body that follows the (only) mocap body."""
    first, second = int(task.model.eq_obj1id[0]), int(task.model.eq_obj2id[0])
    return second if task.model.body_mocapid[first] != -1 else first


def _stack(seen: list[dict[str, Array]]) -> Observation:
    return {key: np.stack([one[key] for one in seen]) for key in ("observation", "achieved_goal", "desired_goal")}


def _as_tensors(achieved: Any, desired: Any) -> tuple[Tensor, Tensor]:
    if achieved.shape != desired.shape:
        raise InputError(f"achieved and desired goals differ in shape: {achieved.shape} and {desired.shape}")
    return torch.as_tensor(achieved), torch.as_tensor(desired)


def _as_given(result: Tensor, like: Any) -> Any:
    return result if isinstance(like, Tensor) else result.numpy()
