"""`labkit list`."""

from rich.markup import escape
from rich.padding import Padding

from labkit.cli.options import rooms
from labkit.cli.output import console, standing

INDENT = 4


def list_papers() -> None:
    """List the papers, and how their claims stand."""
    papers = sorted(rooms(""), key=lambda paper: paper.notebook)
    width = max(len(paper.slug) for paper in papers)
    for paper in papers:
        console.print(f"[bold]{paper.slug:<{width}}[/]  {paper.arxiv}  {standing(paper)}", highlight=False)
        for line in (f"{paper.title}. {paper.venue}", paper.idea):
            console.print(Padding(escape(line), (0, 0, 0, INDENT)), highlight=False)
