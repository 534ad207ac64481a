"""Is this machine ready? One small real use of each library that the notebooks need."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from labkit.data import registry

PACKAGES = (
    "jupyterlab",
    "torch",
    "ipywidgets",
    "matplotlib",
    "plotly",
    "gymnasium",
    "mujoco",
    "nbval",
    "papermill",
    "jupytext",
)


@dataclass(frozen=True)
class Finding:
    """One check: what, how it stands, and what to type when it does not."""

    what: str
    ok: bool
    state: str
    remedy: str = ""
    optional: bool = False


def examine() -> list[Finding]:
    """All checks, in a second or two."""
    return [*_packages(), _device(), _physics(), _rendering(), *_datasets()]


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            yield Finding(name, False, "not installed", "make setup")


def _device() -> Finding:
    """In a process of its own: a broken torch must not take the doctor with it, and importing it takes a second."""
    program = (
        "import torch; n = torch.cuda.device_count();"
        "print(f'{torch.cuda.get_device_name()}, {n} in all' if n else f'none; {torch.get_num_threads()} CPU threads')"
    )
    call = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if call.returncode:
        return Finding("torch", False, (call.stderr.strip().splitlines() or ["no answer"])[-1], "make setup")
    available = not call.stdout.startswith("none")
    return Finding(
        "GPU", available, call.stdout.strip(), "" if available else "every lesson runs without one", optional=True
    )


def step_pendulum(steps: int = 100) -> float:
    """Let MuJoCo's inverted pendulum fall for `steps` steps without control; returns its final angle in radians."""
    import gymnasium

    with gymnasium.make("InvertedPendulum-v5") as environment:
        observation, _ = environment.reset(seed=0)
        for _ in range(steps):
            observation, *_ = environment.step(environment.action_space.sample() * 0)
    return float(observation[1])


def _physics() -> Finding:
    return _tried("MuJoCo steps", lambda: f"pendulum falls to {step_pendulum():+.2f} rad", "pip install 'mujoco<3.12'")


def _rendering() -> Finding:
    """In a process of its own: a missing graphics driver may abort the process that asks for it."""
    program = (
        "import gymnasium; e = gymnasium.make('InvertedPendulum-v5', render_mode='rgb_array'); e.reset(seed=0);"
        "print('x'.join(map(str, e.render().shape)))"
    )
    environment = {"MUJOCO_GL": "egl", **os.environ} if sys.platform == "linux" else dict(os.environ)
    call = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    remedy = "apt install libegl1 libgl1 (only animations need it)"
    if call.returncode:
        return Finding("MuJoCo renders", False, "no OpenGL", remedy, optional=True)
    return Finding("MuJoCo renders", True, f"picture {call.stdout.strip()}", optional=True)


def _datasets() -> Iterator[Finding]:
    for name in registry.names():
        state = registry.status(name)
        yield Finding(f"data: {name}", state.state == "present", state.state, state.detail, optional=True)


def _tried(what: str, attempt: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(what, True, attempt())
    except Exception as error:  # whatever is wrong with a library, the doctor's answer is a line in the table
        return Finding(what, False, f"{type(error).__name__}: {error}", remedy)
