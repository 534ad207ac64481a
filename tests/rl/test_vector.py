"""The vector against the same environments stepped by hand."""

import re

import gymnasium
import numpy as np
import pytest

from labkit.errors import InputError
from labkit.rl.vector import InProcessVector, member_seed


class Countdown(gymnasium.Env):
    """Ends (or is cut off) after a drawn number of steps; remembers how it was seeded."""

    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def __init__(self, dictionary: bool = False, size: int = 3) -> None:
        box = gymnasium.spaces.Box(-np.inf, np.inf, (size,))
        self.dictionary = dictionary
        self.observation_space = gymnasium.spaces.Dict(observation=box, goal=box) if dictionary else box
        self.size = size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(2, 6))
        return self._observe(0.0), {}

    def step(self, action):
        self.left -= 1
        over = self.left == 0
        return (
            self._observe(float(action.sum())),
            float(action[0]),
            over and self.size == 3,
            over and self.size != 3,
            {"left": self.left},
        )

    def _observe(self, value: float):
        seen = np.full(self.size, value) + self.left
        return {"observation": seen, "goal": -seen} if self.dictionary else seen


@pytest.mark.parametrize("dictionary", [False, True])
def test_each_environment_is_what_it_would_be_alone(dictionary):
    vector = InProcessVector(lambda index: Countdown(dictionary), count=3, seed=11)
    alone = [Countdown(dictionary) for _ in range(3)]
    seen = vector.reset()
    expected = [one.reset(seed=member_seed(11, index))[0] for index, one in enumerate(alone)]
    draw = np.random.default_rng(0)
    ended = 0
    for _ in range(30):
        pairs = zip(
            *(
                (
                    [seen[k] for k in ("observation", "goal")],
                    [[e[k] for e in expected] for k in ("observation", "goal")],
                )
                if dictionary
                else ([seen], [expected])
            ),
            strict=True,
        )
        for stacked, single in pairs:
            np.testing.assert_array_equal(stacked, np.stack(single))
        actions = draw.uniform(-1, 1, (3, 2))
        seen, rewards, terminated, truncated, infos = vector.step(actions)
        steps = [one.step(action) for one, action in zip(alone, actions, strict=True)]
        expected = [step[0] for step in steps]
        np.testing.assert_array_equal(rewards, [step[1] for step in steps])
        assert terminated.tolist() == [step[2] for step in steps]
        assert not truncated.any()
        assert [info["left"] for info in infos] == [step[4]["left"] for step in steps]
        done = np.flatnonzero(terminated)
        ended += len(done)
        if len(done):
            seen = vector.reset(done)
            for index in done:
                expected[index] = alone[index].reset()[0]  # the stream goes on, not the seed again
    assert ended > 10


def test_the_end_is_shown_and_not_stepped_over():
    vector = InProcessVector(lambda index: Countdown(size=2), count=2, seed=0)
    vector.reset()
    vector.environments[1].left = 1
    vector.environments[0].left = 4
    _, _, terminated, truncated, _ = vector.step(np.zeros((2, 2)))
    assert truncated.tolist() == [False, True]
    assert not terminated.any()
    with pytest.raises(InputError, match=re.escape("environments [1] have ended: reset([1])")):
        vector.step(np.zeros((2, 2)))
    vector.reset([1])
    vector.step(np.zeros((2, 2)))


def test_neighbouring_seeds_share_no_environment():
    seeds = {member_seed(seed, index) for seed in range(20) for index in range(20)}
    assert len(seeds) == 400
    assert member_seed(3, 4) == member_seed(3, 4)


def test_plain_mujoco_environments_agree_with_gymnasium():
    vector = InProcessVector(lambda index: gymnasium.make("HalfCheetah-v5"), count=2, seed=5)
    alone = gymnasium.make("HalfCheetah-v5")
    first, _ = alone.reset(seed=member_seed(5, 1))
    np.testing.assert_array_equal(vector.reset()[1], first)
    actions = np.random.default_rng(1).uniform(-1, 1, (10, 2, 6)).astype(np.float32)
    for action in actions:
        seen, rewards, *_ = vector.step(action)
        expected, reward, *_ = alone.step(action[1])
    np.testing.assert_array_equal(seen[1], expected)
    assert rewards[1] == reward
    vector.close()
    alone.close()


def test_bad_input_is_refused_in_words():
    with pytest.raises(InputError, match="count must be at least 1 environment; got 0"):
        InProcessVector(lambda index: Countdown(), count=0, seed=0)
    with pytest.raises(InputError, match="environment 1 has other observations or actions"):
        InProcessVector(lambda index: Countdown(size=3 + index), count=2, seed=0)
    one = Countdown()
    with pytest.raises(InputError, match="the same environment twice"):
        InProcessVector(lambda index: one, count=2, seed=0)
    vector = InProcessVector(lambda index: Countdown(), count=2, seed=0)
    with pytest.raises(InputError, match=re.escape("environments [0, 1] have ended")):
        vector.step(np.zeros((2, 2)))
    with pytest.raises(InputError, match="the first reset must be of all environments"):
        vector.reset([1])
    vector.reset()
    with pytest.raises(InputError, match="there are environments 0 to 1; got 2"):
        vector.reset([2])
    with pytest.raises(InputError, match="2 in all; got 3"):
        vector.step(np.zeros((3, 2)))
