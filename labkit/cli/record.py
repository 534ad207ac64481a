"""`labkit record`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from labkit import paths
from labkit.cli.options import Device, Pairs, RunDir, Scale, Seeds, Slug, asked, numbers, pair_words
from labkit.cli.output import console, print_ledger, short
from labkit.errors import InputError
from labkit.workbench import records
from labkit.workbench.experiment import Config, Paper
from labkit.workbench.runs import Run


def finish_seeds(paper: Paper, config: Config, seeds: Sequence[int], root: Path) -> list[Run]:
    """Runs of `config`, one a seed, below `root`; those that are finished already are only read."""
    runs = []
    for seed in seeds:
        seeded = config.override(seed=seed)
        runs.append(Run.open(root / f"seed-{seed}", seeded))
        paper.run(seeded, runs[-1])
        print(f"{paper.slug} seed {seed} done", file=sys.stderr)  # stdout is for what came out
    return runs


def record(
    slug: Slug,
    scale: Scale = "lesson",
    seeds: Seeds = "0,1,2",
    p: Pairs = None,
    device: Device = None,
    run_dir: RunDir = "",
    label: Annotated[str, typer.Option(help="tells this record from others of the same scale")] = "",
) -> None:
    """Run a paper over several seeds and write data/records/<slug>/<scale>-<device>.json.

    Seeds that are finished already are not run again, so that a stopped recording goes on where it was.
    """
    from labkit.devices import kind_of, pick_device

    paper, config = asked(slug, scale, p, None, device)
    root = Path(run_dir) if run_dir else paths.runs_dir() / slug / "-".join(filter(None, ("record", scale, label)))
    if label and not label.replace("-", "").isalnum():
        raise InputError(f"--label is part of a file name: letters, digits and hyphens; got '{label}'.")
    finished = finish_seeds(paper, config, numbers(seeds), root)
    kind = kind_of(pick_device(config.device))
    words = ["labkit", "record", slug, "--scale", scale, "--seeds", seeds, *(["--label", label] if label else [])]
    command = shlex.join([*words, *(["--device", device] if device else []), *pair_words(p)])
    written = records.record(slug, scale, kind, finished, command, label)
    print_ledger(paper.verdicts())
    console.print(f"record    {short(written.path)}", soft_wrap=True)
