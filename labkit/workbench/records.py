"""Records: results worth keeping in the repository, `data/records/<slug>/<scale>-<device>.json`.

A record holds one result per seed and what it takes to get them again: config, commit, versions, hardware, command.
Only `record` writes one, from run directories that really ran.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from labkit import paths
from labkit.errors import RunError
from labkit.files import write_json
from labkit.workbench.run_files import first_problem, not_finite, read_object
from labkit.workbench.runs import Run


class Record(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """What was measured, with which config, on what, and by which command."""

    paper: str
    scale: str
    device: str = Field(description="kind of device: cpu, or the GPU's name in lower case")
    label: str = Field("", description="tells records of one scale apart that trained different arms")
    seeds: list[int] = Field(min_length=1, max_length=10_000)
    results: list[dict[str, Any]] = Field(min_length=1, description="one result per seed, in the order of `seeds`")
    config: dict[str, Any]
    environment: dict[str, Any]
    wall_seconds: list[Annotated[float, Field(ge=0)]] = Field(description="wall time of each seed's run")
    cpu_seconds: list[Annotated[float, Field(ge=0)]] = Field(
        [], description="CPU time of each seed's run; older records hold none"
    )
    command: str
    recorded: str = Field(description="date, ISO 8601")
    code: str = Field("", description="fingerprints of the room's code that ran, + between; older records hold none")

    @model_validator(mode="after")
    def _whole(self) -> "Record":
        counts = {len(self.seeds), len(set(self.seeds)), len(self.results), len(self.wall_seconds)}
        if len(counts | {len(self.cpu_seconds) or len(self.seeds)}) > 1:
            raise ValueError("seeds, results and seconds must be as many, and no seed twice")
        if bad := list(not_finite(self.results)):
            raise ValueError(f"results must be finite, and {bad[0]}")
        return self

    @property
    def name(self) -> str:
        label = f"-{self.label}" if self.label else ""
        return f"{self.paper}/{self.scale}-{self.device}{label}.json"

    @property
    def path(self) -> Path:
        return paths.records_dir() / self.name

    def write(self) -> None:
        """Write it to `path`.

        Raises:
            RunError: no space, no permission...; the record that was there is untouched.
        """
        try:
            write_json(self.path, self.model_dump())
        except OSError as error:
            raise RunError(
                f"cannot write {self.path}: {error.strerror or error}. Free space or fix the permission, then give the "
                "command again; finished runs are kept."
            ) from error


def record(paper: str, scale: str, device: str, runs: Sequence[Run], command: str, label: str = "") -> Record:
    """Gather finished runs, one per seed, into a record and write it.

    Raises:
        RunError: one of the runs has no result yet, or they differ in more than the seed.
    """
    config = _without_seed(runs[0])
    for run in runs:
        if run.result is None or not (run.directory / "timing.json").exists():
            raise RunError(f"{run.directory} is not finished; go on with --resume, then record it.")
        if _without_seed(run) != config:
            raise RunError(f"{run.directory} and {runs[0].directory} differ in more than the seed.")
    new = Record(
        paper=paper,
        scale=scale,
        device=device,
        label=label,
        seeds=[run.identity["seed"] for run in runs],
        results=[run.result or {} for run in runs],
        config=config,
        environment=read_object(runs[0].directory / "environment.json") or {},
        wall_seconds=[run.spent.wall_seconds for run in runs],
        cpu_seconds=[run.spent.cpu_seconds for run in runs],
        command=command,
        recorded=time.strftime("%Y-%m-%d"),
        code=_code(runs),
    )
    new.write()
    return new


def _code(runs: Sequence[Run]) -> str:
    """All fingerprints of the runs; empty where one of them does not know its own."""
    codes = [run.code for run in runs]
    return "+".join(sorted(set("+".join(codes).split("+")))) if all(codes) else ""


def _without_seed(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.identity.items() if name != "seed"}


def load_all(paper: str) -> list[Record]:
    """The records of `paper`: those without a label first, then in the order of their names.

    Raises:
        RunError: a file there is damaged, or another record than its name says.
    """
    records = []
    for path in sorted((paths.records_dir() / paper).glob("*.json")):
        try:
            record = Record.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RunError(f"{path} cannot be read ({error.strerror or error}).") from error
        except ValidationError as error:
            raise RunError(f"{path} is not a record ({first_problem(error)}). Restore it with git.") from error
        if record.path != path:
            raise RunError(f"{path} holds the record {record.name}: another paper's, or renamed. Restore it with git.")
        records.append(record)
    return sorted(records, key=lambda record: (bool(record.label), record.name))
