"""`labkit train`."""

import os
from typing import Any

from labkit.cli import directories
from labkit.cli.options import Device, Pairs, Resume, RunDir, Scale, Seed, Slug, asked
from labkit.cli.output import console, print_ledger, short
from labkit.errors import LabkitError
from labkit.workbench.experiment import Config, Paper
from labkit.workbench.runs import Run


def train(
    slug: Slug,
    scale: Scale = "lesson",
    p: Pairs = None,
    run_dir: RunDir = "",
    resume: Resume = False,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Train without a notebook; under torchrun, in all its processes together."""
    paper, config = asked(slug, scale, p, seed, device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        train_together(paper, scale, config, run_dir, resume)
        return
    directory = directories.choose(paper, scale, config, run_dir, resume)
    console.print(f"{paper.title}: training at scale {scale} in {short(directory)}", soft_wrap=True)
    with directories.way_on("train", slug, scale, p, seed, device, directory):
        result = paper.run(config, Run.open(directory, config))
    print_ledger(paper.verdicts(result, scale))


def train_together(paper: Paper, scale: str, config: Config, run_dir: str, resume: bool) -> None:
    """As one of torchrun's processes: the first one chooses the directory and sends it to the others."""
    from torch.distributed import broadcast_object_list

    from labkit.workbench import training

    with training.workers(config.device) as workers:
        chosen: list[Any] = [None]
        if workers.writes:
            try:
                chosen = [str(directories.choose(paper, scale, config, run_dir, resume))]
            except LabkitError as error:
                chosen = [error]
        broadcast_object_list(chosen)
        if isinstance(chosen[0], LabkitError):
            raise chosen[0]
        result = paper.run(config, Run.open(chosen[0], config, writes=workers.writes))
        if workers.writes:
            print_ledger(paper.verdicts(result, scale))
