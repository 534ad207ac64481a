"""Films of robot episodes: MuJoCo scenes rendered without a screen, as frames, strips and GIFs.

MuJoCo needs an OpenGL that works headless. `gl_available` says whether there is one (None) or why not, and selects it:

    MUJOCO_GL=egl      packages libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri (a GPU driver's own EGL is used as well)
    MUJOCO_GL=osmesa   additionally libosmesa6, and PYOPENGL_PLATFORM=osmesa
"""

import contextlib
import functools
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Generator

from labkit.errors import InputError
from labkit.papers.sher.experiment.rollout import Act
from labkit.papers.sher.experiment.worlds.robots import RobotWorld
from labkit.viz import COLORS

Frame = NDArray[np.uint8]  # (height, width, 3)
FETCH_CAMERA = {  # half as far as the environments' own: at 160 pixels a goal must be more than one of them [ours]
    "distance": 1.2, "azimuth": 135.0, "elevation": -20.0, "lookat": np.array([1.3, 0.75, 0.6]),
}  # fmt: skip

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=".1"/></worldbody></mujoco>')
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(mujoco.MjData(model))
assert renderer.render().shape == (16, 16, 3)
"""


def gl_available() -> str | None:
    """None if MuJoCo can render here, else the reason in words. Tried once a process, in a process of its own.

    An OpenGL that does not work may end the process that tries it. The one that works is selected by MUJOCO_GL (and
    PYOPENGL_PLATFORM). Where MUJOCO_GL is set already, only that one is tried.
    """
    reason, chosen = _probe(os.environ.get("MUJOCO_GL"))
    os.environ.update(chosen)
    if reason is None and importlib.util.find_spec("triton") is not None:
        # Triton and Mesa each bring an LLVM. Loaded after Mesa's, Triton's ends the process, and PyTorch's optimizers
        # import it: training after the first picture would end there.
        importlib.import_module("triton")
    return reason


@functools.cache
def _probe(selected: str | None) -> tuple[str | None, dict[str, str]]:
    if selected:
        candidates = [{"MUJOCO_GL": selected}]
    elif sys.platform == "linux":
        candidates = [{"MUJOCO_GL": "egl"}, {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}]
    else:
        candidates = [{}]  # macOS and Windows bring their own
    for candidate in candidates:
        error = _error_with(candidate)
        if error is None:
            return None, candidate
    tried = " or ".join(candidate.get("MUJOCO_GL", "the system's own") for candidate in candidates)
    return (
        f"MuJoCo cannot render here: no working OpenGL by {tried} ({error}). On Debian or Ubuntu: "
        "apt-get install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri",
        {},
    )


def _error_with(candidate: dict[str, str]) -> str | None:
    """The last line of the error output of rendering one small picture, or None if it works."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], env=os.environ | candidate, capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        return "no answer within two minutes"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with {done.returncode}"


@contextlib.contextmanager
def camera(world: RobotWorld, width: int, height: int) -> Iterator[Callable[[int], Frame]]:
    """A function from an episode's index to a picture (height, width, 3) of it now, goal included.

    An environment of its own renders, on a copy of the episode's state: looking changes nothing in `world`.

    Raises:
        InputError: MuJoCo cannot render here.
    """
    if reason := gl_available():
        raise InputError(reason)
    import gymnasium
    import mujoco

    angle: dict[str, Any] = {"default_camera_config": FETCH_CAMERA} if world.env_id.startswith("Fetch") else {}
    environment = gymnasium.make(
        world.env_id, disable_env_checker=True, render_mode="rgb_array", width=width, height=height, **angle
    )
    task: Any = environment.unwrapped

    def picture(index: int) -> Frame:
        mujoco.mj_copyData(task.data, task.model, world.vector.data[index])
        mujoco.mj_forward(task.model, task.data)  # the last picture has moved the goal's mark in this model
        task.goal = world.vector.goals[index]
        return np.asarray(task.render(), dtype=np.uint8)

    try:
        yield picture
    finally:
        environment.close()


@torch.no_grad()
def record_episodes(
    world: RobotWorld,
    act: Act,
    generator: Generator,
    episodes: int = 1,
    every: int = 1,
    size: tuple[int, int] = (160, 120),
) -> tuple[list[list[Frame]], list[bool]]:
    """Test episodes of a Fetch or Hand world: a frame of `size` (width, height) every so many steps, and successes.

    `act(time, observation)` gives actions (1, episodes, size), as in `rollout`. The border of a frame is green if the
    goal is reached then, else red; the last frame's is the episode's success.
    """
    if every < 1:
        raise InputError(f"every must be at least 1 step; got {every}.")
    now = world.reset(1, episodes, [generator], training=False)
    films: list[list[Frame]] = [[] for _ in range(episodes)]
    with camera(world, *size) as picture:
        for t in range(world.horizon + 1):
            reached = world.is_success(now["achieved_goal"], now["desired_goal"])[0].tolist()
            if t % every == 0 or t == world.horizon:
                for index, film in enumerate(films):
                    film.append(bordered(picture(index), COLORS["good" if reached[index] else "bad"]))
            if t < world.horizon:
                now = world.step(act(t, now))
    return films, reached


def bordered(frame: Frame, color: str, width: int = 6) -> Frame:
    """The frame with a border painted over its edge."""
    inside = Image.fromarray(frame).crop((width, width, frame.shape[1] - width, frame.shape[0] - width))
    return np.asarray(ImageOps.expand(inside, width, color))


def film_strip(frames: Sequence[Frame], columns: int, gap: int = 4) -> Frame:
    """`columns` frames, evenly spaced from the first to the last, side by side: an animation for a printed page."""
    if not frames or columns < 1:
        raise InputError(f"a strip needs at least one frame and one column; got {len(frames)} and {columns}.")
    chosen = [frames[round(k)] for k in np.linspace(0, len(frames) - 1, columns)]
    white = np.full((chosen[0].shape[0], gap, 3), 255, dtype=np.uint8)
    return np.concatenate([part for frame in chosen for part in (frame, white)][:-1], axis=1)


def to_gif(frames: Sequence[Frame], *, fps: float = 25.0, colors: int = 64) -> bytes:
    """The frames as the bytes of an endless GIF.

    Fewer `colors` make it smaller; all frames share the palette of the whole film, so that nothing flickers.
    """
    if not len(frames):
        raise InputError("an animation needs at least one frame.")
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(f"frames must be of one size; got {sorted({frame.shape for frame in frames})}.")
    if not 0 < fps <= 50:
        raise InputError(f"fps must lie in (0, 50], what browsers show; got {fps}.")
    sample = np.concatenate([frames[round(k)] for k in np.linspace(0, len(frames) - 1, min(8, len(frames)))])
    palette = Image.fromarray(sample).quantize(colors)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = BytesIO()
    images[0].save(
        buffer, format="GIF", save_all=True, append_images=images[1:], duration=1000 / fps, loop=0, optimize=False
    )
    return buffer.getvalue()
