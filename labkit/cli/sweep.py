"""`labkit sweep`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from labkit import papers, paths
from labkit.cli.options import Device, Scale, Slug, asked
from labkit.cli.output import console, short
from labkit.errors import InputError, RunError
from labkit.files import given_path
from labkit.workbench import sweep as sweeps

ENGINES = ("threads", "ray", "slurm")

Grid = Annotated[list[str] | None, typer.Option("-p", metavar="KEY VALUES", help="5,10,20 or 0..4: each in turn")]
Options = Annotated[
    list[str] | None, typer.Option("--slurm", metavar="KEY=VALUE", help="an option of Slurm, as submitit names it")
]


def sweep(
    slug: Slug,
    scale: Scale = "lesson",
    p: Grid = None,
    engine: Annotated[str, typer.Option(help=f"where the runs happen: {', '.join(ENGINES)}")] = "threads",
    jobs: Annotated[int, typer.Option(help="runs at a time; 0: one a GPU, or one a core")] = 0,
    retries: Annotated[int, typer.Option(help="how often a run that was killed or failed is started again")] = 2,
    gpus: Annotated[float, typer.Option(help="GPUs of each run, on Ray and Slurm")] = 0,
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="a number of the result by its path, a.b.c; default: the claims' effects"),
    ] = None,
    device: Device = None,
    address: Annotated[str, typer.Option(help="a Ray cluster that runs; default: a Ray of our own, here")] = "",
    slurm: Options = None,
    out: Annotated[str, typer.Option(help="folder of the sweep; default: runs/<slug>/sweep-<scale>-<fields>")] = "",
) -> None:
    """Run a notebook for every combination of some fields, and compare: a table and a plot with intervals over seeds.

    A run that is killed goes on from its checkpoint. A sweep that was stopped goes on when the same command is given.
    """
    if engine not in ENGINES:
        raise InputError(f"--engine is one of {', '.join(ENGINES)}; got '{engine}'.")
    for name, value, least in (("--jobs", jobs, 0), ("--retries", retries, 0), ("--gpus", gpus, 0)):
        if not least <= value <= 10_000:
            raise InputError(f"{name} must lie between {least} and 10000; got {value}.")
    for option, given, takes in (
        ("--gpus", gpus, ("ray", "slurm")), ("--address", address, ("ray",)), ("--slurm", slurm, ("slurm",)),
    ):  # fmt: skip
        if given and engine not in takes:
            raise InputError(f"{option} belongs to --engine {' and '.join(takes)}; the engine here is {engine}.")
    if engine == "slurm" and gpus != int(gpus):
        raise InputError(f"Slurm gives whole GPUs; got --gpus {gpus}.")
    paper, grid = papers.load(slug), fields(p or [])
    if engine == "threads":  # elsewhere there may be other devices
        asked(slug, scale, None, None, device)
    root = given_path(out, "--out") if out else paths.runs_dir() / slug / "-".join(["sweep", scale, *grid])
    planned = sweeps.plan(paper, scale, grid, device, root.resolve())
    sweeps.claim_folder(root, planned)
    visible = [] if device == "cpu" else visible_gpus()
    at_once = min(len(planned), jobs or len(visible) or os.cpu_count() or 1)
    console.print(f"{paper.title}: {len(planned)} runs at scale {scale}, {at_once} at a time, in {short(root)}")
    ended = run_all(engine, planned, at_once, retries, gpus, visible, address, slurm_options(slurm or []), root)
    failed = [job for job in ended if job.code]
    done = [job for job, how in zip(planned, ended, strict=True) if not how.code]
    if done:
        rows = sweeps.gather(paper, done, measure or [])
        table, plot = sweeps.report_files(rows, f"{paper.slug} at {scale}", root)
        console.print(as_table(rows))
        console.print(f"table     {short(table)}\nplot      {short(plot)}", soft_wrap=True)
    if failed:
        lines = "\n".join(f"  {Path(job.directory).name}: {sweeps.outcome(job)}" for job in failed)
        raise RunError(
            f"{len(failed)} of {len(ended)} runs failed:\n{lines}\nGive the command again to go on with them."
        )


def run_all(
    engine: str, planned: Sequence[sweeps.Job], at_once: int, retries: int, gpus: float, visible: Sequence[str],
    address: str, options: dict[str, Any], root: Path,
) -> list[sweeps.Ended]:  # fmt: skip
    """With a bar over all runs, and a line for each that ends."""
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=os.environ.get("LABKIT_PROGRESS") == "0") as bar:
        task = bar.add_task("", total=len(planned))

        def report(job: sweeps.Job, words: str) -> None:
            values = " ".join(f"{name}={value}" for name, value in job.values.items())
            bar.console.print(escape(f"{job.name} {values}: {words}"), highlight=False, soft_wrap=True)
            bar.advance(task)

        if engine == "ray":
            return sweeps.on_ray(planned, at_once, retries, gpus, address, report)
        if engine == "slurm":
            return sweeps.on_slurm(planned, at_once, retries, int(gpus), options, root, report)
        return sweeps.in_threads(planned, at_once, retries, visible[:at_once], report)


def fields(pairs: Sequence[str]) -> dict[str, list[str]]:
    """Field to its alternatives, as `-p key values` gave them."""
    grid: dict[str, list[str]] = {}
    for pair in pairs:
        key, equals, values = pair.partition("=")
        if not equals:
            raise InputError(f"-p takes a key and its values; got only '{pair}'.")
        if key in grid:
            raise InputError(f"-p {key} is given twice; write its values with commas between.")
        grid[key] = sweeps.alternatives(values)
    if not grid:
        raise InputError("a sweep needs a field and its values, such as -p seed 0..4.")
    return grid


def slurm_options(pairs: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--slurm takes KEY=VALUE, such as slurm_partition=gpu; got '{pair}'.")
        try:
            options[key] = json.loads(value)
        except (ValueError, RecursionError):
            options[key] = value
    return options


def visible_gpus() -> list[str]:
    """Numbers of this machine's GPUs that may be used."""
    if given := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return given.split(",")
    import torch

    return list(map(str, range(torch.cuda.device_count()))) if torch.cuda.is_available() else []


def as_table(rows: Sequence[sweeps.Row]) -> Table:
    """A line a combination and effect."""
    names = list(rows[0].values)
    table = Table(*names, "effect", "mean and 95 % interval", "seeds")
    for row in rows:
        for name, interval in row.effects.items():
            ends = f" [{interval.low:+.3f}, {interval.high:+.3f}]" if interval.replicates > 1 else ""
            cells = (*row.values.values(), name, f"{interval.value:+.3f}{ends}", str(interval.replicates))
            table.add_row(*map(escape, cells))
    return table
