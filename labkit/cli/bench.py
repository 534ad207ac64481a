"""`labkit bench`."""

import json
import math
from typing import Annotated, Any

import typer
from rich.table import Table

from labkit.cli.options import AnySlug, AsJson, Device, rooms
from labkit.cli.output import console
from labkit.errors import InputError


def bench(
    slug: AnySlug = "",
    json_: AsJson = False,
    device: Device = None,
    seconds: Annotated[float, typer.Option(help="time to spend per paper, about")] = 60.0,
) -> None:
    """Side by side with peers; a ratio above 1 means that we are ahead."""
    from labkit.devices import pick_device
    from labkit.workbench import benchmark

    if not 0 < seconds < math.inf:
        raise InputError(f"--seconds must be above 0; got {seconds:g}.")
    place = pick_device(device or "auto")
    rows: list[dict[str, Any]] = [
        {"paper": paper.slug, "workload": r.workload, "unit": r.unit, "ours": r.ours, "peer": r.peer}
        | {"peer_name": r.peer_name, "ratio": r.ratio, "device": str(place)}
        for paper in rooms(slug)
        if slug or benchmark.script(paper.slug).exists()
        for r in benchmark.rows(paper.slug, place, seconds)
    ]
    if json_:
        print(json.dumps(rows, indent=1))
        return
    table = Table("paper", "workload", "ours", "peer", "unit", "peer is", "ratio")
    for row in rows:
        cells = [row["paper"], row["workload"], f"{row['ours']:.4g}", f"{row['peer']:.4g}", row["unit"]]
        table.add_row(*cells, row["peer_name"], f"{row['ratio']:.2f}")
    console.print(table)
