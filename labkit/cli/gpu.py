"""`labkit gpu`."""

from pathlib import Path
from typing import Annotated

import typer

from labkit import papers
from labkit.cli.options import Seeds, numbers
from labkit.workbench import gpu as box


def gpu(
    slugs: Annotated[list[str] | None, typer.Argument(metavar="SLUGS", help="papers; default: all")] = None,
    minutes: Annotated[float, typer.Option(help="stop after this long; the same command goes on")] = 9.0,
    out: Annotated[Path, typer.Option(help="folder for results, logs and runs")] = Path("gpu-report"),
    seeds: Seeds = "0",
    scale: Annotated[str, typer.Option(help="another scale than gpu, to try the command out")] = "gpu",
) -> None:
    """Run GPU tests, benchmarks and gpu-scale training, time-boxed; the same command given again goes on."""
    numbers(seeds)
    chosen = slugs or papers.names()
    for slug in chosen:
        papers.load(slug).config(scale)
    reports = box.run(chosen, minutes, out, scale, seeds)
    words = ["python", "-m", "labkit", "gpu", *(slugs or []), "--minutes", f"{minutes:g}", "--out", str(out)]
    words += [] if seeds == "0" else ["--seeds", seeds]
    words += [] if scale == "gpu" else ["--scale", scale]
    print(box.summary(reports, words))
    if any(report.state == "failed" for report in reports):
        raise typer.Exit(1)
