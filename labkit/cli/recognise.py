"""`labkit recognise`: the glosses that a trained recogniser reads in a video, with their times."""

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from labkit.errors import InputError
from labkit.files import given_path


def recognise(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="folder of a finished run of stmc, or what `labkit export` wrote")
    ],
    video: Annotated[
        Path, typer.Argument(metavar="VIDEO", help="a video that PyAV (FFmpeg) reads, or a folder of frames")
    ],
    arm: Annotated[str, typer.Option(help="which of the run's networks; default: multi-cue")] = "",
    width: Annotated[int, typer.Option(help="width of the beam search")] = 20,
    rate: Annotated[float, typer.Option(help="frames a second of a folder of frames")] = 25.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "cpu",
    as_csv: Annotated[bool, typer.Option("--csv", help="print gloss,start,end as CSV")] = False,
    as_ctm: Annotated[
        bool, typer.Option("--ctm", help="print NIST's ctm, which sclite scores; VIDEO's name is its id")
    ] = False,
) -> None:
    """Read one signed sentence: prints its glosses, each with the seconds from which to which it is signed."""
    if not rate > 0:
        raise InputError(f"--rate must be above 0; got {rate:g}.")
    if as_csv and as_ctm:
        raise InputError("--csv and --ctm are two formats: give one of them.")
    from labkit.data.sign.phoenix import write_ctm
    from labkit.data.sign.sentence import folder_frames, frame_rate, video_frames
    from labkit.devices import pick_device
    from labkit.papers.stmc import Recognizer

    given_path(run, "RUN"), given_path(video, "VIDEO")
    pick_device(device)
    if not run.exists():
        raise InputError(f"there is no run {run}. Give a folder such as runs/stmc/lesson-001.")
    recognizer = Recognizer.load(run, arm, device)
    frames = folder_frames(video) if video.is_dir() else video_frames(video)
    rate = rate if video.is_dir() else frame_rate(video)
    transcript = recognizer.transcribe(frames, width)
    rows = [(s.gloss, s.first / rate, min(s.last + 1, len(frames)) / rate) for s in transcript.glosses]
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("gloss", "start", "end"))
        writer.writerows((gloss, f"{start:.2f}", f"{end:.2f}") for gloss, start, end in rows)
        return
    if as_ctm:
        print(write_ctm({video.stem.replace(" ", "_"): rows}), end="")
        return
    table = Table("gloss", "from, s", "to, s")
    for gloss, start, end in rows:
        table.add_row(gloss, f"{start:.2f}", f"{end:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{transcript or '(nothing)'}\n{len(frames)} frames, {recognizer.arm}", highlight=False, markup=False)
