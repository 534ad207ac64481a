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
from labkit.papers.sher.experiment.worlds.robots import RobotWorld
from labkit.papers.sher.teaching import rendering
from labkit.papers.sher.teaching.rendering import (
    bordered,
    camera,
    film_strip,
    gl_available,
    record_episodes,
    to_gif,
)
from labkit.viz import COLORS

GOOD, BAD = COLORS["good"], COLORS["bad"]


@pytest.fixture
def gl() -> None:
    if reason := gl_available():
        pytest.skip(reason)


def has(frame: np.ndarray, color: str) -> int:
    """How many pixels have nearly this color."""
    return int((np.abs(frame.astype(int) - ImageColor.getrgb(color)).max(-1) < 30).sum())


def film(count: int = 5, size: int = 32) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (size, size, 3), dtype=np.uint8) // 64 * 64 for _ in range(count)]


def test_a_gif_holds_the_frames_and_their_pace():
    frames = film()
    data = to_gif(frames, fps=20.0, colors=256)
    image = Image.open(BytesIO(data))
    assert (image.n_frames, image.info["duration"], image.info["loop"]) == (5, 50, 0)
    for k, frame in enumerate(frames):
        image.seek(k)
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - frame).mean() < 3
    assert len(to_gif(frames, colors=4)) < len(data)


def test_a_strip_runs_from_the_first_to_the_last_frame():
    frames = [np.full((10, 8, 3), k, dtype=np.uint8) for k in range(11)]
    strip = film_strip(frames, 3, gap=2)
    assert strip.shape == (10, 3 * 8 + 2 * 2, 3)
    assert [strip[0, x, 0] for x in (0, 8, 10, 20)] == [0, 255, 5, 10]


def test_a_border_is_painted_over_the_edge():
    framed = bordered(np.zeros((40, 60, 3), dtype=np.uint8), GOOD, width=5)
    assert framed.shape == (40, 60, 3)
    assert has(framed, GOOD) == 40 * 60 - 30 * 50


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: to_gif([]), "at least one frame"),
        (lambda: to_gif([*film(1), *film(1, size=16)]), "frames must be of one size; got [(16, 16, 3), (32, 32, 3)]"),
        (lambda: to_gif(film(), fps=100.0), "fps must lie in (0, 50]"),
        (lambda: film_strip([], 3), "at least one frame and one column; got 0 and 3"),
    ],
)
def test_bad_input_is_refused_in_words(wrong, text):
    with pytest.raises(InputError, match=re.escape(text)):
        wrong()


def test_a_machine_without_gl_says_so_and_what_to_install(monkeypatch):
    world = RobotWorld("FetchReach-v4")
    monkeypatch.setenv("MUJOCO_GL", "no-such-backend")
    rendering._probe.cache_clear()
    try:
        reason = gl_available()
        assert reason is not None
        assert "no working OpenGL by no-such-backend" in reason
        assert "apt-get install libegl1" in reason
        assert os.environ["MUJOCO_GL"] == "no-such-backend"
        with pytest.raises(InputError, match="no working OpenGL"), camera(world, 64, 48):
            pass
    finally:
        rendering._probe.cache_clear()


def straight_to_the_goal(time: int, now: dict[str, torch.Tensor]) -> torch.Tensor:
    """Proportional control solves FetchReach."""
    move = 10 * (now["desired_goal"] - now["achieved_goal"])
    return torch.cat([move, torch.zeros_like(move[..., :1])], dim=-1).clamp(-1, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("gl")
def test_the_goal_can_be_seen_in_a_small_picture():
    """Catches the environments' own camera: from there the goal is 3 to 7 pixels."""
    world = RobotWorld("FetchReach-v4")
    world.reset(1, 6, [torch.Generator().manual_seed(0)])
    with camera(world, 160, 120) as picture:
        for index in range(1, 6):  # goals in front of the table; a mark where the last picture had it would be missed
            frame = picture(index).astype(int)
            assert int((frame[..., 0] - frame[..., 1:].max(-1) > 60).sum()) >= 10
    world.close()


@pytest.mark.usefixtures("gl")
def test_a_film_of_fetch_reach_ends_green_when_the_goal_is_reached():
    world = RobotWorld("FetchReach-v4")
    films, reached = record_episodes(world, straight_to_the_goal, torch.Generator().manual_seed(1), 2, 25, (80, 60))
    assert reached == [True, True]
    assert [len(frames) for frames in films] == [3, 3]
    assert films[0][0].shape == (60, 80, 3)
    assert not np.array_equal(films[0][0], films[0][-1])
    assert not np.array_equal(films[0][-1], films[1][-1])  # two goals, two pictures
    assert has(films[0][0], BAD) > 500 < has(films[0][-1], GOOD)
    with pytest.raises(InputError, match="every must be at least 1 step; got 0"):
        record_episodes(world, straight_to_the_goal, torch.Generator(), every=0)
    world.close()


@pytest.mark.slow
@pytest.mark.usefixtures("gl")
@pytest.mark.parametrize("env_id", ["FetchPush-v4", "HandManipulateBlock-v1", "HandReach-v3"])
def test_looking_changes_nothing(env_id):
    """The environments' own render moves sites and runs the simulator once more; here that happens on a copy."""
    watched, unwatched = RobotWorld(env_id), RobotWorld(env_id)
    for world in (watched, unwatched):
        world.reset(1, 1, [torch.Generator().manual_seed(0)])
    with camera(watched, 64, 48) as picture:
        for action in np.random.default_rng(0).uniform(-1, 1, (5, 1, 1, watched.action_size)):
            assert picture(0).shape == (48, 64, 3)
            one, other = (world.step(torch.from_numpy(action)) for world in (watched, unwatched))
            assert all(torch.equal(one[key], other[key]) for key in one)
    for world in (watched, unwatched):
        world.close()


@pytest.mark.usefixtures("gl")
def test_the_picture_is_the_environments_picture():
    world = RobotWorld("FetchPush-v4")
    world.vector.reset([5])
    options = {"render_mode": "rgb_array", "width": 80, "height": 60}
    alone = gymnasium.make("FetchPush-v4", default_camera_config=rendering.FETCH_CAMERA, **options)
    alone.reset(seed=5)
    first = alone.render().astype(int)
    world.vector.step(np.ones((1, 4)))
    alone.step(np.ones(4))
    with camera(world, 80, 60) as picture:
        assert np.abs(picture(0).astype(int) - alone.render()).max() <= 2
        assert np.abs(picture(0).astype(int) - first).max() > 20
    alone.close()
    world.close()
