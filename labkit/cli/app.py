"""labkit: ten papers to run, question and scale.

Exit codes: 0 done, 1 a run failed, 2 something given cannot be used (nothing was started).
"""

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
app.command()(claims)
app.command()(run)
app.command()(train)
app.command()(record)
app.command()(sweep)
app.command()(export)
app.add_typer(data.app, name="data")
app.command()(track)
app.add_typer(codec.app, name="codec")
app.command()(translate)
app.command()(recognise)
app.command()(detect)
app.command("detection-map")(detection_map)
app.command()(bench)
app.command()(gpu)
app.command()(lab)
app.command("doctor")(examine)
app.command("notebooks")(refresh)
app.command(hidden=True)(worker)


@app.command()
def readme() -> None:
    """Write the tables of README.md anew: the papers with their claims, and the commands."""
    write_tables(typer.main.get_group(app).commands)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. An error we raise on purpose ends as one sentence on stderr and its exit code."""
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
