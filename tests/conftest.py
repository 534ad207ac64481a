"""What all tests share: no test writes into the repository, and each gets a fresh place for its runs."""

import contextlib
import fcntl
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "notebooks")]  # for toy_paper and second_edition

import lazy_checks  # noqa: E402, only there on this path

lazy_checks.install()

from labkit.workbench.experiment import Config, Paper  # noqa: E402, after the checks are installed
from labkit.workbench.runs import Run  # noqa: E402

torch.set_warn_always(True)  # not once a process: which test fails must not depend on the order
# One thread, unless the caller says otherwise: the same sums in the same order, and two workers share two cores.
THREADS = os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(THREADS))


def pytest_collection() -> None:
    gc.disable()  # a million objects, hardly any of them garbage: looking for it takes a quarter of the time


def pytest_collection_finish() -> None:
    gc.freeze()  # nor is it looked for there later
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before the fixtures
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Shapes are checked at every call, which doubles the time of a long training: one that repeats is spared."""
    jaxtyping.config.update("jaxtyping_disable", item.get_closest_marker("shapes_unchecked") is not None)


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and records of a test lie in its own folder; a child process inherits that."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LABKIT_PROGRESS", "0")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The toy paper, the only one there is; its records lie in the test's folder."""
    import toy_driver
    import toy_paper

    from labkit import papers

    load, names = toy_driver.register(papers.load)
    monkeypatch.setattr(papers, "load", load)
    monkeypatch.setattr(papers, "names", names)
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path / "records"))
    return toy_paper.PAPER


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """LABKIT_DATA with ImageNet's layout: two classes of six training and three validation images of odd sizes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for wnid in ("n01440764", "n01443537"):
            folder = tmp_path / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = random.integers(0, 256, (230 + 7 * k, 300 - 11 * k, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{k}.JPEG")
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Paper, Config, str], Path]:
    """`trained_once(paper, config, name)`: the folder of a finished run, for all workers of a session; read it only.

    The first who asks trains it, with every shape checked; others wait for that.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(paper: Paper, config: Config, name: str) -> Path:
        directory = shared / f"trained-{paper.slug}-{name}"
        with open(directory.with_suffix(".lock"), "w") as lock, pytest.MonkeyPatch.context() as patch:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (directory / "result.json").exists():
                patch.setenv("LABKIT_DATA", str(shared / "no-data"))
                unchecked = jaxtyping.config.jaxtyping_disable
                jaxtyping.config.update("jaxtyping_disable", False)
                paper.run(config, Run.open(directory, config))
                jaxtyping.config.update("jaxtyping_disable", unchecked)
        return directory

    return folder


@pytest.fixture
def smoke_run(trained_once: Callable[[Paper, Config, str], Path], tmp_path: Path) -> Callable[[Paper], Run]:
    """`smoke_run(paper)`: a copy of its finished run at scale smoke, which is trained once a session."""

    def copy(paper: Paper) -> Run:
        config = paper.config("smoke", device="cpu")
        shutil.copytree(trained_once(paper, config, "smoke"), tmp_path / f"smoke-{paper.slug}")
        return Run.open(tmp_path / f"smoke-{paper.slug}", config)

    return copy


Labkit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def labkit(tmp_path: Path) -> Labkit:
    """`labkit <words>` on the toy paper in processes of their own; `fault` and others as toy_driver.py tells."""
    import together

    def call(*words: str, processes: int = 1, **toy: object) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "COLUMNS": "200",  # tables as wide as they like
            "LABKIT_RECORDS": str(tmp_path / "records"),
            **{f"TOY_{name.upper()}": str(value) for name, value in toy.items()},
        }
        return together.run(TESTS / "toy_driver.py", words, environment, processes)

    return call


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Leave a run as a kill before its n-th step would; cheaper than a process of its own. Returns the checkpoint."""

    import toy_paper

    from labkit.workbench.runs import Run

    def stop(directory: Path, number: int, config: toy_paper.ToyConfig | None = None) -> bytes:
        config = config or toy_paper.ToyConfig()
        countdown = iter(range(number))

        def on_step(step: int) -> None:
            if next(countdown, None) is None:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(toy_paper, "on_step", on_step)
            toy_paper.PAPER.run(config, Run.open(directory, config, checkpoint_seconds=0.0))
        return next(directory.rglob("checkpoint.pt")).read_bytes()

    return stop
