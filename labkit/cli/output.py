"""How commands print."""

import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labkit.workbench.claims import Verdict, least_effect, unmeasured
from labkit.workbench.experiment import Paper

# Without a terminal rich assumes 80 columns, too few for a table that is piped or logged.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)


def print_ledger(verdicts: Sequence[Verdict], long: bool = False) -> None:
    """One line a claim, or one for all where nothing was measured; `long` adds the sentences, as a table."""
    if not any(verdict.seeds for verdict in verdicts):
        console.print(unmeasured(verdicts), soft_wrap=True)
        return
    for paper, group in itertools.groupby(verdicts, lambda verdict: verdict.paper):
        rows = list(group)
        console.print(f"[bold]{paper}[/]: {tally(rows)}", highlight=False)
        console.print(_table(rows) if long else _lines(rows))
    if any(verdict.stale for verdict in verdicts):
        console.print("* measured before the room's code or config changed; `labkit record` measures anew")


def _lines(verdicts: Iterable[Verdict]) -> Table:
    """Mark, key, effect with its interval, margin: what 80 columns hold."""
    table = Table.grid(padding=(0, 1))
    for width, wrap in ((2, False), (None, False), (None, False), (None, True)):
        table.add_column(width=width, no_wrap=not wrap, overflow="fold")
    for v in verdicts:
        cells = (v.key, v.numbers, f"≥ {least_effect(v.margin, v.unit)}")
        table.add_row(_mark(v), *map(escape, cells))
    return table


def _table(verdicts: Iterable[Verdict]) -> Table:
    table = Table("", "claim", "the abstract says", "published", "measured", "margin", "verdict", "source")
    for v in verdicts:
        margin = least_effect(v.margin, v.unit)
        source = (v.source or "–") + v.doubt
        words = (v.key, v.sentence, v.published or "–", v.effect, margin, v.word, source)
        table.add_row(_mark(v), *map(escape, words))  # else "[ours]" would be taken for markup
    return table


def _mark(verdict: Verdict) -> str:
    color = {True: "green", False: "red", None: "default"}[verdict.holds]
    return f"[{color}]{verdict.mark}[/]{'*' if verdict.stale else ''}"


def standing(paper: Paper) -> str:
    """How many claims of a paper hold, by its records."""
    return tally(paper.verdicts())


def tally(verdicts: Iterable[Verdict]) -> str:
    """How many claims hold, do not, and were not measured: "9 hold, 1 does not, 4 not measured"."""
    counts = Counter(verdict.holds for verdict in verdicts)
    hold = "holds" if counts[True] == 1 else "hold"
    do_not = "does not" if counts[False] == 1 else "do not"
    return f"{counts[True]} {hold}, {counts[False]} {do_not}, {counts[None]} not measured"


def short(path: Path) -> str:
    """Relative to the current folder where that is shorter to read."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
