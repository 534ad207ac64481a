"""`labkit codec`: videos to .mlvc files and back, by the networks of the room mlvc."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from labkit.errors import RunError

if TYPE_CHECKING:  # other commands need not wait for torch
    from labkit.papers.mlvc.method.codec import Codec
    from labkit.papers.mlvc.method.container import Header

app = typer.Typer(
    no_args_is_help=True, help="Encode videos by learned multi-frame prediction (room mlvc), and decode them."
)

STREAMS = ("motion", "scales", "residual")
Model = Annotated[
    Path | None, typer.Option(help="networks: a file that `labkit export` wrote; default: a small one of labkit's")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; files and frames are the same on each")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="write over a file that is there")]


@app.command(short_help="Encode a video; OUT appears when it is whole.")
def encode(
    video: Annotated[Path, typer.Argument(metavar="IN", help="any video that PyAV (FFmpeg) reads")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="file to write, ending in .mlvc")],
    quality: Annotated[
        int, typer.Option(help="1 (smallest file) to 4 (best picture); labkit's own networks have 2 and 4")
    ] = 2,
    gop: Annotated[int, typer.Option(help="frames from one I-frame to the next, at most; damage ends there")] = 12,
    frames: Annotated[int, typer.Option(help="stop after so many frames; 0: at the end")] = 0,
    model: Model = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Encode a video; OUT appears when it is whole. Any size; RGB at 8 bits, no sound.

    Slow: with labkit's small networks about 2 CPU seconds a frame of 640 x 480. One frame at a time is in memory, which
    does not grow with the length: 1.2 GB at that size. An I-frame stands wherever it is cheaper than a P-frame;
    with the small networks that may be everywhere.
    """
    from labkit.papers.mlvc.method.video_files import encode_file

    codec = _codec(model, device)
    with _stoppable(out):
        report, left_out = encode_file(
            codec, video, out, quality, gop=gop, frames=frames, overwrite=overwrite, watch=_watch("encoding")
        )
    sizes = {kind: [entry.bytes for entry in report.frames if entry.kind == kind] for kind in "IP"}
    spent = ", ".join(f"{len(each)} {kind}-frames {sum(each):,}" for kind, each in sizes.items())
    console = Console()
    if left_out:
        console.print(f"not in the file: {', '.join(left_out)}", style="yellow", soft_wrap=True)
    console.print(
        f"{len(report.frames)} frames of {report.width} x {report.height}, {report.bytes:,} bytes "
        f"({report.bits_per_pixel:.3f} bits a pixel; {spent} bytes), "
        f"PSNR {report.psnr:.2f} dB in RGB\n{out}",
        soft_wrap=True,
        highlight=False,
    )
    if model is None:
        console.print(
            "The networks that come with labkit are small and from a short training; --model takes others.",
            style="yellow",
            soft_wrap=True,
        )


@app.command(short_help="Decode a .mlvc file into a video.")
def decode(
    coded: Annotated[Path, typer.Argument(metavar="IN", help="a .mlvc file")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="video to write; .mkv keeps every pixel, .mp4 plays anywhere")
    ],
    conceal: Annotated[
        bool, typer.Option("--conceal", help="where bytes are damaged, repeat the last frame and go on")
    ] = False,
    model: Model = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Decode a .mlvc file into a video.

    With labkit's small networks a P-frame of 352 x 288 takes .5 CPU seconds; `labkit bench mlvc` measures. Memory does
    not grow with the length.
    """
    from labkit.papers.mlvc.method.video_files import decode_file, is_lossless

    codec = _codec(model, device)
    with _stoppable(out):
        done = decode_file(codec, coded, out, conceal=conceal, overwrite=overwrite, watch=_watch("decoding"))
    console = Console()
    if done.concealed:
        message = f"{done.concealed} frames were lost and repeat the one before; the first because {done.problem}."
        console.print(message, style="yellow", soft_wrap=True)
    how = "every pixel as decoded" if is_lossless(out) else "coded again as H.264, for viewing"
    console.print(f"{done.frames} frames, {how}\n{out}", soft_wrap=True, highlight=False)


@app.command(short_help="Show what a .mlvc file holds, and whether it is whole.")
def info(coded: Annotated[Path, typer.Argument(metavar="IN", help="a .mlvc file")]) -> None:
    """Show what a .mlvc file holds, and whether it is whole; needs no networks."""
    from labkit.papers.mlvc.method.container import HEADER_BYTES, Gap, packets, read_header
    from labkit.papers.mlvc.method.video_files import opened_coded

    sizes: dict[str, list[list[int]]] = {"I": [], "P": []}  # of each packet's streams
    indices, rest, gaps = set(), HEADER_BYTES, []
    with opened_coded(coded) as data:
        header, length = read_header(data), len(data)
        for item in packets(data):
            if isinstance(item, Gap):
                gaps.append(f"bytes {item.start} to {item.end} are damaged")
                continue
            sizes[item.kind].append([len(stream) for stream in item.streams])
            indices.add(item.index)
            rest += item.size - sum(sizes[item.kind][-1])
    lines = [
        f"{header.width} x {header.height}, {header.frames} frames at {header.rate[0] / header.rate[1]:.5g} a second",
        f"quality {header.quality}, an I-frame every {header.gop} at least, model {header.model.hex()[:8]}",
        f"{length:,} bytes{_rate(header, length)}",
    ]
    parts = [("I-frames", "I", 0), *((f"P-frames, {name}", "P", k) for k, name in enumerate(STREAMS))]
    for name, kind, k in parts:
        lines.append(f"  {name:<20}{len(sizes[kind]):>6} {sum(each[k] for each in sizes[kind]):>12,} bytes")
    lines.append(f"  {'headers, checksums':<20}{'':>6} {rest:>12,} bytes")
    missing = header.frames - len(indices)
    if missing > 0:
        gaps.append(f"{missing} of {header.frames} frames are missing")
    lines += gaps or ["whole: every checksum fits"]
    Console().print("\n".join(lines), soft_wrap=True, highlight=False)


def _rate(header: "Header", size: int) -> str:
    pixels = header.width * header.height * header.frames
    return f", {8 * size / pixels:.3f} bits a pixel" if pixels else ""


def _codec(model: Path | None, device: str) -> "Codec":
    from labkit.devices import pick_device
    from labkit.papers.mlvc.method.codec import Codec

    return Codec.load(model, pick_device(device))


def _watch(what: str) -> Any:
    from labkit.progress import progress

    def watch(items: Iterable[Any], total: int | None) -> Iterable[Any]:
        return progress(items, what, total=total)

    return watch


@contextmanager
def _stoppable(out: Path) -> Iterator[None]:
    """Ctrl-C ends in a sentence; the half file is gone by then."""
    try:
        yield
    except KeyboardInterrupt:
        raise RunError(f"stopped; nothing was written to {out}.") from None
