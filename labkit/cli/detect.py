"""`labkit detect`: actions in a video, drawn into it and as CSV. `labkit detection-map`: how good detections are."""

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from labkit.cli.track import shown
from labkit.errors import InputError

MEASURES = ("frame", "video", "ava")


def detect(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="folder of a finished run of lstr, or what `labkit export` wrote")
    ],
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="any video that PyAV (FFmpeg) reads")],
    out: Annotated[Path, typer.Option(help="video to write, e.g. out.mp4; tubes go to the same name with .csv")],
    least: Annotated[float, typer.Option(help="tubes with a lower score are left out, 0 to 1")] = 0.3,
    most: Annotated[int, typer.Option(help="tubes a class at most")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="write over files that are there")] = False,
) -> None:
    """Find actions in a video; writes OUT with the tubes drawn in, and the tubes as CSV."""
    console = Console()
    from labkit.devices import pick_device
    from labkit.papers.lstr.experiment import video as videos
    from labkit.papers.lstr.experiment.detector import Detector

    if not run.exists():
        raise InputError(f"there is no run {run}. Give a folder such as runs/lstr/lesson-001.")
    detector = Detector.load(run, pick_device(device))
    report = videos.detect(video, out, detector, least, most, overwrite, shown(console, "detecting"))
    counts = ", ".join(f"{count} {name}" for name, count in report.by_label.items()) or "none"
    console.print(
        f"{report.frames} frames, {report.tubes} tubes: {counts}\nvideo  {out}\ntubes  {out.with_suffix('.csv')}",
        soft_wrap=True,
        highlight=False,
    )


def detection_map(
    measure: Annotated[str, typer.Argument(metavar="MEASURE", help="frame, video or ava")],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH",
            help="CSV of the truth; frame: video,frame,x1,y1,x2,y2,label; video: with a column tube; ava: AVA's own, "
            "without a header",
        ),
    ],
    detections: Annotated[
        Path,
        typer.Argument(
            metavar="DETECTIONS", help="CSV of the detections: the same with a column score at its end"
        ),
    ],
    threshold: Annotated[float, typer.Option(help="least overlap of a true detection")] = 0.5,
    labels: Annotated[Path | None, typer.Option(help="ava: pbtxt of the classes that count")] = None,
    excluded: Annotated[Path | None, typer.Option(help="ava: CSV of the timestamps that do not count")] = None,
) -> None:  # fmt: skip
    """Compute average precision of each class and their mean from two CSV files."""
    from labkit.metrics import detection

    if measure not in MEASURES:
        raise InputError(f"MEASURE must be one of {', '.join(MEASURES)}; got '{measure}'.")
    if measure != "ava" and (labels or excluded):
        raise InputError("--labels and --excluded belong to the measure ava.")
    if measure == "ava":
        precisions = detection.ava.evaluate(truth, detections, labels, excluded, threshold)
        named = detection.ava.read_label_map(labels) if labels else {}
        names = {number: named.get(number, f"action {number}") for number in precisions.per_class}
    elif measure == "frame":
        true_boxes, detected_boxes, listed = detection.read_boxes(truth, detections)
        precisions, names = detection.frame_map(true_boxes, detected_boxes, threshold), dict(enumerate(listed))
    else:
        true_tubes, detected_tubes, listed = detection.read_tubes(truth, detections)
        precisions, names = detection.video_map(true_tubes, detected_tubes, threshold), dict(enumerate(listed))
    table = Table("class", f"AP at {threshold:g}")
    for number, value in precisions.per_class.items():
        table.add_row(names[number], "no truth" if math.isnan(value) else f"{value:.4f}")
    table.add_row("mean", "no truth" if math.isnan(precisions.mean) else f"{precisions.mean:.4f}")
    Console().print(table)
