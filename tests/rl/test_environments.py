"""Names, time limits and actions of anybody's environment."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from labkit.errors import InputError
from labkit.rl.environments import action_box, name_of, time_limit


class Still(gymnasium.Env[Any, Any]):
    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space, self.observation_space = action_space, spaces.Box(-1, 1, (1,))


ONE = spaces.Box(-1, 1, (1,))


def test_names_and_time_limits():
    """By the registry, by a wrapper around what is not registered, by neither."""
    registered, wrapped, bare = gymnasium.make("Pendulum-v1"), TimeLimit(Still(ONE), 7), Still(ONE)
    assert [name_of(env) for env in (registered, wrapped, bare)] == ["Pendulum-v1", "Still", "Still"]
    assert [time_limit(env) for env in (registered, wrapped, bare)] == [200, 7, None]
    assert time_limit(TimeLimit(registered, 30)) == 30


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_the_ends_of_the_bounds_are_met_and_never_passed(dtype, shape):
    """.1 is no number of single precision: what is rounded once too often lies outside of a box of doubles."""
    low, high = (np.array(x, dtype=dtype).reshape(shape) for x in ((-0.1, 0, -7.3), (0.1, 40, 1e-3)))
    space = spaces.Box(low, high, dtype=dtype)
    box = action_box(Still(space))
    for inside, end in ((-1.0, low), (1.0, high), (-5.0, low), (5.0, high)):
        action = box.outside(np.full(3, inside, dtype=np.float32))
        assert action.dtype == dtype
        assert np.array_equal(action, end)
        assert space.contains(action)
    middle = box.outside(np.zeros((2, 5, 3), dtype=np.float32))
    assert middle.shape == (2, 5, *shape)
    np.testing.assert_allclose(middle[1, 4], (low + high) / 2, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Discrete(3), r"real numbers .* Still has Discrete\(3\)"),
        (spaces.Box(0, 5, (2,), np.int64), "real numbers"),
        (spaces.Box(-np.inf, np.inf, (2,)), "finite bounds.*RescaleAction"),
        (spaces.Box(1, 1, (2,)), "low below high"),
        (spaces.Box(0, 1, (0,)), "finite bounds"),
    ],
)
def test_other_actions_are_refused(space, words):
    with pytest.raises(InputError, match=words):
        action_box(Still(space))
