"""`labkit claims`."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from labkit import paths
from labkit.cli.options import AnySlug, AsJson, Device, Pairs, asked, numbers, rooms
from labkit.cli.output import print_ledger
from labkit.cli.record import finish_seeds
from labkit.errors import InputError
from labkit.workbench.claims import Verdict, ledger_markdown
from labkit.workbench.experiment import SCALES, Paper


def claims(
    slug: AnySlug = "",
    long: Annotated[bool, typer.Option("--long", help="with the sentences, the papers' figures and sources")] = False,
    json_: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown")] = False,
    html: Annotated[bool, typer.Option("--html", help="print a page of HTML")] = False,
    run: Annotated[bool, typer.Option("--run", help="measure anew, in place of reading the records")] = False,
    scale: Annotated[str, typer.Option(help=f"one of {', '.join(SCALES)}; default: lesson")] = "",
    seeds: Annotated[str, typer.Option(help="seeds with commas between; default: 0")] = "",
    p: Pairs = None,
    device: Device = None,
) -> None:
    """Show the ledger: every statement of the abstracts, what was measured, whether it holds.

    From the records; with --run from runs that this command makes, or finds finished under runs/. --scale, --seeds, -p
    and --device are those of the runs.
    """
    if long + json_ + markdown + html > 1:
        raise InputError("--long, --json, --markdown and --html are four forms of one ledger: give one of them.")
    if not run and (scale or seeds or p or device):
        raise InputError("the records are as they are: --scale, --seeds, -p and --device need --run.")
    papers = rooms(slug)
    if run:
        ledgers = measured(papers, scale or "lesson", numbers(seeds or "0"), p, device)
    else:
        ledgers = [(paper, paper.verdicts()) for paper in papers]
    if json_:
        print(json.dumps([verdict.as_json() for _, verdicts in ledgers for verdict in verdicts], indent=1))
    elif markdown or html:
        text = "\n\n".join(f"## {paper.title}\n\n{ledger_markdown(verdicts)}" for paper, verdicts in ledgers)
        print(_page(text) if html else text)
    else:
        print_ledger([verdict for _, verdicts in ledgers for verdict in verdicts], long)


def measured(
    papers: Sequence[Paper], scale: str, seeds: Sequence[int], pairs: list[str] | None, device: str | None
) -> list[tuple[Paper, list[Verdict]]]:
    """The ledgers of runs under runs/<slug>/claims-<scale>/; all mistakes are named before the first run starts."""
    checked = [asked(paper.slug, scale, pairs, None, device) for paper in papers]
    ledgers = []
    for paper, config in checked:
        runs = finish_seeds(paper, config, seeds, paths.runs_dir() / paper.slug / f"claims-{scale}")
        ledgers.append((paper, paper.judged([run.result or {} for run in runs], scale, f"runs at {scale}")))
    return ledgers


def _page(text: str) -> str:
    import nbformat

    from labkit.workbench import page

    cells = [nbformat.v4.new_markdown_cell(f"# Ledger of labkit\n\n{text}")]
    return page.as_html(nbformat.v4.new_notebook(cells=cells), "ledger")
