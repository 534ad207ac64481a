"""Records: results worth keeping in the repository, `data/records/<slug>/<scale>-<device>.json`.

A record holds one result per seed and what it takes to get them again: config, commit, versions, hardware, command.
Only `record` writes one, from run directories that really ran.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from labkit import paths
from labkit.errors import RunError
from labkit.files import write_atomically
from labkit.workbench.runs import Run


class Record(BaseModel, frozen=True, extra="forbid"):
    """What was measured, with which config, on what, and by which command."""

    paper: str
    scale: str
    device: str = Field(description="kind of device: cpu, or the GPU's name in lower case")
    label: str = Field("", description="tells records of one scale apart that trained different arms")
    seeds: list[int] = Field(min_length=1)
    results: list[dict[str, Any]] = Field(min_length=1, description="one result per seed, in the order of `seeds`")
    config: dict[str, Any]
    environment: dict[str, Any]
    wall_seconds: list[float] = Field(description="wall time of each seed's run")
    cpu_seconds: list[float] = Field([], description="CPU time of each seed's run; older records hold none")
    command: str
    recorded: str = Field(description="date, ISO 8601")

    @property
    def name(self) -> str:
        label = f"-{self.label}" if self.label else ""
        return f"{self.paper}/{self.scale}-{self.device}{label}.json"

    @property
    def path(self) -> Path:
        return paths.records_dir() / self.name


def record(paper: str, scale: str, device: str, runs: Sequence[Run], command: str, label: str = "") -> Record:
    """Gather finished runs, one per seed, into a record and write it.

    Raises:
        RunError: one of the runs has no result yet, or they differ in more than the seed.
    """
    config = _without_seed(runs[0])
    for run in runs:
        if run.result is None or run.read_json("timing.json") is None:
            raise RunError(f"{run.directory} is not finished; go on with --resume, then record it.")
        if _without_seed(run) != config:
            raise RunError(f"{run.directory} and {runs[0].directory} differ in more than the seed.")
    made = Record(
        paper=paper,
        scale=scale,
        device=device,
        label=label,
        seeds=[run.identity["seed"] for run in runs],
        results=[run.result or {} for run in runs],
        config=config,
        environment=runs[0].read_json("environment.json"),
        wall_seconds=[run.read_json("timing.json")["wall_seconds"] for run in runs],
        cpu_seconds=[run.read_json("timing.json").get("cpu_seconds", 0.0) for run in runs],
        command=command,
        recorded=time.strftime("%Y-%m-%d"),
    )
    try:
        write_atomically(made.path, (json.dumps(made.model_dump(), indent=1) + "\n").encode())
    except OSError as error:
        raise RunError(f"cannot write {made.path}: {error.strerror or error}. The runs are kept.") from error
    return made


def _without_seed(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.identity.items() if name != "seed"}


def load_all(paper: str) -> list[Record]:
    """The records of `paper`: those without a label first, then in the order of their names.

    Raises:
        RunError: a file there is damaged.
    """
    found = []
    for path in sorted((paths.records_dir() / paper).glob("*.json")):
        try:
            found.append(Record.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise RunError(
                f"{path} is not a record ({error.error_count()} fields wrong). Restore it with git."
            ) from error
    return sorted(found, key=lambda record: (bool(record.label), record.name))
