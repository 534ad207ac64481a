"""`labkit list`."""

from rich.table import Table

from labkit.cli.options import rooms
from labkit.cli.output import console, standing


def list_papers() -> None:
    """The papers, and how their claims stand."""
    table = Table("slug", "paper", "arXiv", "idea", "claims")
    for paper in rooms(""):
        table.add_row(paper.slug, paper.title, paper.arxiv, paper.idea, standing(paper))
    console.print(table)
