"""`labkit run`."""

import os
from typing import Any

from labkit.cli import directories
from labkit.cli.options import Device, Pairs, Resume, RunDir, Scale, Seed, Slug, asked
from labkit.cli.output import console, print_ledger, short
from labkit.workbench import notebooks
from labkit.workbench.experiment import Config, Paper
from labkit.workbench.runs import Run


def run(
    slug: Slug,
    scale: Scale = "lesson",
    p: Pairs = None,
    run_dir: RunDir = "",
    resume: Resume = False,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Execute a paper's notebook with papermill, headless; ends with the verdict table and the paths."""
    from labkit.workbench import page  # it brings nbconvert, and `labkit list` imports this file

    paper, config = asked(slug, scale, p, seed, device)
    directory = directories.choose(paper, scale, config, run_dir, resume)
    written = Run.open(directory, config)
    parameters = {"scale": scale, "seed": config.seed, "run_dir": str(directory.resolve())}
    parameters["overrides"] = changed_fields(paper, scale, config)
    os.environ["LABKIT_PROGRESS"] = "0"  # inherited by the kernel: a progress bar would only clutter the saved cells
    console.print(f"{paper.title}: notebook {paper.notebook} at scale {scale}")
    with directories.way_on("run", slug, scale, p, seed, device, directory):
        executed = notebooks.execute(paper.notebook, parameters, directory / "notebook.ipynb")
    written_page = page.write(executed)
    if written.result is not None:
        print_ledger(paper.verdicts(written.result, scale))
    console.print(
        f"notebook  {short(executed)}\npage      {short(written_page)}\nrun       {short(directory)}", soft_wrap=True
    )


def changed_fields(paper: Paper, scale: str, config: Config) -> dict[str, Any]:
    """The fields in which `config` differs from the scale's own, as plain values for the notebook's `overrides`."""
    plain, given = config.model_dump(mode="json"), paper.config(scale).model_dump(mode="json")
    return {name: value for name, value in plain.items() if value != given[name] and name != "seed"}
