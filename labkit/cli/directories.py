"""Where a run goes, and how to go on with it."""

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from labkit import paths
from labkit.cli.options import pair_words
from labkit.errors import InputError, RunError
from labkit.files import given_path
from labkit.workbench.experiment import Config, Paper
from labkit.workbench.runs import latest_unfinished, new_directory


def choose(paper: Paper, scale: str, config: Config, run_dir: str, resume: bool) -> Path:
    """The run's folder. An existing run is continued only when the user says so, and never overwritten.

    Raises:
        InputError: there is a run and --resume was not given, or the other way round.
    """
    if run_dir:
        directory = given_path(run_dir, "--run-dir")
        is_there = os.path.exists(directory / "config.json")
        if is_there and not resume:
            raise InputError(f"{directory} holds a run already. Go on with it: --resume. Or give another --run-dir.")
        if resume and not is_there:
            raise InputError(f"{directory} holds no run to go on with. Leave --resume out to start one there.")
        return directory
    if resume:
        latest = latest_unfinished(paper.slug, config)
        if latest is None:
            raise InputError(f"no unfinished run of {paper.slug} with this config under {paths.runs_dir()}.")
        return latest
    return new_directory(paper.slug, scale)


@contextlib.contextmanager
def way_on(
    command: str, slug: str, scale: str, pairs: list[str] | None, seed: int | None, device: str | None, directory: Path
) -> Iterator[None]:
    """Add to a run's error the command that resumes the run; nothing where it had not begun."""
    try:
        yield
    except RunError as error:
        if not os.path.exists(directory / "config.json"):
            raise
        words = ["labkit", command, slug, "--scale", scale, *pair_words(pairs)]
        words += [] if seed is None else ["--seed", str(seed)]
        words += [] if device is None else ["--device", device]
        again = shlex.join([*words, "--run-dir", str(directory), "--resume"])
        raise RunError(f"{error}\nGo on with: {again}") from error
