"""How commands print."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labkit.workbench.claims import Verdict, least_effect, unmeasured
from labkit.workbench.experiment import Paper

# Without a terminal rich assumes 80 columns, too few for a table that is piped or logged.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)


def print_ledger(verdicts: Sequence[Verdict]) -> None:
    """A table, or one line where nothing was measured."""
    if not any(verdict.seeds for verdict in verdicts):
        console.print(unmeasured(verdicts), soft_wrap=True)
        return
    table = Table("", "claim", "the abstract says", "published", "measured", "margin", "verdict", "source")
    for v in verdicts:
        mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "–"}[v.holds]
        margin = least_effect(v.margin, v.unit)
        words = (f"{v.paper} {v.key}", v.sentence, v.published or "–", v.effect, margin, v.word, v.source or "–")
        table.add_row(mark, *map(escape, words))  # else "[ours]" would be taken for markup
    console.print(table)


def standing(paper: Paper) -> str:
    """How many claims hold, do not, and were not measured."""
    counts = Counter(verdict.holds for verdict in paper.verdicts())
    return f"{counts[True]} hold, {counts[False]} do not, {counts[None]} not measured"


def short(path: Path) -> str:
    """Relative to the current folder where that is shorter to read."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
