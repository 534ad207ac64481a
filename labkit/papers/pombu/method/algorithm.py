"""POMBU on anybody's environment, by the verbs of stable-baselines3: learn, predict, save, load.

    model = POMBU("Pendulum-v1", seed=1).learn(20_000)
    action, _ = model.predict(observation)

What learns is the loop of the experiment: `loop.Learner`, with one copy.
"""

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError, model_validator
from torch import Tensor

from labkit import devices, tensor_files
from labkit.errors import InputError
from labkit.papers.pombu.method.environments import GymnasiumWorld, horizon_of, open_environment
from labkit.papers.pombu.method.episodes import OfTransition
from labkit.papers.pombu.method.loop import Learner, Settings
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.progress import progress as progress_bar
from labkit.rl.environments import ActionBox
from labkit.rl.streams import Streams
from labkit.tensor_files import TensorFileError

FILE = "model.safetensors"  # in a folder that `labkit export` wrote
NOT_HERE = {
    "iterations": "learn(steps) says how long",
    "evaluations": "evaluate with predict: no step is played that is not learned from",
    "compiled": "an environment's episodes end when they like, a CUDA graph's do not",
}  # settings of the experiment alone
Known = Literal["given", "learnt", "never"]


class Header(BaseModel, frozen=True, strict=True, extra="forbid", allow_inf_nan=False):
    """What a file says besides the tensors. learner: networks, data, moments are there, not the policy alone."""

    format: Literal["labkit pombu 1"] = "labkit pombu 1"
    environment: str = Field(max_length=200)
    settings: Settings
    seed: int = Field(ge=0, lt=2**63)
    steps: int = Field(0, ge=0, lt=2**53, description="real steps it learned from")
    iteration: int = Field(0, ge=0, lt=2**53)
    learner: bool = False
    reward: Known = "given"
    terminates: Known = "never"
    shape: tuple[int, ...] = Field(max_length=10, description="of an action")
    dtype: Literal["float16", "float32", "float64"] = "float32"
    low: tuple[float, ...] = Field(min_length=1, max_length=10_000)
    high: tuple[float, ...] = Field(min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _ascending(self) -> "Header":
        if len(self.low) != len(self.high) or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError("bounds of actions must be as many, low below high")
        if math.prod(self.shape) != len(self.low):
            raise ValueError("an action has as many bounds as numbers")
        return self

    def box(self) -> ActionBox:
        return ActionBox(np.array(self.low), np.array(self.high), self.shape, np.dtype(self.dtype))


class POMBU:
    """Policy optimisation with model-based uncertainty, on one environment.

    Args:
        env: a gymnasium environment or the id of one. Observations are vectors of real numbers, or dictionaries and
            tuples of such, which are flattened; actions are real numbers between finite bounds, scaled to +-1 inside.
            Episodes end by themselves (termination) or because time is up (truncation).
        reward: r(state, action, next_state) on tensors with axes (..., size), in the environment's own units; None: the
            members of the ensemble learn it.
        terminates: whether the task is over in next_state, True or False, given the same; None: the members learn it;
            False: it never is.
        seed: of weights, exploration, imagination and the episodes' own seeds.
        device: "cpu", "cuda" or "auto".
        horizon: steps of an episode at most, real and imagined; None: the environment's time limit, 200 at most.
        options: fields of `Settings` (alpha, episodes, updates, rollouts, model_hidden, ...). Other than there,
            imagined episodes begin in recorded starts (`starts="reset"`: in the environment's resets, which are not
            counted as steps), and rewards are not clipped.  [ours]

    Attributes:
        steps: real ones so far. history: what every iteration measured, among it `collected_return` (of exploration
            policies, from the second iteration on) and `model_return`, what the models promise the policy.

    Raises:
        InputError: an option that does not exist or cannot be; an environment that cannot be learned, and why.
    """

    def __init__(
        self,
        env: Any,
        reward: OfTransition | None = None,
        terminates: OfTransition | bool | None = None,
        *,
        seed: int = 0,
        device: str = "auto",
        horizon: int | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"seed must be a whole number of at least 0; got {seed!r}.")
        opened, where = open_environment(env), devices.pick_device(device)
        settings = read_options(options, horizon_of(opened) if horizon is None else horizon)
        world = GymnasiumWorld(opened, reward, terminates, settings.horizon)
        header = Header(
            environment=world.task.name[:200], settings=settings, seed=seed, learner=True,
            reward=_known(world.task.reward), terminates=_known(world.task.terminates),
            shape=world.actions.shape, dtype=world.actions.dtype.name,  # type: ignore[arg-type]
            low=tuple(world.actions.low.tolist()), high=tuple(world.actions.high.tolist()),
        )  # fmt: skip
        learner = Learner(world, settings, [seed], where)
        self._take(header, learner.policy, learner)

    def _take(self, header: Header, policy: GaussianPolicy, learner: Learner | None) -> None:
        self.policy, self.steps, self.iteration = policy, header.steps, header.iteration
        self.history: list[dict[str, float]] = []
        self._header, self._actions, self._learner = header, header.box(), learner
        self._noise = Streams([header.seed])  # of predictions that are samples
        self._kept: Mapping[str, Tensor] = {}  # of a file, until there is an environment

    # -- the four verbs -----------------------------------------------------------------------------------------------

    def learn(self, steps: int, progress: bool = True) -> "POMBU":
        """Play and learn for `steps` more steps of the environment, to the end of the last iteration.

        An iteration is `episodes` real episodes, the training of the models on all of them, `updates` of the policy.

        Args:
            progress: show a bar at a terminal or in a notebook.

        Raises:
            InputError: a policy that was loaded without an environment; numbers that are not finite.
        """
        if not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps must be a whole number of at least 1; got {steps!r}.")
        if self._learner is None:
            raise InputError("this policy has no environment: POMBU.load(path, env), or set_env(env).")
        world = self._learner.world
        assert isinstance(world, GymnasiumWorld)
        bar = iter(progress_bar(range(steps), "POMBU", steps) if progress else ())
        end = self.steps + steps
        with devices.one_thread():
            while self.steps < end:
                measured = self._learner.train(self.iteration)
                for _ in range(world.steps - self.steps):
                    next(bar, None)
                self.iteration, self.steps = self.iteration + 1, world.steps
                self.history.append({"steps": self.steps} | {name: float(x) for name, x in measured.items()})
        return self

    @torch.no_grad()
    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[NDArray[Any], Any]:
        """The action for an observation of the environment, or for a batch of them; and `state` as it came.

        The policy has no memory: `state` and `episode_start` are there because stable-baselines3 has them.

        Args:
            observation: (size,) or (batch, size); with an environment at hand also what it gives, a dictionary.
            deterministic: the mean action; else a sample of the policy.

        Returns:
            action within the environment's bounds, of its shape and number format, or (batch, *shape).

        Raises:
            InputError: a size that is not the one that was learned with.
        """
        if isinstance(observation, Mapping | tuple):
            if self._learner is None:
                raise InputError("without its environment the policy reads vectors: set_env(env), or flatten it.")
            assert isinstance(self._learner.world, GymnasiumWorld)
            observation = self._learner.world.vector(observation)
        rows = torch.as_tensor(np.asarray(observation, dtype=np.float32), device=self.policy.log_std.device)
        size = self.policy.state_mean.shape[-1]
        if rows.dim() not in (1, 2) or rows.shape[-1] != size:
            raise InputError(f"observation must have the shape ({size},) or (batch, {size}); got {tuple(rows.shape)}.")
        mean, log_std = self.policy(torch.atleast_2d(rows)[None])
        if not deterministic:
            mean = mean + log_std.exp() * self._noise.normal(*mean.shape[1:]).to(mean)
        action = self._actions.outside(mean[0].cpu().numpy())
        return (action if rows.dim() == 2 else action[0]), state

    def save(self, path: str | Path) -> None:
        """Write policy, critics, models, all real transitions and the optimisers' moments to one file: whoever loads it
        with the environment goes on as if nothing had been.

        Raises:
            OSError: no space, no permission...; an old file is untouched.
        """
        tensor_files.write(Path(path), self._tensors(), self._now())

    @classmethod
    def load(
        cls,
        path: str | Path,
        env: Any = None,
        reward: OfTransition | None = None,
        terminates: OfTransition | bool | None = None,
        *,
        device: str = "auto",
    ) -> "POMBU":
        """What `save` wrote, or the folder of `labkit export`. With an environment it can go on learning; `reward` and
        `terminates` are then to be given as they were.

        Raises:
            TensorFileError: no such file, a damaged one, or another kind of file.
            InputError: an environment of other sizes or bounds; a function that is missing or new.
        """
        where = Path(path)
        tensors, header = tensor_files.read(where / FILE if where.is_dir() else where, Header)
        policy = _policy(path, tensors, header).to(devices.pick_device(device))
        model = cls.__new__(cls)
        model._take(header, policy, None)
        model._kept = tensors
        if env is not None:
            model.set_env(env, reward, terminates)
        return model

    # -- besides ------------------------------------------------------------------------------------------------------

    def set_env(
        self, env: Any, reward: OfTransition | None = None, terminates: OfTransition | bool | None = None
    ) -> None:
        """Go on learning a loaded policy in this environment.

        Raises:
            InputError: other sizes, action bounds, or known functions than learned with; a file of the policy alone.
            TensorFileError: the file holds other things than its header says.
        """
        header, size = self._now(), self.policy.state_mean.shape[-1]
        if not header.learner:
            raise InputError("the file holds a policy alone: it predicts, and has no models or data to go on with.")
        world = GymnasiumWorld(open_environment(env), reward, terminates, header.settings.horizon)
        same = np.array_equal(world.actions.low, header.low) and np.array_equal(world.actions.high, header.high)
        if world.task.observation != size or not same:
            raise InputError(
                f"{world.task.name} has observations of {world.task.observation} numbers and actions from "
                f"{world.actions.low} to {world.actions.high}; learned was with {size} numbers and actions from "
                f"{header.low} to {header.high}."
            )
        known = {"reward": _known(world.task.reward), "terminates": _known(world.task.terminates)}
        for name, now in known.items():
            if now != getattr(header, name):
                raise InputError(f"{name} was {getattr(header, name)} when this was learned, and is {now} now.")
        world.steps = header.steps
        learner = _learner(self._tensors(), header, world, self.policy.log_std.device)
        self.policy, self._learner, self._kept = learner.policy, learner, {}

    def _now(self) -> Header:
        return self._header.model_copy(update={"steps": self.steps, "iteration": self.iteration})

    def _tensors(self) -> Mapping[str, Tensor]:
        return self._kept if self._learner is None else flatten(_states(self._learner))


def load(path: str | Path, env: Any = None, device: str = "auto") -> POMBU:
    """The policy in a file that `POMBU.save` wrote, or in the folder of `labkit export`."""
    return POMBU.load(path, env, device=device)


def policy_file(policy: GaussianPolicy, copy: int, environment: str, seed: int, steps: int) -> bytes:
    """One copy of an experiment's policy as a file that `load` reads; its actions are within +-1."""
    outputs = policy.mean.sizes[-1]
    header = Header(
        environment=environment, settings=Settings(policy_hidden=policy.mean.sizes[1:-1]), seed=seed, steps=steps,
        shape=(outputs,), low=(-1.0,) * outputs, high=(1.0,) * outputs,
    )  # fmt: skip
    tensors = {f"policy/{name}": value[copy : copy + 1] for name, value in policy.state_dict().items()}
    return tensor_files.to_bytes(tensors, header)


def read_options(options: Mapping[str, Any], horizon: int) -> Settings:
    """Options as settings.

    Raises:
        InputError: an unknown name (with the nearest), a wrong type, an impossible value.
    """
    known = Settings.model_fields.keys() - NOT_HERE.keys()
    for name in options:
        if name in NOT_HERE:
            raise InputError(f"'{name}' is no option here: {NOT_HERE[name]}.")
        if name not in known:
            near = difflib.get_close_matches(name, known) or sorted(known)
            raise InputError(f"there is no option '{name}'; did you mean {' or '.join(near)}?")
    wanted = {"starts": "recorded", "reward_clip": None, "horizon": horizon, **options}
    rollouts = options.get("rollouts", Settings.model_fields["rollouts"].default)
    if isinstance(rollouts, int) and isinstance(horizon, int):  # few short ones: smaller minibatches than the usual
        wanted.setdefault("batch_size", max(1, min(Settings.model_fields["batch_size"].default, rollouts * horizon)))
    try:
        return Settings(**wanted)
    except ValidationError as error:
        problem = error.errors()[0]
        name, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        raise InputError(f"{name}: {message}; got {problem['input']!r}." if name else message) from None


# -- files ------------------------------------------------------------------------------------------------------------


def flatten(nested: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """{"a": {0: {"b": x}}} -> {"a/0/b": x}."""
    flat: dict[str, Tensor] = {}
    for name, value in nested.items():
        flat |= {prefix + str(name): value} if isinstance(value, Tensor) else flatten(value, f"{prefix}{name}/")
    return flat


def nest(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse, with every key a text."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split("/")
        inside = nested
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[last] = value
    return nested


def _states(learner: Learner) -> dict[str, Any]:
    """What a learner must remember; of the optimisers what they have summed up."""
    states = {name: thing.state_dict() for name, thing in learner.state().items()}
    return states | {name: states[name]["state"] for name in learner.optimizers}


def _learner(tensors: Mapping[str, Tensor], header: Header, world: GymnasiumWorld, device: torch.device) -> Learner:
    """A learner as it was saved."""
    c, task = header.settings, world.task
    outputs = task.observation + task.extra_outputs
    _check_layers(tensors, "ensemble/net", "direction", c.members,
                  (task.observation + task.action, *c.model_hidden, outputs))  # fmt: skip
    for net in ("value_net", "uncertainty_net"):
        _check_layers(tensors, f"critics/{net}", "weight", 1, (task.observation, *c.policy_hidden, 1))
    learner = Learner(world, c, [header.seed], device)
    try:
        saved = nest(tensors)
        for name, thing in learner.state().items():
            state = saved.get(name, {})
            if name in learner.optimizers:
                sums = {int(number): values for number, values in state.items()}
                state = {"state": sums, "param_groups": thing.state_dict()["param_groups"]}
            thing.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TensorFileError(f"the file holds other things than its header says ({str(error)[:200]}).") from None
    if header.iteration:
        learner.resumed()
    return learner


def _policy(path: str | Path, tensors: Mapping[str, Tensor], header: Header) -> GaussianPolicy:
    """The policy of a file; refuses a header that speaks of larger networks than the file holds."""
    mean = tensors.get("policy/state_mean")
    if mean is None or mean.dim() != 3 or mean.shape[:2] != (1, 1) or mean.shape[2] < 1:
        raise TensorFileError(f"'{path}' holds no policy.")
    hidden, size = header.settings.policy_hidden, mean.shape[2]
    _check_layers(tensors, "policy/mean", "weight", 1, (size, *hidden, len(header.low)))
    policy = GaussianPolicy(size, len(header.low), hidden, [0])
    prefix = "policy/"
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        policy.load_state_dict(own)
    except RuntimeError as error:
        raise TensorFileError(f"'{path}' holds another policy than its header says ({str(error)[:200]}).") from None
    return policy


def _check_layers(tensors: Mapping[str, Tensor], net: str, weight: str, copies: int, sizes: Sequence[int]) -> None:
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        value = tensors.get(f"{net}.layers.{number}.{weight}")
        if value is None or value.shape != (copies, inputs, outputs):
            raise TensorFileError(f"the file holds other networks than its header says ({net}, layer {number}).")


def _known(function: Any) -> Known:
    return "given" if callable(function) else "learnt" if function is None else "never"
