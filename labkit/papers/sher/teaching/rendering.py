"""Pictures of episodes: MuJoCo scenes rendered without a screen, flat worlds drawn without any GL, both as a GIF.

MuJoCo needs an OpenGL that works headless. `gl_available` says whether there is one (None) or why not, and selects it:

    MUJOCO_GL=egl      packages libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri (a GPU driver's own EGL is found as well)
    MUJOCO_GL=osmesa   additionally libosmesa6, and PYOPENGL_PLATFORM=osmesa
"""

import functools
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from torch import Generator, Tensor

from labkit.errors import InputError
from labkit.papers.sher.experiment.worlds.robots import RoboticsWorld
from labkit.papers.sher.experiment.worlds.small import Segment, Walls

Frame = NDArray[np.uint8]  # (height, width, 3)
GOOD, BAD, GOAL, WALL, POINT = "#2e7d32", "#c0392b", "#d97706", "#222222", "#1f6fb4"  # as in the figures

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=".1"/></worldbody></mujoco>')
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(mujoco.MjData(model))
assert renderer.render().shape == (16, 16, 3)
"""


def gl_available() -> str | None:
    """None if MuJoCo can render here, else the reason in words. Tried once a process, in a process of its own.

    An OpenGL that does not work may end the process that tries it. What is found is selected by MUJOCO_GL (and
    PYOPENGL_PLATFORM), unless MUJOCO_GL is set already: then only that is tried.
    """
    reason, chosen = _probe(os.environ.get("MUJOCO_GL"))
    os.environ.update(chosen)
    if reason is None and importlib.util.find_spec("triton") is not None:
        # Triton and Mesa each bring an LLVM. Loaded after Mesa's, Triton's ends the process, and PyTorch's optimisers
        # import it: whoever trains after the first picture would be lost.
        importlib.import_module("triton")
    return reason


def require_gl() -> None:
    """Raise InputError with the reason if MuJoCo cannot render here."""
    if reason := gl_available():
        raise InputError(f"{reason} Without pictures leave render=None.")


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
    """The last line of what rendering one small picture says, or None if it works."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], env=os.environ | candidate, capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        return "no answer within two minutes"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"the process ended with {done.returncode}"


def record_frames(
    environment: Any,
    policy: Callable[[Any], NDArray[Any]],
    *,
    seed: int | None = None,
    steps: int | None = None,
    every: int = 1,
) -> list[Frame]:
    """One episode of a gymnasium environment made with render_mode="rgb_array", a frame `every` so many steps.

    `policy` gets the observation and gives the action. The episode ends by itself or after `steps`.
    """
    if environment.render_mode != "rgb_array":
        raise InputError('make the environment with render_mode="rgb_array" (and width=, height=)')
    if every < 1:
        raise InputError(f"every must be at least 1 step; got {every}")
    observation, _ = environment.reset(seed=seed)
    frames = [_frame(environment.render())]
    step, over = 0, False
    while not over and step != steps:
        observation, _, terminated, truncated, _ = environment.step(policy(observation))
        step, over = step + 1, terminated or truncated
        if step % every == 0 or over:
            frames.append(_frame(environment.render()))
    return frames


@torch.no_grad()
def record_episodes(
    world: RoboticsWorld,
    act: Callable[[int, dict[str, Tensor]], Tensor],
    generator: Generator,
    episodes: int = 1,
    every: int = 1,
    training: bool = False,
) -> tuple[list[list[Frame]], list[bool]]:
    """Episodes of a Fetch or Hand world made with render=(width, height): their frames, and whether each succeeded.

    `act(time, seen)` gives actions (1, episodes, size), as in `rollout`. A frame's border tells how far the goal is
    at that moment: green where it is reached, red where not; so the last frame's is the episode's success.
    """
    if every < 1:
        raise InputError(f"every must be at least 1 step; got {every}")
    now = world.reset(1, episodes, [generator], training)
    films: list[list[Frame]] = [[] for _ in range(episodes)]
    for t in range(world.horizon + 1):
        reached = world.is_success(now["achieved_goal"], now["desired_goal"])[0].tolist()
        if t % every == 0 or t == world.horizon:
            for index, film in enumerate(films):
                film.append(bordered(world.vector.render(index), GOOD if reached[index] else BAD))
        if t < world.horizon:
            now = world.step(act(t, now))
    return films, reached


def draw_walls(
    world: Walls,
    paths: Sequence[NDArray[np.floating[Any]]],
    goals: Sequence[NDArray[np.floating[Any]]],
    *,
    layout: int = 0,
    size: int = 220,
) -> Frame:
    """A wall world seen from above: each path (steps, 2) up to where it is now, its goal and the goal's tolerance.

    Drawn with Pillow alone, at twice the size and shrunk, which smooths the lines.
    """
    scale, canvas = size, Image.new("RGB", (2 * size, 2 * size), "white")
    pen = ImageDraw.Draw(canvas)

    def at(x: float, y: float) -> tuple[float, float]:
        return ((1 + x) * scale, (1 - y) * scale)

    for (x, y), path in zip(goals, paths, strict=True):
        reached = bool(np.hypot(*(path[-1] - (x, y))) <= world.tolerance)
        r = world.tolerance
        pen.ellipse((*at(x - r, y + r), *at(x + r, y - r)), outline=GOOD if reached else GOAL, width=4)
    for path in paths:
        if len(path) > 1:
            pen.line([at(*point) for point in path.tolist()], fill=POINT, width=3)
        x, y = path[-1]
        pen.ellipse((*at(x - 0.025, y + 0.025), *at(x + 0.025, y - 0.025)), fill=POINT)
    walls: tuple[Segment, ...] = world.layouts[layout].walls
    for first, second in walls:
        pen.line([at(*first), at(*second)], fill=WALL, width=8)
    pen.rectangle((0, 0, 2 * size - 1, 2 * size - 1), outline=WALL, width=2)
    return np.asarray(canvas.resize((size, size), Image.Resampling.LANCZOS))


def walls_film(
    world: Walls,
    paths: NDArray[np.floating[Any]],
    goals: NDArray[np.floating[Any]],
    *,
    layout: int = 0,
    size: int = 220,
) -> Iterator[Frame]:
    """The frames of episodes `paths` (episodes, moments, 2) with goals (episodes, 2), one moment each."""
    if paths.ndim != 3 or goals.shape != (len(paths), 2) or paths.shape[2] != 2:
        raise InputError(f"paths must be (episodes, moments, 2), goals (episodes, 2); got {paths.shape}, {goals.shape}")
    for moment in range(1, paths.shape[1] + 1):
        yield draw_walls(world, list(paths[:, :moment]), list(goals), layout=layout, size=size)


def bordered(frame: Frame, colour: str, width: int = 6) -> Frame:
    """The frame with a coloured border painted over its edge."""
    inside = Image.fromarray(frame).crop((width, width, frame.shape[1] - width, frame.shape[0] - width))
    return np.asarray(ImageOps.expand(inside, width, colour))


def film_strip(frames: Sequence[Frame], columns: int, gap: int = 4) -> Frame:
    """`columns` frames, evenly spaced from the first to the last, side by side: an animation for a printed page."""
    if not frames or columns < 1:
        raise InputError(f"a strip needs at least one frame and one column; got {len(frames)} and {columns}")
    chosen = [frames[round(k)] for k in np.linspace(0, len(frames) - 1, columns)]
    white = np.full((chosen[0].shape[0], gap, 3), 255, dtype=np.uint8)
    return np.concatenate([part for frame in chosen for part in (frame, white)][:-1], axis=1)


def to_gif(frames: Sequence[Frame], target: str | Path | None = None, *, fps: float = 25.0, colours: int = 64) -> bytes:
    """The frames as an endless GIF: its bytes, also written to `target` if one is given.

    Fewer `colours` make a smaller file; all frames share the palette of the whole film, so that nothing flickers.
    """
    if not len(frames):
        raise InputError("an animation needs at least one frame")
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(f"frames must be of one size; got {sorted({frame.shape for frame in frames})}")
    if not 0 < fps <= 50:
        raise InputError(f"fps must lie in (0, 50], what browsers show; got {fps}")
    sample = np.concatenate([frames[round(k)] for k in np.linspace(0, len(frames) - 1, min(8, len(frames)))])
    palette = Image.fromarray(sample).quantize(colours)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = BytesIO()
    images[0].save(
        buffer, format="GIF", save_all=True, append_images=images[1:], duration=1000 / fps, loop=0, optimize=False
    )
    if target is not None:
        Path(target).write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _frame(rendered: Any) -> Frame:
    return np.asarray(rendered, dtype=np.uint8)
