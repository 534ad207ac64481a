"""`labkit doctor`."""

import typer
from rich.markup import escape
from rich.table import Column, Table

from labkit.cli.output import console
from labkit.workbench import doctor


def examine() -> None:
    """Check that this machine has what the notebooks need."""
    findings = doctor.examine()
    table = Table("what", "state", Column("what to do", overflow="fold"))
    for finding in findings:
        state = f"ok: {finding.state}" if finding.ok else f"missing: {finding.state.removeprefix('missing')}"
        table.add_row(*map(escape, (finding.what, state.removesuffix(": "), finding.remedy)))
    console.print(table)
    if not all(finding.ok or finding.optional for finding in findings):
        raise typer.Exit(1)
