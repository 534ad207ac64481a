"""The Fetch and Shadow-Hand tasks of gymnasium-robotics, many at once, stepped without their Python overhead.

    tasks = GoalVector("FetchReach-v4", count=8)
    now = tasks.reset(seeds=range(8))       # {"observation", "achieved_goal", "desired_goal"}: (8, size), float64
    now = tasks.step(actions)               # actions (8, tasks.action_size)
    reward = tasks.rule.compute_reward(now["achieved_goal"], now["desired_goal"])    # any batch, arrays or tensors

An environment's own `step` looks up joints and sites by name, builds lists and copies them in every call. Here the
addresses are looked up once, and what remains is MuJoCo's `mj_step`. All states are those of the environment's own
`step`, bit for bit. Environments share one compiled model and have their own data; a reset is the environment's own.
MuJoCo releases Python's lock while it computes, so several `threads` may step at a time.
"""

import contextlib
import copy
import difflib
import io
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.sher.experiment.worlds.goal_rule import goal_rule
from labkit.papers.sher.experiment.worlds.small import FixedHorizon

Array = NDArray[np.float64]

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
MUJOCO_FROM, MUJOCO_BELOW = (3, 3), (3, 12)  # from 3.12 on, gymnasium-robotics cannot tell a hinge from a slide


class GoalVector:
    """`count` copies of one task, see the top of this file. Nothing ends by itself: count to `horizon`.

    Attributes:
        data: MuJoCo's state of every environment. goals: (count, size), of the present episodes.

    Raises:
        InputError: an id that does not exist (with the nearest ones), a task without sparse goals, a MuJoCo release
            that gymnasium-robotics cannot work with.
    """

    def __init__(self, env_id: str, count: int, threads: int = 1) -> None:
        if count < 1 or threads < 1:
            raise InputError(f"count and threads must be at least 1; got {count} and {threads}")
        check_task(env_id)
        import gymnasium

        environments = [gymnasium.make(env_id, disable_env_checker=True) for _ in range(min(threads, count))]
        self.env_id, self.count = env_id, count
        spec: Any = environments[0].spec
        self.horizon: int = spec.max_episode_steps
        self._environments = environments
        self._tasks: list[Any] = [one.unwrapped for one in environments]
        template = self._tasks[0]
        space = template.observation_space
        self.observation_size: int = space["observation"].shape[0]
        self.goal_size: int = space["desired_goal"].shape[0]
        self.action_size: int = template.action_space.shape[0]
        self.rule = goal_rule(template)
        self._pool = ThreadPoolExecutor(len(environments)) if len(environments) > 1 else None
        self._new = copy.copy(template.data)
        self.data = [copy.copy(template.data) for _ in range(count)]
        self.goals = np.zeros((count, self.goal_size))
        self._stepper = _stepper(self._tasks, self.data)
        self._started = False

    def reset(self, seeds: Sequence[int]) -> dict[str, Array]:
        """New episodes. Each depends on its seed alone: it is the first episode of a newly made environment.

        (The hand's own reset leaves traces of the last episode in its simulator.)
        """
        if len(seeds) != self.count:
            raise InputError(f"one seed an environment is needed, {self.count} in all; got {len(seeds)}")
        self._in_threads(lambda index: self._reset(index, seeds[index]))
        self._started = True
        return self._observe()

    def step(self, actions: NDArray[np.floating[Any]]) -> dict[str, Array]:
        """One step, 20 of the simulator's; actions are clipped to [-1, 1]."""
        if actions.shape != (self.count, self.action_size):
            raise InputError(
                f"actions must be (environments, {self.env_id}'s action size) = {(self.count, self.action_size)}; "
                f"got {actions.shape}"
            )
        if not self._started:
            raise InputError("call reset(seeds) before the first step")
        controls = self._stepper.controls(np.clip(actions, -1, 1))
        self._in_threads(lambda index: self._stepper.advance(index, controls[index]))
        return self._observe()

    def close(self) -> None:
        """Stop the threads and close the environments."""
        if self._pool is not None:
            self._pool.shutdown()
        for environment in self._environments:
            environment.close()

    def _reset(self, index: int, seed: int) -> None:
        """The task's own reset, on this environment's data."""
        task = self._tasks[index % len(self._tasks)]  # a thread has one task, whose data its environments replace
        task._mujoco.mj_copyData(self.data[index], task.model, self._new)
        with _data_replaced(task, self.data[index]):
            task.reset(seed=seed)
            self.goals[index] = task.goal
            self._stepper.capture(index)

    def _observe(self) -> dict[str, Array]:
        observation, achieved = self._stepper.observe()
        return {"observation": observation, "achieved_goal": achieved, "desired_goal": self.goals.copy()}

    def _in_threads(self, call: Callable[[int], None]) -> None:
        """`call(index)` for every environment."""
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


class RobotWorld(FixedHorizon):
    """A task as a `GoalEnvironment`: tensors of (copies, episodes, size), every episode drawn by its copy's generator.

    An episode's seed is the next number of generator i, so copy i plays the same episodes alone and among others, and
    a generator's state is all that a checkpoint needs. Training and test goals have the same distribution.
    """

    def __init__(self, env_id: str, *, threads: int = 1, device: str | torch.device = "cpu") -> None:
        self.env_id, self.threads, self.device = env_id, threads, torch.device(device)
        first = GoalVector(env_id, 1, threads)
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
        """New episodes, equally many for each copy."""
        if copies < 1 or episodes < 1 or len(generators) != copies:
            raise InputError(
                f"{copies} copies of {episodes} episodes need at least one of each and a generator per copy; "
                f"got {len(generators)} generators"
            )
        self._shape = (copies, episodes)
        count = copies * episodes
        if count not in self._vectors:
            self._vectors[count] = GoalVector(self.env_id, count, self.threads)
        seeds = [torch.randint(2**31, (episodes,), generator=one, device=one.device).tolist() for one in generators]
        return self._as_tensors(self.vector.reset([seed for row in seeds for seed in row]))

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

    def _as_tensors(self, arrays: dict[str, Array]) -> dict[str, Tensor]:
        return {
            key: torch.from_numpy(value).float().unflatten(0, self._shape).to(self.device)
            for key, value in arrays.items()
        }


def check_task(env_id: str) -> None:
    """Raise InputError unless `env_id` is a Fetch or Hand task with sparse rewards that this installation can run."""
    check_mujoco()
    register()
    import gymnasium

    spec = gymnasium.registry.get(env_id)
    known = sorted(name for name, one in gymnasium.registry.items() if _is_goal_task(one))
    if spec is None:
        near = difflib.get_close_matches(env_id, known, n=3) or list(TASKS)
        raise InputError(f"there is no environment '{env_id}'; did you mean {' or '.join(near)}?")
    if "Dense" in env_id:
        sparse = env_id.replace("Dense", "")
        raise InputError(f"'{env_id}' has dense rewards, which hindsight does not need; use '{sparse}'")
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
        installed = version("mujoco")
    except PackageNotFoundError:
        raise InputError(f"MuJoCo is not installed: pip install '{span}'") from None
    release = tuple(int(part) for part in installed.split(".")[:2])
    if not MUJOCO_FROM <= release < MUJOCO_BELOW:
        raise InputError(
            f"MuJoCo {installed} is installed, and with it every Fetch and Hand environment stops in an assertion "
            f"of gymnasium-robotics: pip install '{span}'"
        )


_registering = threading.Lock()


def register() -> None:
    """Make the ids of gymnasium-robotics known; its notice about tasks not used here stays unprinted."""
    import gymnasium

    with _registering, contextlib.redirect_stderr(io.StringIO()):  # two threads at once would leave it redirected
        import gymnasium_robotics
    gymnasium.register_envs(gymnasium_robotics)


def _is_goal_task(spec: Any) -> bool:
    entry = str(spec.entry_point)
    folders = ("gymnasium_robotics.envs.fetch.", "gymnasium_robotics.envs.shadow_dexterous_hand.")
    return entry.startswith(folders) and "MujocoPy" not in entry and "Dense" not in spec.id


@contextlib.contextmanager
def _data_replaced(task: Any, data: Any) -> Iterator[None]:
    """The task with other data inside of the block."""
    own, task.data = task.data, data
    try:
        yield
    finally:
        task.data = own


class _Fetch:
    """A gripper welded to a mocap body: positions of sites, their velocities, the fingers (and the object)."""

    def __init__(self, task: Any, data: list[Any]) -> None:
        self.model, self.data, self.task = task.model, data, task
        self.mujoco, self.substeps, self.dt = task._mujoco, task.n_substeps, task.dt
        self.blocked, self.has_object = task.block_gripper, task.has_object
        self.body = _welded_body(task)
        names = task._model_names
        self.grip = names.site_name2id["robot0:grip"]
        self.object = names.site_name2id["object0"] if self.has_object else None
        fingers = [names.joint_name2id[f"robot0:{side}_gripper_finger_joint"] for side in "lr"]
        self.finger_qpos = self.model.jnt_qposadr[fingers]
        last_two = [names.joint_name2id[name] for name in names.joint_names if name.startswith("robot")][-2:]
        self.last_qpos, self.last_qvel = self.model.jnt_qposadr[last_two], self.model.jnt_dofadr[last_two]
        self.driven = [
            (k, self.model.jnt_qposadr[self.model.actuator_trnid[k, 0]], self.model.actuator_biastype[k] != 0)
            for k in range(self.model.nu)
        ]
        count, nv = len(data), self.model.nv
        sites = 2 if self.has_object else 1
        self.position, self.matrix = np.zeros((count, sites, 3)), np.zeros((count, 9))
        self.jacobian, self.turning = np.zeros((count, sites, 3, nv)), np.zeros((count, 3, nv))
        self.qpos, self.qvel = np.zeros((count, self.model.nq)), np.zeros((count, nv))

    def controls(self, actions: NDArray[np.floating[Any]]) -> Array:
        """Displacement of the gripper (5 cm at most) and opening of the fingers: (count, 4)."""
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
            data.qpos[self.finger_qpos] = 0.0
            self.mujoco.mj_forward(self.model, data)
        self.capture(index)

    def capture(self, index: int) -> None:
        data = self.data[index]
        self.position[index, 0] = data.site_xpos[self.grip]
        self.qpos[index], self.qvel[index] = data.qpos, data.qvel
        self.mujoco.mj_jacSite(self.model, data, self.jacobian[index, 0], None, self.grip)
        if self.object is not None:
            self.position[index, 1], self.matrix[index] = data.site_xpos[self.object], data.site_xmat[self.object]
            self.mujoco.mj_jacSite(self.model, data, self.jacobian[index, 1], self.turning[index], self.object)

    def observe(self) -> tuple[Array, Array]:
        """[grip, (object, object - grip,) fingers, (angles, velocities of the object,) velocities of grip, fingers]"""
        grip = self.position[:, 0]
        velocity = (self.jacobian @ self.qvel[:, None, :, None])[..., 0] * self.dt
        fingers, opening = self.qpos[:, self.last_qpos], self.qvel[:, self.last_qvel] * self.dt
        if not self.has_object:
            return np.concatenate([grip, fingers, velocity[:, 0], opening], axis=1), grip.copy()
        from gymnasium_robotics.utils import rotations

        thing = self.position[:, 1]
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
        self.tip_positions = np.zeros((count, len(self.tips), 3))

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
            self.tip_positions[index] = data.site_xpos[self.tips]

    def observe(self) -> tuple[Array, Array]:
        """[joint angles, joint velocities, (velocities of the object,) achieved goal]"""
        parts = [self.qpos[:, self.joint_qpos], self.qvel[:, self.joint_qvel]]
        if self.object is None:
            achieved = self.tip_positions.reshape(len(self.data), -1).copy()
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
        with _data_replaced(task, self.data[index]):
            task._set_action(control)
            task._mujoco_step(control)
            task._step_callback()
            self.capture(index)

    def capture(self, index: int) -> None:
        now = self.tasks[index % len(self.tasks)]._get_obs()  # the task works on this environment's data here
        self.observation[index], self.achieved[index] = now["observation"], now["achieved_goal"]

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
