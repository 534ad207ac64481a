"""`labkit doctor`."""

import typer
from rich.table import Table

from labkit.cli.output import console
from labkit.workbench import doctor


def examine() -> None:
    """Check that this machine has what the notebooks need."""
    findings = doctor.examine()
    table = Table("what", "state", "what to do")
    for finding in findings:
        table.add_row(finding.what, f"{'ok' if finding.ok else 'missing'}: {finding.state}", finding.remedy)
    console.print(table)
    if not all(finding.ok or finding.optional for finding in findings):
        raise typer.Exit(1)
