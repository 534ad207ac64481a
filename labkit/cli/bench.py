"""`labkit bench`."""

import json
import shlex
from typing import Annotated, Any

import typer
from rich.table import Table

from labkit.cli.options import AnySlug, AsJson, Device, rooms
from labkit.cli.output import console, short


def bench(
    slug: AnySlug = "",
    json_: AsJson = False,
    device: Device = None,
    seconds: Annotated[float, typer.Option(help="time to spend per paper, about")] = 60.0,
    record: Annotated[
        int, typer.Option(min=0, max=100, help="repeat so often, and write a record that claims are judged by")
    ] = 0,
) -> None:
    """Measure speed side by side with peers; a ratio above 1 means that we are ahead."""
    from labkit.devices import pick_device
    from labkit.workbench import benchmark

    chosen = pick_device(device or "auto")
    if record:
        for paper in rooms(slug):
            if slug or benchmark.script(paper.slug).exists():
                asked = ["labkit", "bench", paper.slug, "--record", str(record), "--seconds", f"{seconds:g}"]
                asked += ["--device", device] if device else []
                written = benchmark.record(paper.slug, chosen, seconds, record, shlex.join(asked))
                console.print(f"record    {short(written.path)}", soft_wrap=True)
        return
    rows: list[dict[str, Any]] = [
        {"paper": paper.slug, "workload": r.workload, "unit": r.unit, "ours": r.ours, "peer": r.peer}
        | {"peer_name": r.peer_name, "ratio": r.ratio, "device": str(chosen)}
        for paper in rooms(slug)
        if slug or benchmark.script(paper.slug).exists()
        for r in benchmark.rows(paper.slug, chosen, seconds)
    ]
    if json_:
        print(json.dumps(rows, indent=1))
        return
    table = Table("paper", "workload", "ours", "peer", "unit", "peer is", "ratio")
    for row in rows:
        cells = [row["paper"], row["workload"], f"{row['ours']:.4g}", f"{row['peer']:.4g}", row["unit"]]
        table.add_row(*cells, row["peer_name"], f"{row['ratio']:.2f}")
    console.print(table)
