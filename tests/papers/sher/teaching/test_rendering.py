"""Animations: flat ones drawn everywhere, MuJoCo's where an OpenGL works (else skipped, with the reason)."""

import os
import re
from io import BytesIO

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from labkit.errors import InputError
from labkit.papers.sher.experiment.worlds.robots import RoboticsWorld, make_goal_vector
from labkit.papers.sher.experiment.worlds.small import Walls
from labkit.papers.sher.teaching import rendering
from labkit.papers.sher.teaching.rendering import (
    BAD,
    GOAL,
    GOOD,
    bordered,
    draw_walls,
    film_strip,
    gl_available,
    record_episodes,
    record_frames,
    require_gl,
    to_gif,
    walls_film,
)


@pytest.fixture
def gl() -> None:
    if reason := gl_available():
        pytest.skip(reason)


def has(frame: np.ndarray, colour: str) -> int:
    """How many pixels have nearly this colour."""
    return int((np.abs(frame.astype(int) - ImageColor.getrgb(colour)).max(-1) < 30).sum())


def film(count: int = 5, size: int = 32) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (size, size, 3), dtype=np.uint8) // 64 * 64 for _ in range(count)]


def test_a_gif_holds_the_frames_and_their_pace(tmp_path):
    frames = film()
    data = to_gif(frames, tmp_path / "film.gif", fps=20.0, colours=256)
    assert (tmp_path / "film.gif").read_bytes() == data
    image = Image.open(BytesIO(data))
    assert (image.n_frames, image.info["duration"], image.info["loop"]) == (5, 50, 0)
    for k, frame in enumerate(frames):
        image.seek(k)
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - frame).mean() < 3
    assert len(to_gif(frames, colours=4)) < len(data)


def test_a_strip_runs_from_the_first_to_the_last_frame():
    frames = [np.full((10, 8, 3), k, dtype=np.uint8) for k in range(11)]
    strip = film_strip(frames, 3, gap=2)
    assert strip.shape == (10, 3 * 8 + 2 * 2, 3)
    assert [strip[0, x, 0] for x in (0, 8, 10, 20)] == [0, 255, 5, 10]


def test_a_border_is_painted_over_the_edge():
    framed = bordered(np.zeros((40, 60, 3), dtype=np.uint8), GOOD, width=5)
    assert framed.shape == (40, 60, 3)
    assert has(framed, GOOD) == 40 * 60 - 30 * 50


def test_walls_are_drawn_where_they_stand_and_goals_turn_green():
    world = Walls(["open", "twoway"])
    away, there = np.array([[-0.5, 0.0], [-0.3, 0.1]]), np.array([[-0.5, 0.0], [0.5, 0.5]])
    goal = np.array([0.5, 0.5])
    red = draw_walls(world, [away], [goal], layout=1)
    assert red.shape == (220, 220, 3)
    assert red[110, 110].max() < 60  # the wall at x = 0, y = 0
    assert red[20, 110].min() > 200  # and none above y = .4
    assert has(draw_walls(world, [away], [goal], layout=0), rendering.WALL) < has(red, rendering.WALL)
    green = draw_walls(world, [there], [goal], layout=1)
    assert has(red, GOAL) > 50 > has(green, GOAL)
    assert has(green, GOOD) > 50 > has(red, GOOD)
    frames = list(walls_film(world, np.stack([away, there]), np.stack([goal, goal]), layout=1, size=64))
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 2
    assert not np.array_equal(frames[0], frames[1])


class Blinking(gymnasium.Env):
    """Six steps; the picture shows how many are done."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, render_mode: str | None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1), {}

    def step(self, action):
        self.time += int(action[0])
        return np.full(1, self.time), 0.0, False, self.time >= 6, {}

    def render(self):
        return np.full((4, 4, 3), self.time, dtype=np.uint8)


def test_frames_of_a_gymnasium_episode():
    def times(**options) -> list[int]:
        return [int(f[0, 0, 0]) for f in record_frames(Blinking("rgb_array"), lambda seen: np.ones(1), **options)]

    assert times() == [0, 1, 2, 3, 4, 5, 6]
    assert times(every=4) == [0, 4, 6]  # the end is always shown
    assert times(steps=2) == [0, 1, 2]
    with pytest.raises(InputError, match='render_mode="rgb_array"'):
        record_frames(Blinking(None), lambda seen: np.ones(1))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: to_gif([]), "at least one frame"),
        (lambda: to_gif([*film(1), *film(1, size=16)]), "frames must be of one size; got [(16, 16, 3), (32, 32, 3)]"),
        (lambda: to_gif(film(), fps=100.0), "fps must lie in (0, 50]"),
        (lambda: film_strip([], 3), "at least one frame and one column; got 0 and 3"),
        (lambda: record_frames(Blinking("rgb_array"), lambda seen: np.ones(1), every=0), "every must be at least 1"),
        (lambda: next(walls_film(Walls("gap"), np.zeros((2, 5, 2)), np.zeros((1, 2)))), "got (2, 5, 2), (1, 2)"),
    ],
)
def test_bad_input_is_refused_in_words(wrong, text):
    with pytest.raises(InputError, match=re.escape(text)):
        wrong()


def test_a_machine_without_gl_says_so_and_what_to_install(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "no-such-backend")
    rendering._probe.cache_clear()
    try:
        reason = gl_available()
        assert reason is not None
        assert "no working OpenGL by no-such-backend" in reason
        assert "apt-get install libegl1" in reason
        assert os.environ["MUJOCO_GL"] == "no-such-backend"
        with pytest.raises(InputError, match="leave render=None"):
            require_gl()
        with pytest.raises(InputError, match="no working OpenGL"):
            make_goal_vector("FetchReach-v4", 1, 0, render=(64, 48))
    finally:
        rendering._probe.cache_clear()


def straight_to_the_goal(time: int, seen: dict[str, torch.Tensor]) -> torch.Tensor:
    """Proportional control solves FetchReach."""
    move = 10 * (seen["desired_goal"] - seen["achieved_goal"])
    return torch.cat([move, torch.zeros_like(move[..., :1])], dim=-1).clamp(-1, 1)


@pytest.mark.usefixtures("gl")
@pytest.mark.parametrize("seed", [1, 2, 3])  # goals in front of the table
def test_the_goal_can_be_seen_in_a_small_picture(seed):
    """Catches the environments' own camera: from there the goal is 3 to 7 pixels."""
    world = make_goal_vector("FetchReach-v4", 1, seed, render=(160, 120))
    world.reset()
    frame = world.render().astype(int)
    assert int((frame[..., 0] - frame[..., 1:].max(-1) > 60).sum()) >= 10
    world.close()


@pytest.mark.usefixtures("gl")
def test_a_film_of_fetch_reach_ends_green_when_the_goal_is_reached():
    world = RoboticsWorld("FetchReach-v4", render=(80, 60))
    films, reached = record_episodes(world, straight_to_the_goal, torch.Generator().manual_seed(1), 2, every=25)
    assert reached == [True, True]
    assert [len(frames) for frames in films] == [3, 3]
    assert films[0][0].shape == (60, 80, 3)
    assert not np.array_equal(films[0][0], films[0][-1])
    assert not np.array_equal(films[0][-1], films[1][-1])  # two goals, two pictures
    assert has(films[0][0], BAD) > 500 < has(films[0][-1], GOOD)
    with pytest.raises(InputError, match="every must be at least 1 step; got 0"):
        record_episodes(world, straight_to_the_goal, torch.Generator(), every=0)
    world.close()


@pytest.mark.usefixtures("gl")
@pytest.mark.parametrize("env_id", ["FetchPush-v4", "HandManipulateBlock-v1", "HandReach-v3"])
def test_looking_changes_nothing(env_id):
    """The environments' own render moves sites and runs the simulator once more; here that happens on a copy."""
    seen = {}
    for lean in (True, False):
        looked_at = make_goal_vector(env_id, 1, seed=0, render=(64, 48), lean=lean)
        seen[lean] = [looked_at.reset()]
        for action in np.random.default_rng(0).uniform(-1, 1, (5, 1, looked_at.action_size)):
            if lean:
                assert looked_at.render().shape == (48, 64, 3)
            seen[lean].append(looked_at.step(action))
        looked_at.close()
    for watched, unwatched in zip(seen[True], seen[False], strict=True):
        assert all(np.array_equal(watched[key], unwatched[key]) for key in watched)


@pytest.mark.usefixtures("gl")
def test_the_lean_picture_is_the_environments_picture():
    lean, plain = (make_goal_vector("FetchPush-v4", 2, 0, lean=lean, render=(80, 60)) for lean in (True, False))
    for vector in (lean, plain):
        vector.reset()
        vector.step(np.ones((2, 4)))
    assert np.abs(lean.render(1).astype(int) - plain.render(1)).max() <= 2
    assert np.abs(lean.render(0).astype(int) - plain.render(1)).max() > 20
    lean.close()
    plain.close()
