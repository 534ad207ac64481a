"""The command line: `labkit list | run | train | claims | bench | record | data | track | lab | doctor | gpu`.

Exit codes: 0 done, 1 a run failed, 2 something given cannot be used (nothing was started).
"""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labkit import devices, papers, paths
from labkit.cli import data as cli_data
from labkit.cli import track as cli_track
from labkit.errors import InputError, LabkitError, RunError
from labkit.workbench import doctor, gpu, notebooks, records, training
from labkit.workbench.benchmark import BenchRow
from labkit.workbench.claims import Verdict
from labkit.workbench.experiment import SCALES, Config, Paper
from labkit.workbench.runs import Run, latest_unfinished, new_directory

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__, rich_markup_mode=None)
app.add_typer(cli_data.app, name="data")
app.command("track")(cli_track.track)
# Without a terminal rich assumes 80 columns, too few for a table that is piped or logged.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)

Slug = Annotated[str, typer.Argument(help="a paper, as `labkit list` names it")]
Scale = Annotated[str, typer.Option(help=f"one of {', '.join(SCALES)}")]
Pairs = Annotated[list[str] | None, typer.Option("-p", metavar="KEY VALUE", help="override a config field")]
RunDir = Annotated[str, typer.Option(help="folder of the run; default: a new one under runs/")]
Resume = Annotated[bool, typer.Option(help="go on with the run in --run-dir, or with the latest unfinished one")]
Seed = Annotated[int | None, typer.Option(help="seed of every random generator")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. An error we raise on purpose ends as one sentence on stderr and its exit code."""
    try:
        app(args=join_pairs(sys.argv[1:] if arguments is None else list(arguments)), prog_name="labkit")
    except LabkitError as error:
        print(f"labkit: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except SystemExit as end:
        if end.code != 130:  # typer's way to say that Ctrl-C was pressed
            raise
        print("labkit: stopped. What is saved stays; go on with --resume.", file=sys.stderr)
        raise SystemExit(1) from None


def join_pairs(arguments: list[str]) -> list[str]:
    """`-p key value` as `-p key=value`: options of two words are not something typer can declare in a list."""
    joined, words = [], iter(arguments)
    for word in words:
        joined.append(word)
        if word == "-p":
            key = next(words, "")
            value = None if "=" in key else next(words, None)
            joined.append(key if value is None else f"{key}={value}")
    return joined


@app.command("list")
def list_papers(markdown: Annotated[bool, typer.Option(help="print the README's table")] = False) -> None:
    """The papers, and how their claims stand."""
    rooms = [papers.load(name) for name in papers.names()]
    if markdown:
        print(readme_table(rooms))
        return
    table = Table("slug", "paper", "arXiv", "idea", "claims")
    for paper in rooms:
        table.add_row(paper.slug, paper.title, paper.arxiv, paper.idea, _standing(paper))
    console.print(table)


def readme_table(rooms: Sequence[Paper]) -> str:
    """The rooms as the README shows them; a test holds the README to it."""
    rows = (
        f"| [{room.notebook}](notebooks/{room.notebook}.ipynb) | [{room.title}](https://arxiv.org/abs/{room.arxiv}), "
        f"{room.venue} | {room.idea} | {_standing(room)} |"
        for room in sorted(rooms, key=lambda room: room.notebook)
    )
    return "\n".join(["| notebook | paper | idea | claims of its abstract, as recorded |\n|---|---|---|---|", *rows])


def _standing(paper: Paper) -> str:
    """How many claims hold, do not, and were not measured."""
    counts = Counter(verdict.holds for verdict in paper.verdicts())
    return f"{counts[True]} hold, {counts[False]} do not, {counts[None]} not measured"


@app.command()
def run(
    slug: Slug,
    scale: Scale = "lesson",
    p: Pairs = None,
    run_dir: RunDir = "",
    resume: Resume = False,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Execute a paper's notebook with papermill, headless; ends with the verdict table and the paths."""
    paper, config = _ask(slug, scale, p, seed, device)
    directory = _directory(paper, scale, config, run_dir, resume)
    written = Run.open(directory, config)
    parameters = {"scale": scale, "seed": config.seed, "run_dir": str(directory.resolve())}
    parameters["overrides"] = _changed_fields(paper, scale, config)
    os.environ["LABKIT_PROGRESS"] = "0"  # inherited by the kernel: a progress bar would only clutter the saved cells
    console.print(f"{paper.title}: notebook {paper.notebook} at scale {scale}")
    try:
        executed = notebooks.execute(paper.notebook, parameters, directory / "notebook.ipynb")
    except RunError as error:
        raise RunError(f"{error}{_again('run', slug, scale, p, seed, device, directory)}") from error
    page = notebooks.to_html(executed)
    if written.result is not None:
        _print_ledger(paper.verdicts(written.result, scale))
    console.print(
        f"notebook  {_short(executed)}\npage      {_short(page)}\nrun       {_short(directory)}", soft_wrap=True
    )


@app.command()
def train(
    slug: Slug,
    scale: Scale = "lesson",
    p: Pairs = None,
    run_dir: RunDir = "",
    resume: Resume = False,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Train without a notebook; under torchrun, in all its processes together."""
    paper, config = _ask(slug, scale, p, seed, device)
    rank = int(os.environ.get("RANK", "0"))
    if rank > 0 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _train_together(paper, scale, config, run_dir, resume)
        return
    directory = _directory(paper, scale, config, run_dir, resume)
    console.print(f"{paper.title}: training at scale {scale} in {_short(directory)}", soft_wrap=True)
    try:
        result = paper.run(config, Run.open(directory, config))
    except RunError as error:
        raise RunError(f"{error}{_again('train', slug, scale, p, seed, device, directory)}") from error
    _print_ledger(paper.verdicts(result, scale))


@app.command(hidden=True)
def worker(slug: Slug, directory: Path) -> None:
    """One process of a run that `Paper.run` spread over several."""
    paper = papers.load(slug)
    config = type(paper.config()).model_validate_json((directory / "launch.json").read_text())
    paper.run(config, Run.open(directory, config, writes=int(os.environ["RANK"]) == 0))


@app.command()
def record(
    slug: Slug,
    scale: Scale = "lesson",
    seeds: Annotated[str, typer.Option(help="comma-separated")] = "0,1,2",
    p: Pairs = None,
    device: Device = None,
    run_dir: RunDir = "",
    label: Annotated[str, typer.Option(help="tells this record from others of the same scale")] = "",
) -> None:
    """Run a paper over several seeds and write data/records/<slug>/<scale>-<device>.json.

    Seeds that are finished already are not run again, so that a stopped recording goes on where it was.
    """
    paper, config = _ask(slug, scale, p, None, device)
    root = Path(run_dir) if run_dir else paths.runs_dir() / slug / "-".join(filter(None, ("record", scale, label)))
    if label and not label.replace("-", "").isalnum():
        raise InputError(f"--label is part of a file name: letters, digits and hyphens; got '{label}'.")
    finished = []
    for seed in _seeds(seeds):
        seeded = config.override(seed=seed)
        finished.append(Run.open(root / f"seed-{seed}", seeded))
        paper.run(seeded, finished[-1])
        console.print(f"seed {seed} done")
    kind = devices.pick_device(config.device)
    name = torch.cuda.get_device_name(kind).lower().replace(" ", "-") if kind.type == "cuda" else "cpu"
    words = ["labkit", "record", slug, "--scale", scale, "--seeds", seeds, *(["--label", label] if label else [])]
    command = shlex.join([*words, *(["--device", device] if device else []), *_pair_words(p)])
    made = records.record(slug, scale, name, finished, command, label)
    _print_ledger(paper.verdicts())
    console.print(f"record    {_short(made.path)}", soft_wrap=True)


@app.command()
def claims(slug: Annotated[str, typer.Argument(help="a paper; default: all")] = "", json_: AsJson = False) -> None:
    """The ledger: every statement of the abstracts, what was measured, whether it holds."""
    verdicts = [v for paper in _papers(slug) for v in paper.verdicts()]
    if json_:
        keys = ("paper", "key", "sentence", "published", "measured", "margin", "scale", "holds", "source")
        rows = [v.as_json() for v in verdicts]
        print(json.dumps([{key: row[key] for key in keys} for row in rows], indent=1))
        return
    _print_ledger(verdicts)


@app.command()
def bench(
    slug: Annotated[str, typer.Argument(help="a paper; default: all")] = "",
    json_: AsJson = False,
    device: Device = None,
    seconds: Annotated[float, typer.Option(help="time to spend per paper, about")] = 60.0,
) -> None:
    """Side by side with peers; a ratio above 1 means that we are ahead."""
    place = devices.pick_device(device or "auto")
    rows: list[dict[str, Any]] = [
        {"paper": paper.slug, "workload": r.workload, "unit": r.unit, "ours": r.ours, "peer": r.peer}
        | {"peer_name": r.peer_name, "ratio": r.ratio, "device": str(place)}
        for paper in _papers(slug)
        if slug or _bench_script(paper.slug).exists()
        for r in bench_rows(paper.slug, place, seconds)
    ]
    if json_:
        print(json.dumps(rows, indent=1))
        return
    table = Table("paper", "workload", "ours", "peer", "unit", "peer is", "ratio")
    for row in rows:
        cells = [row["paper"], row["workload"], f"{row['ours']:.4g}", f"{row['peer']:.4g}", row["unit"]]
        table.add_row(*cells, row["peer_name"], f"{row['ratio']:.2f}")
    console.print(table)


@app.command("gpu")
def gpu_command(
    slugs: Annotated[list[str] | None, typer.Argument(help="papers; default: all")] = None,
    minutes: Annotated[float, typer.Option(help="stop after this long; the same command goes on")] = 9.0,
    out: Annotated[Path, typer.Option(help="folder for results, logs and runs")] = Path("gpu-report"),
    seeds: Annotated[str, typer.Option(help="comma-separated")] = "0",
    scale: Annotated[str, typer.Option(help="another scale than gpu, to try the command out")] = "gpu",
) -> None:
    """GPU tests, benchmarks and gpu-scale training, time-boxed; the same command given again goes on."""
    _seeds(seeds)
    reports = gpu.run(slugs or [], minutes, out, scale, seeds)
    words = ["python", "-m", "labkit", "gpu", *(slugs or []), "--minutes", f"{minutes:g}", "--out", str(out)]
    words += [] if seeds == "0" else ["--seeds", seeds]
    words += [] if scale == "gpu" else ["--scale", scale]
    print(gpu.summary(reports, words))
    if any(report.state == "failed" for report in reports):
        raise typer.Exit(1)


@app.command()
def lab() -> None:
    """Open JupyterLab on the start notebook."""
    start = paths.notebooks_dir() / "00_start_here.ipynb"
    bin_folder = str(Path(sys.executable).parent)  # where TensorBoard's magic looks for its program
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "jupyterlab", str(start), f"--ServerApp.root_dir={paths.root()}"]
    raise typer.Exit(subprocess.run(command, env=environment).returncode)


@app.command("doctor")
def doctor_command() -> None:
    """Check that this machine has what the notebooks need."""
    findings = doctor.examine()
    table = Table("what", "state", "what to do")
    for finding in findings:
        table.add_row(finding.what, f"{'ok' if finding.ok else 'missing'}: {finding.state}", finding.remedy)
    console.print(table)
    if not all(finding.ok or finding.optional for finding in findings):
        raise typer.Exit(1)


@app.command("notebooks")
def refresh_notebooks(names: Annotated[list[str] | None, typer.Argument(help="default: all")] = None) -> None:
    """Execute notebooks in place and write the committed outputs; the .py of a pair is the source."""
    os.environ["LABKIT_PROGRESS"] = "0"
    for name in names or notebooks.names():
        console.print(f"{name} ... ", end="")
        written = notebooks.refresh(Path(name).stem)
        console.print(f"{written.stat().st_size / 1000:.0f} kB")


# -- helpers ----------------------------------------------------------------------------------------------------------


def bench_rows(slug: str, device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """The rows of `benchmarks/<slug>.py`, which stands outside the package because it may use any peer."""
    script = _bench_script(slug)
    if not script.exists():
        raise InputError(f"there is no benchmark for '{slug}' (looked for benchmarks/{slug}.py).")
    spec = importlib.util.spec_from_file_location(f"benchmark_{slug}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass or a pickle in it would look
    spec.loader.exec_module(module)
    yield from module.rows(device, seconds)


def _bench_script(slug: str) -> Path:
    return paths.root() / "benchmarks" / f"{slug}.py"


def _seeds(text: str) -> list[int]:
    """'0,1,2' as numbers."""
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        raise InputError(f"--seeds takes whole numbers with commas between, such as 0,1,2; got '{text}'.") from None
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds holds a number twice: {text}. The same run twice tells nothing new.")
    return seeds


def _ask(slug: str, scale: str, pairs: list[str] | None, seed: int | None, device: str | None) -> tuple[Paper, Config]:
    """The paper and the checked config the user asked for; every mistake is found here, before anything starts."""
    paper = papers.load(slug)
    texts: dict[str, str] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"-p takes a key and a value; got only '{pair}'.")
        texts[key] = value
    if seed is not None:
        texts["seed"] = str(seed)
    if device is not None:
        texts["device"] = device
    config = paper.config(scale).override_text(texts)
    devices.pick_device(config.device)
    return paper, config


def _directory(paper: Paper, scale: str, config: Config, run_dir: str, resume: bool) -> Path:
    """Where the run goes. An existing run is continued only when the user says so, and never overwritten."""
    if run_dir:
        directory = Path(run_dir)
        is_there = os.path.exists(directory / "config.json")
        if is_there and not resume:
            raise InputError(f"{directory} holds a run already. Go on with it: --resume. Or give another --run-dir.")
        if resume and not is_there:
            raise InputError(f"{directory} holds no run to go on with. Leave --resume out to start one there.")
        return directory
    if resume:
        found = latest_unfinished(paper.slug, config)
        if found is None:
            raise InputError(f"no unfinished run of {paper.slug} with this config under {paths.runs_dir()}.")
        return found
    return new_directory(paper.slug, scale)


def _train_together(paper: Paper, scale: str, config: Config, run_dir: str, resume: bool) -> None:
    """`labkit train` as one of torchrun's processes: the first one chooses the directory and tells the others."""
    with training.workers(config.device) as workers:
        chosen: list[Any] = [None]
        if workers.writes:
            try:
                chosen = [str(_directory(paper, scale, config, run_dir, resume))]
            except LabkitError as error:
                chosen = [error]
        torch.distributed.broadcast_object_list(chosen)
        if isinstance(chosen[0], LabkitError):
            raise chosen[0]
        result = paper.run(config, Run.open(chosen[0], config, writes=workers.writes))
        if workers.writes:
            _print_ledger(paper.verdicts(result, scale))


def _changed_fields(paper: Paper, scale: str, config: Config) -> dict[str, Any]:
    """The fields in which `config` differs from the scale's own, as plain values for the notebook's `overrides`."""
    plain, given = config.model_dump(mode="json"), paper.config(scale).model_dump(mode="json")
    return {name: value for name, value in plain.items() if value != given[name] and name != "seed"}


def _papers(slug: str) -> list[Paper]:
    return [papers.load(name) for name in ([slug] if slug else papers.names())]


def _print_ledger(verdicts: list[Verdict]) -> None:
    table = Table("", "claim", "the abstract says", "published", "measured", "margin", "verdict", "source")
    for v in verdicts:
        mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "–"}[v.holds]
        margin = f"{v.margin:g} {v.unit}".rstrip()
        words = (f"{v.paper} {v.key}", v.sentence, v.published or "–", v.effect, margin, v.word, v.source or "–")
        table.add_row(mark, *map(escape, words))  # else "[ours]" would be taken for markup
    console.print(table)


def _again(
    command: str, slug: str, scale: str, pairs: list[str] | None, seed: int | None, device: str | None, directory: Path
) -> str:
    """The line that tells how to go on; none where the run did not even begin."""
    if not os.path.exists(directory / "config.json"):
        return ""
    words = ["labkit", command, slug, "--scale", scale, *_pair_words(pairs)]
    words += [] if seed is None else ["--seed", str(seed)]
    words += [] if device is None else ["--device", device]
    return f"\nGo on with: {shlex.join([*words, '--run-dir', str(directory), '--resume'])}"


def _pair_words(pairs: list[str] | None) -> list[str]:
    return [word for pair in pairs or [] for word in ("-p", *pair.split("=", 1))]


def _short(path: Path) -> str:
    """Relative to the current folder where that is shorter to read."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
