"""`labkit track`: follow what is inside a box through any video, and write the video with the box drawn, and a CSV."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from labkit.errors import InputError

if TYPE_CHECKING:  # other commands need not wait for torch
    from labkit.tracking.tracker import Tracker


def track(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="any video that PyAV (FFmpeg) reads")],
    box: Annotated[str, typer.Option(help="the target in the first frame: x,y,w,h in pixels from the top left")],
    out: Annotated[Path, typer.Option(help="video to write, e.g. out.mp4; boxes go to the same name with .csv")],
    tracker: Annotated[
        str,
        typer.Option(help="cascade, stage-1 or another arm of the room crt; static; or one of OpenCV's, such as CSRT"),
    ] = "cascade",
    start: Annotated[int, typer.Option(help="frame in which the box is given, from 0; earlier ones are left out")] = 0,
    frames: Annotated[int, typer.Option(help="stop after so many frames; 0: at the end")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="write over files that are there")] = False,
) -> None:
    """Follow a target through a video; writes OUT with the box drawn in, and its boxes as CSV."""
    given, console = parse_box(box), Console()
    from labkit.tracking.video import follow

    report = follow(video, given, out, make_tracker(tracker, device), start, frames, overwrite, shown(console))
    if report.missing:
        message = f"{video} announces {report.missing} more frames than can be decoded: is it whole?"
        console.print(message, style="yellow", soft_wrap=True)
    rate = f", {report.frames / report.seconds:.0f} frames a second" if report.seconds > 0 else ""
    console.print(
        f"{report.frames} frames, {report.seconds:.1f} s in the tracker ({tracker}{rate}); "
        f"target absent in {report.absent}\nvideo  {out}\nboxes  {out.with_suffix('.csv')}",
        soft_wrap=True,
        highlight=False,
    )


def make_tracker(name: str, device: str) -> "Tracker":
    """An arm of the room crt, OpenCV's tracker of that name, or `static`.

    Raises InputError for another name, a tracker that needs weights, or a bad device.
    """
    from labkit.devices import pick_device
    from labkit.papers.crt.experiment.config import ARMS, UNTRAINED
    from labkit.papers.crt.experiment.tracking import arm_tracker
    from labkit.tracking import peers

    chosen = pick_device(device)
    if name == "static":
        return peers.StaticBox()
    if name in peers.OPENCV + peers.WITH_WEIGHTS:
        return peers.OpenCVTracker(name)
    if name not in ARMS:
        known = ", ".join([*UNTRAINED, "static", *peers.OPENCV])
        raise InputError(f"--tracker must be one of {known}; got '{name}'.")
    return arm_tracker(name, chosen)


def parse_box(text: str) -> tuple[float, float, float, float]:
    """'x,y,w,h' as four numbers.

    Raises InputError that says what is wrong.
    """
    words = text.replace(" ", "").split(",")
    try:
        x, y, w, h = (float(word) for word in words)
    except ValueError:
        raise InputError(f"--box takes four numbers x,y,w,h, such as 120,80,40,60; got '{text}'.") from None
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        raise InputError(f"--box takes x,y,w,h with width and height above 0; got '{text}'. (Not two corners.)")
    return x, y, w, h


def shown(console: Console, what: str = "tracking") -> Callable[[], AbstractContextManager[Callable[[int, int], None]]]:
    """A bar for a person at a terminal."""

    @contextmanager
    def bar() -> Iterator[Callable[[int, int], None]]:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total or None)

    return bar
