"""What an algorithm with continuous actions asks of anybody's gymnasium environment: name, time limit, actions."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import NDArray

from labkit.errors import InputError

Array = NDArray[Any]
Environment = gymnasium.Env[Any, Any]


def name_of(env: Environment) -> str:
    """The id under which it is registered, else the name of its class."""
    return str(env.spec.id) if env.spec is not None else type(env.unwrapped).__name__


def time_limit(env: Environment) -> int | None:
    """Steps after which gymnasium truncates an episode; None: it does not."""
    own = env.spec.max_episode_steps if env.spec is not None else None
    if own is None and env.has_wrapper_attr("_max_episode_steps"):  # a TimeLimit around what is not registered
        own = env.get_wrapper_attr("_max_episode_steps")
    return own


@dataclass(frozen=True, eq=False)
class ActionBox:
    """Actions of an environment: `low` to `high`, in its own shape and number format; -1 to 1 inside."""

    low: Float[Array, " action"]
    high: Float[Array, " action"]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def outside(self, action: Float[Array, "*batch action"]) -> Array:
        """What the environment gets, (*batch, *shape): beyond +-1 is cut off.

        Bounds in double precision are kept to their last digit: single precision would round some across them.
        """
        inside = (action.clip(-1, 1).astype(np.float64) + 1) / 2
        whole = (self.low + inside * (self.high - self.low)).clip(self.low, self.high)
        return whole.astype(self.dtype).reshape(*action.shape[:-1], *self.shape)


def action_box(env: Environment) -> ActionBox:
    """The environment's actions.

    Raises:
        InputError: not real numbers between finite bounds.
    """
    space = env.action_space
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise InputError(
            f"actions must be real numbers (a Box of floats); {name_of(env)} has {space}. For discrete actions take a "
            "method that is made for them, DQN or PPO of stable-baselines3."
        )
    low, high = (x.astype(np.float64).reshape(-1) for x in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all() and len(low)):
        raise InputError(
            f"actions need finite bounds, low below high; {name_of(env)} has {space}. "
            "gymnasium.wrappers.RescaleAction gives it others."
        )
    return ActionBox(low, high, space.shape, space.dtype)
