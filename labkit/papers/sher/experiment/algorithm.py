"""SHER and its rivals on anybody's goal environment, by the verbs of stable-baselines3: learn, predict, save, load.

    model = SHER("PointMaze_UMaze-v3", seed=1).learn(20_000)
    action, _ = model.predict(observation)

What learns is what learns in the lesson: `learner.py`.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator
from torch import Tensor

from labkit import devices, tensor_files
from labkit.errors import InputError
from labkit.papers.sher.experiment.config import TAKE_HOME, Arm, Recipe
from labkit.papers.sher.experiment.evaluate import deterministic, same_generators, success_at_end
from labkit.papers.sher.experiment.learner import Learner
from labkit.papers.sher.experiment.rollout import rollout
from labkit.papers.sher.experiment.stacks import Copy, build_agent
from labkit.papers.sher.experiment.worlds.build import sizes_of
from labkit.papers.sher.experiment.worlds.gym import GymWorld, world_of
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment
from labkit.papers.sher.method.agent import Sizes
from labkit.progress import progress as progress_bar
from labkit.rl.environments import ActionBox, name_of
from labkit.rl.streams import Streams
from labkit.tensor_files import TensorFileError
from labkit.workbench.training import Workers

Array = NDArray[Any]
Algorithm = TypeVar("Algorithm", bound="GoalAlgorithm")
FILE = "model.safetensors"  # in a folder that `labkit export` wrote


class Header(BaseModel, frozen=True, strict=True, extra="forbid"):
    """What a file says besides the weights: whose they are, and between which bounds they act."""

    format: Literal["labkit goal policy 1"] = "labkit goal policy 1"
    algorithm: Literal["SHER", "HER", "SAC"]
    environment: str = Field(max_length=200)
    arm: Arm
    recipe: Recipe
    seed: int = Field(ge=0, lt=2**63)
    steps: int = Field(ge=0, description="environment steps it learned from")
    rewards: tuple[float, float]
    dtype: Literal["float16", "float32", "float64"] = "float32"
    low: tuple[float, ...] = Field(min_length=1, max_length=10_000)
    high: tuple[float, ...] = Field(min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _ascending(self) -> "Header":
        pairs = [self.rewards, *zip(self.low, self.high, strict=False)]
        if len(self.low) != len(self.high) or not all(-math.inf < low < high < math.inf for low, high in pairs):
            raise ValueError("bounds of rewards and actions must be finite, low below high")
        return self

    def box(self) -> ActionBox:
        return ActionBox(np.array(self.low), np.array(self.high), (len(self.low),), np.dtype(self.dtype))


class GoalAlgorithm:
    """What SHER, HER and SAC share. See `SHER`."""

    name: ClassVar[Literal["SHER", "HER", "SAC"]]
    default: ClassVar[Arm]

    def __init__(
        self,
        env: Any,
        *,
        seed: int = 0,
        device: str = "auto",
        horizon: int | None = None,
        rewards: tuple[float, float] | None = None,
        **options: Any,
    ) -> None:
        arm, recipe = read_options(options, self.default)
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"seed must be a whole number of at least 0; got {seed!r}.")
        where = devices.pick_device(device)
        world = world_of(env, recipe.episodes, horizon, rewards, where)
        header = Header(
            algorithm=self.name, environment=_name(env), arm=arm, recipe=recipe, seed=seed, steps=0,
            rewards=world.rewards, **_bounds(world),
        )  # fmt: skip
        self._build(header, sizes_of(world), where, world)

    def _build(self, header: Header, sizes: Sizes, device: torch.device, world: GoalEnvironment | None = None) -> None:
        self.arm, self.recipe, self.steps = header.arm, header.recipe, header.steps
        self.episodes: list[tuple[int, bool]] = []
        self._header, self._sizes, self._device = header, sizes, device
        self._actions = header.box()
        self._stack = [Copy(header.algorithm, self.arm, "", 0, header.seed)]
        self.agent = build_agent(self._stack, self.recipe, sizes, device, header.rewards)
        self._noise = Streams([header.seed])  # of predictions that are samples
        self._world = world
        self._learner: Learner | None = None

    # -- the four verbs -----------------------------------------------------------------------------------------------

    def learn(self: Algorithm, steps: int, progress: bool = True) -> Algorithm:
        """Play and learn for `steps` more steps of the environment, to the end of the last episode.

        Args:
            progress: show a bar at a terminal or in a notebook.

        Raises:
            InputError: a policy that was loaded without an environment; a reward that is not that of the goals.
        """
        if not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps must be a whole number of at least 1; got {steps!r}.")
        world = self._world_or_refuse()
        if self._learner is None:
            one = Workers(0, 1, self._device)
            graph = not isinstance(world, GymWorld)  # an environment's own Python cannot be in a CUDA graph
            self._learner = Learner(self.agent, self._stack, world, self.recipe, one, captured=graph)
        bar = iter(progress_bar(range(steps), self.name, steps) if progress else ())
        end = self.steps + steps
        with devices.one_thread():
            while self.steps < end:
                played = self._learner.cycle()
                success = success_at_end(played, world)[0].tolist()
                new = played.steps
                self.steps += new
                self.episodes += [(self.steps, reached) for reached in success]
                for _ in range(new):
                    next(bar, None)
        return self

    @torch.no_grad()
    def predict(
        self,
        observation: Mapping[str, Any],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "*batch action"], Any]:
        """The action for an observation of the environment, or for a batch of them; and `state` as it came.

        The policy has no memory: `state` and `episode_start` are there because stable-baselines3 has them.

        Args:
            observation: {"observation", "desired_goal"}, arrays (size,) or (batch, size); other keys are not looked at.
            deterministic: the mean action; else a sample of the policy (HER's has nothing to sample).

        Returns:
            action within the environment's bounds, in its number format, (action,) or (batch, action).

        Raises:
            InputError: a key is missing, or a size is not the one that was learned with.
        """
        wanted = {"observation": self._sizes.observation, "desired_goal": self._sizes.goal}
        rows = {}
        for key, size in wanted.items():
            if not isinstance(observation, Mapping) or key not in observation:
                raise InputError(f"observation must be a dictionary with {' and '.join(wanted)}; '{key}' is missing.")
            rows[key] = torch.as_tensor(np.asarray(observation[key], dtype=np.float32), device=self._device)
            if rows[key].dim() not in (1, 2) or rows[key].shape[-1] != size:
                shape = tuple(rows[key].shape)
                raise InputError(f"'{key}' must have the shape ({size},) or (batch, {size}); got {shape}.")
        batch = [torch.atleast_2d(value)[None] for value in rows.values()]
        if batch[0].shape[1] != batch[1].shape[1]:
            raise InputError(f"there are {batch[0].shape[1]} observations and {batch[1].shape[1]} goals.")
        noise = None
        if not deterministic:
            noise = self._noise.normal(batch[0].shape[1], self._sizes.action).to(self._device)
        action = self.agent.act(self.agent.inputs(*batch), noise)[0].cpu().numpy()
        whole = self._actions.outside(action)
        return (whole if rows["observation"].dim() == 2 else whole[0]), state

    def save(self, path: str | Path) -> None:
        """Write the policy, its critics and the normalizer to one file; not the replay buffer and Adam's moments.

        Raises:
            OSError: no space, no permission...; an old file is untouched.
        """
        tensor_files.write(Path(path), self.agent.state_dict(), self._header.model_copy(update={"steps": self.steps}))

    @classmethod
    def load(cls: type[Algorithm], path: str | Path, env: Any = None, device: str = "auto") -> Algorithm:
        """What `save` wrote, or the folder of `labkit export`. With an environment it can go on learning.

        Raises:
            TensorFileError: no such file, a damaged one, or another algorithm's.
            InputError: an environment of other sizes or bounds.
        """
        tensors, header = _read(path)
        if header.algorithm != cls.name:
            raise TensorFileError(f"'{path}' holds a {header.algorithm}: load it with {header.algorithm}.load.")
        return cls._loaded(path, tensors, header, env, device)

    @classmethod
    def _loaded(
        cls: type[Algorithm],
        path: str | Path,
        tensors: Mapping[str, Tensor],
        header: Header,
        env: Any = None,
        device: str = "auto",
    ) -> Algorithm:
        sizes, where = _sizes(path, tensors, header), devices.pick_device(device)
        model = cls.__new__(cls)
        model._build(header, sizes, where)
        try:
            model.agent.load_state_dict(tensors)
        except RuntimeError as error:
            raise TensorFileError(f"'{path}' holds other networks than its header says ({str(error)[:200]}).") from None
        if env is not None:
            model.set_env(env)
        return model

    # -- besides ------------------------------------------------------------------------------------------------------

    def set_env(self, env: Any, horizon: int | None = None) -> None:
        """Go on learning in this environment, with an empty replay buffer.

        Raises:
            InputError: it has other sizes, action bounds or rewards than the one learned with.
        """
        world = world_of(env, self.recipe.episodes, horizon, None, self._device)
        own, learned = _actions(world), self._actions
        if sizes_of(world) != self._sizes or not (
            np.allclose(own.low, learned.low) and np.allclose(own.high, learned.high)
        ):
            raise InputError(
                f"{_name(env)} has {sizes_of(world)} and actions from {own.low} to {own.high}; the policy was learned "
                f"with {self._sizes} and actions from {learned.low} to {learned.high}."
            )
        if world.rewards != self._header.rewards:
            raise InputError(
                f"the rewards of {_name(env)} are {world.rewards}; learned was with {self._header.rewards}."
            )
        self._world, self._learner = world, None

    @torch.no_grad()
    def success_rate(self, episodes: int = 20) -> float:
        """Share of `episodes` fixed test episodes whose goal is reached at the last step, with the mean action."""
        world, generators = self._world_or_refuse(), same_generators(1)
        at_once = len(world.environments) if isinstance(world, GymWorld) else episodes
        reached = []
        with devices.one_thread():
            for first in range(0, episodes, at_once):
                number = min(at_once, episodes - first)
                played = rollout(deterministic(self.agent), world, 1, number, generators, training=False)
                reached += success_at_end(played, world)[0].tolist()
        return sum(reached) / episodes

    def _world_or_refuse(self) -> GoalEnvironment:
        if self._world is None:
            raise InputError(f"this policy has no environment: {self.name}.load(path, env), or set_env(env).")
        return self._world


class SHER(GoalAlgorithm):
    """Soft Hindsight Experience Replay: SAC with a V network and a fixed temperature on relabelled experience.

    Args:
        env: a gymnasium goal environment: its id, itself, or a function that makes it. Observations, goals and actions
            are vectors of real numbers; actions have any finite bounds; the reward has two values, as -1 and 0 or 0
            and 1; episodes of any length up to the time limit, ended by it (truncation) or by themselves (termination).
        seed: of weights, exploration, relabelling and the episodes' own seeds.
        device: "cpu", "cuda" or "auto".
        horizon: most steps of an episode, where the environment has no time limit of its own.
        rewards: the least and the greatest reward of a step; asked from the environment where left out.
        options: fields of `Arm` (alpha, epsilon, strategy, k, curriculum, clip, ...) and of `Recipe` (gamma, batch,
            hidden, critic_rate, episodes = copies of the environment that play side by side, ...).

    Attributes:
        steps: of the environment, so far. episodes: (steps so far, goal reached at its end) of each one learned from.

    Raises:
        InputError: an option that does not exist or cannot be; an environment that cannot be learned, and why.
    """

    name = "SHER"
    default = Arm(epsilon=0.05)


class HER(GoalAlgorithm):
    """Hindsight Experience Replay as OpenAI has it: DDPG with Gaussian noise, 30 % random actions and a penalty on
    large actions. As `SHER`; `HER(env, curriculum=True)` is CHER.

    The penalty, `action_l2=1.0`, is made for rewards of -1 and 0: where values are small, as with a reward of 1 that
    ends the episode, it outweighs them, and without it the tanh saturates. Such tasks are SHER's or SAC's. [ours]
    """

    name = "HER"
    default = Arm("her", epsilon=0.3, noise=0.2, action_l2=1.0)


class SAC(GoalAlgorithm):
    """SAC version 2 with hindsight: twin targets, no V, a learned temperature (`alpha=0.03` fixes it). As `SHER`."""

    name = "SAC"
    default = Arm("sac", alpha=None, epsilon=0.05)


ALGORITHMS: Mapping[str, type[GoalAlgorithm]] = {kind.name: kind for kind in (SHER, HER, SAC)}


def load(path: str | Path, env: Any = None, device: str = "auto") -> GoalAlgorithm:
    """The policy in a file that `save` wrote, or in the folder of `labkit export`, as the algorithm that learned it."""
    tensors, header = _read(path)
    return ALGORITHMS[header.algorithm]._loaded(path, tensors, header, env, device)


def read_options(options: Mapping[str, Any], default: Arm) -> tuple[Arm, Recipe]:
    """Options as an arm like `default` and a recipe like `TAKE_HOME`.

    Raises:
        InputError: an unknown name (with the nearest), a wrong type, an impossible value.
    """
    of_arm, of_recipe = ({f.name for f in fields(kind)} for kind in (Arm, Recipe))
    known = (of_arm | of_recipe) - {"agent"}
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known) or sorted(known)
            raise InputError(f"there is no option '{name}'; did you mean {' or '.join(near)}?")
    arm = {name: value for name, value in options.items() if name in of_arm}
    recipe = {name: value for name, value in options.items() if name in of_recipe}
    try:
        return (
            TypeAdapter(Arm).validate_python(asdict(default) | arm),
            TypeAdapter(Recipe).validate_python(asdict(TAKE_HOME) | recipe),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        raise InputError(f"{name}: {message}; got {problem['input']!r}." if name else message) from None


def policy(
    agent: Any, copy: Copy, recipe: Recipe, world: GoalEnvironment, environment: str, steps: int
) -> GoalAlgorithm:
    """A learner of an experiment as the algorithm that anybody can load. Its agent is taken, not copied."""
    kind = next(kind for kind in ALGORITHMS.values() if kind.default.agent == copy.arm.agent)
    plain = Recipe(**{f.name: getattr(recipe, f.name) for f in fields(Recipe)})
    header = Header(
        algorithm=kind.name, environment=environment, arm=copy.arm, recipe=plain,
        seed=copy.seed, steps=steps, rewards=world.rewards, **_bounds(world),
    )  # fmt: skip
    model = kind.__new__(kind)
    model._build(header, sizes_of(world), torch.device("cpu"))
    model.agent = agent
    return model


def _actions(world: GoalEnvironment) -> ActionBox:
    if isinstance(world, GymWorld):
        return world.actions
    one = np.ones(world.action_size)
    return ActionBox(-one, one, one.shape, np.dtype(np.float32))


def _bounds(world: GoalEnvironment) -> dict[str, Any]:
    """What of a header is the actions'."""
    box = _actions(world)
    return {"dtype": box.dtype.name, "low": tuple(box.low.tolist()), "high": tuple(box.high.tolist())}


def _name(env: Any) -> str:
    import gymnasium

    if isinstance(env, gymnasium.Env):
        env = name_of(env)
    return (env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__))[:200]


def _read(path: str | Path) -> tuple[dict[str, Tensor], Header]:
    where = Path(path)
    return tensor_files.read(where / FILE if where.is_dir() else where, Header)


def _sizes(path: str | Path, tensors: Mapping[str, Tensor], header: Header) -> Sizes:
    """Sizes as the tensors have them; refuses a header that speaks of larger networks than the file holds."""
    policy = [name for name in tensors if name.startswith("policy.") and not name.startswith("policy.heads.")]
    trunk = [tensors[name] for name in policy if name.endswith("weight")]
    widths = [value.shape[-1] for value in trunk if value.dim() == 3][: len(header.recipe.hidden)]
    means = [tensors.get(f"inputs.{part}.mean") for part in ("observation", "goal")]
    if widths != list(header.recipe.hidden):
        raise TensorFileError(f"'{path}' holds other networks than its header says.")
    if any(mean is None or mean.dim() != 2 for mean in means):
        raise TensorFileError(f"'{path}' holds no goal policy: its normalizer is missing.")
    observation, goal = (mean.shape[1] for mean in means if mean is not None)
    return Sizes(observation, goal, len(header.low))
