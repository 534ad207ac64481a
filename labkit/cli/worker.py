"""`labkit worker`: not for people; `Paper.run` starts it through torchrun."""

import os
from pathlib import Path

from labkit import papers
from labkit.errors import RunError
from labkit.workbench.run_files import read_as
from labkit.workbench.runs import Run


def worker(slug: str, directory: Path) -> None:
    """One process of a run that `Paper.run` spread over several."""
    paper = papers.load(slug)
    path = directory / "launch.json"
    config = read_as(type(paper.config()), path)
    if config is None:
        raise RunError(f"{path} is missing: only `labkit train` starts workers.")
    paper.run(config, Run.open(directory, config, writes=int(os.environ["RANK"]) == 0))
