"""`labkit export`."""

from pathlib import Path
from typing import Annotated

import typer

from labkit import papers
from labkit.cli.options import rooms
from labkit.cli.output import console, short
from labkit.errors import InputError
from labkit.files import given_path
from labkit.workbench.experiment import Config, Paper
from labkit.workbench.run_files import read_object
from labkit.workbench.runs import Run


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="folder of a finished run")],
    directory: Annotated[str, typer.Argument(metavar="DIR", help="folder to write; new, or empty")],
    arm: Annotated[str, typer.Option(help="which of the run's trained things; default: the room's first choice")] = "",
) -> None:
    """Write what a run trained as a folder for others: safetensors, config, and a model card made from the ledger."""
    from labkit.workbench import export as folder

    source, target = given_path(run, "RUN"), given_path(directory, "DIR")
    paper, config = whose(source)
    chosen = folder.export(paper, config, Run.open(source, config, writes=False), target, arm)
    console.print(f"{paper.slug} {chosen} in {short(target)}", soft_wrap=True)
    for file in sorted(target.iterdir()):
        console.print(f"  {file.name:<20}{file.stat().st_size:>12,} bytes", soft_wrap=True, highlight=False)
    console.print(f"To share it: hf upload YOUR_NAME/{target.resolve().name} {short(target)}", soft_wrap=True)


def whose(directory: Path) -> tuple[Paper, Config]:
    """The paper and the config that a run directory belongs to.

    Raises:
        InputError: there is no run, it is a part of one, or no paper has such a config.
    """
    identity = read_object(directory / "config.json")
    if identity is None:
        raise InputError(
            f"{directory} holds no run: there is no config.json. Give a folder such as runs/qnet/lesson-001."
        )
    if "part" in identity:
        raise InputError(
            f"{directory} is the part '{identity['part']}' of a run. Give the folder of the run, and --arm."
        )
    for paper in rooms(""):
        if config := paper.config_of(identity):
            return paper, config
    raise InputError(
        f"{directory}/config.json fits none of {', '.join(papers.names())}: another version of labkit made that run. "
        "Train it anew."
    )
