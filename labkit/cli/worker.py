"""`labkit worker`: not for people; `Paper.run` starts it through torchrun."""

import os
from pathlib import Path

from labkit import papers
from labkit.workbench.runs import Run


def worker(slug: str, directory: Path) -> None:
    """One process of a run that `Paper.run` spread over several."""
    paper = papers.load(slug)
    config = type(paper.config()).model_validate_json((directory / "launch.json").read_text())
    paper.run(config, Run.open(directory, config, writes=int(os.environ["RANK"]) == 0))
