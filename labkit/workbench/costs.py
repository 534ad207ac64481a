"""What each scale of a paper takes and what it needs: time from the records, data from the paper's own list."""

from collections.abc import Iterable, Sequence

from labkit import paths
from labkit.data import registry
from labkit.workbench.claims import table_row
from labkit.workbench.experiment import Paper, Scale
from labkit.workbench.records import Record, load_all

NOT_MEASURED = "not measured"


def costs_markdown(papers: Iterable[Paper], link: str = "") -> str:
    """One row a paper: size, times, needs. Where no record says how long a scale takes, the table says that.

    Args:
        link: folder of the notebooks, as seen from where the table stands, with a slash.
    """
    head = "| notebook | file, MB | lesson, CPU seconds a seed | gpu, minutes | gpu needs | full, hours | full needs |"
    rows = []
    for paper in papers:
        records = [record for record in load_all(paper.slug) if not record.label]
        rows.append(
            (
                f"[{paper.notebook}]({link}{paper.notebook}.ipynb)",
                _megabytes(paper),
                _cpu_seconds(records),
                _wall_time(records, "gpu", 60.0),
                _needs(paper, "gpu"),
                _wall_time(records, "full", 3600.0),
                _needs(paper, "full"),
            )
        )
    return "\n".join([head, "|---|---|---|---|---|---|---|", *map(table_row, rows)])


def _megabytes(paper: Paper) -> str:
    """Of the executed notebook with its pictures."""
    path = paths.notebooks_dir() / f"{paper.notebook}.ipynb"
    return f"{path.stat().st_size / 1e6:.1f}" if path.exists() else "–"


def _cpu_seconds(records: Sequence[Record]) -> str:
    return _range([s for record in records if record.scale == "lesson" for s in record.cpu_seconds])


def _wall_time(records: Sequence[Record], scale: Scale, unit: float) -> str:
    """In units of so many seconds, with the device that it was measured on."""
    for record in records:
        if record.scale == scale:
            return f"{_range([seconds / unit for seconds in record.wall_seconds])} on {record.device}"
    return NOT_MEASURED


def _range(values: Sequence[float]) -> str:
    if not values:
        return NOT_MEASURED
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def _needs(paper: Paper, scale: Scale) -> str:
    """Datasets with their sizes; a star where a person has to ask for them."""
    return ", ".join(map(_described, paper.needs.get(scale, ()))) or "nothing"


def _described(name: str) -> str:
    if name not in registry.names():
        return name
    dataset = registry.get(name)
    return f"{name}{'*' if dataset.registration else ''}{f' ({dataset.size})' if dataset.size[0].isdigit() else ''}"
