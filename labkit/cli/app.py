"""labkit: ten papers to run, question and scale.

Exit codes: 0 done, 1 a run failed, 2 something given cannot be used (nothing was started).
"""

import os
import sys
from collections.abc import Sequence

import typer

from labkit.cli import codec, data
from labkit.cli.bench import bench
from labkit.cli.claims import claims
from labkit.cli.detect import detect, detection_map
from labkit.cli.doctor import examine
from labkit.cli.export import export
from labkit.cli.gpu import gpu
from labkit.cli.lab import lab
from labkit.cli.list import list_papers
from labkit.cli.notebooks import refresh
from labkit.cli.readme import write_tables
from labkit.cli.recognise import recognise
from labkit.cli.record import record
from labkit.cli.run import run
from labkit.cli.sweep import sweep
from labkit.cli.track import track
from labkit.cli.train import train
from labkit.cli.translate import translate
from labkit.cli.worker import worker
from labkit.errors import LabkitError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__, rich_markup_mode=None)
app.command("list")(list_papers)
app.command(short_help="Show the ledger: what the abstracts say, what was measured.")(claims)
app.command(short_help="Execute a paper's notebook, headless.")(run)
app.command(short_help="Train without a notebook, on one device or many.")(train)
app.command(short_help="Run a paper over several seeds and keep the results.")(record)
app.command(short_help="Run a notebook for every combination of some fields.")(sweep)
app.command(short_help="Write what a run trained as a folder for others.")(export)
app.add_typer(data.app, name="data", short_help="List datasets, get and check them.")
app.command(short_help="Follow a target through a video.")(track)
app.add_typer(codec.app, name="codec", short_help="Encode videos by learned prediction, and decode them.")
app.command(short_help="Translate stdin to stdout, line by line.")(translate)
app.command(short_help="Read one signed sentence from a video.")(recognise)
app.command(short_help="Find actions in a video.")(detect)
app.command("detection-map", short_help="Compute average precision from two CSV files.")(detection_map)
app.command(short_help="Measure speed side by side with peers.")(bench)
app.command(short_help="Run all that a GPU is for, time-boxed: tests, benchmarks, runs.")(gpu)
app.command(short_help="Open JupyterLab on your own copies of the notebooks.")(lab)
app.command("doctor")(examine)
app.command("notebooks", short_help="Execute notebooks in place.")(refresh)
app.command(hidden=True)(worker)


@app.command(short_help="Write the tables and pictures of README.md anew.")
def readme() -> None:
    """Write the tables and pictures of README.md anew: papers, gallery, times, lines to take home, commands, ledger."""
    write_tables(typer.main.get_group(app).commands)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. An error we raise on purpose ends as one sentence on stderr and its exit code."""
    # Threads that wait for each other sleep, if nothing else is wished for: beside other programs, two that spin took
    # ten times as long for a video (40 s, 4 s). Read when torch is imported, by this process or those that it starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app(args=join_pairs(sys.argv[1:] if arguments is None else arguments), prog_name="labkit")
    except LabkitError as error:
        print(f"labkit: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except SystemExit as end:
        if end.code != 130:  # typer's way to say that Ctrl-C was pressed
            raise
        print("labkit: stopped. What is saved stays; go on with --resume.", file=sys.stderr)
        raise SystemExit(1) from None


def join_pairs(arguments: Sequence[str]) -> list[str]:
    """`-p key value` as `-p key=value`: options of two words are not something typer can declare in a list."""
    joined, words = [], iter(arguments)
    for word in words:
        joined.append(word)
        if word == "-p":
            key = next(words, "")
            value = None if "=" in key else next(words, None)
            joined.append(key if value is None else f"{key}={value}")
    return joined
