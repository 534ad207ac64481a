"""A trained arm of a finished run as a folder for others: weights, config, and a model card made from the ledger.

DIR/
    model.safetensors   what was trained, with its checksum
    config.json         what it was trained with
    README.md           the model card, as the Hugging Face hub shows it
"""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.data import registry
from labkit.errors import InputError, RunError
from labkit.files import write_atomically, write_folder, write_json
from labkit.workbench.claims import ledger_markdown
from labkit.workbench.experiment import Config, Paper, plain_fields
from labkit.workbench.run_files import read_object
from labkit.workbench.runs import Run

CODE_LICENSE = "apache-2.0"  # as the hub spells it


def export(paper: Paper, config: Config, run: Run, directory: Path, arm: str = "") -> str:
    """Write the folder `directory` whole or not at all; returns the arm that it holds, the room's first by default.

    Raises:
        InputError: the room has nothing to export, the run is not finished or has no such arm, or `directory` holds
            something already.
        RunError: the folder cannot be written.
    """
    exports = paper.exports
    if run.result is None:
        raise InputError(f"{run.directory} is not finished. Go on with it: labkit train {paper.slug} --resume ...")
    arms = exports.arms(config, run)
    if not arms:
        raise InputError(f"{run.directory} holds nothing that {paper.slug} can export.")
    arm = arm or arms[0]
    if arm not in arms:
        raise InputError(f"--arm must be one of {', '.join(arms)}; got '{arm}'.")

    def fill(folder: Path) -> None:
        exports.export(config, run, arm, folder)
        exports.load(folder)  # nobody shall find out later that it cannot be read
        about: dict[str, Any] = {
            "library": "labkit",
            "paper": paper.slug,
            "arm": arm,
            "scale": nearest_scale(paper, config),
        }
        about |= {"config": run.identity, "environment": environment_of(run)}
        write_json(folder / "config.json", about)
        write_atomically(folder / "README.md", card(paper, config, run, arm, directory.resolve().name).encode())

    try:
        write_folder(directory, fill)
    except OSError as error:
        raise RunError(f"cannot write {directory}: {error.strerror or error}. Nothing is left of it.") from error
    return arm


def card(paper: Paper, config: Config, run: Run, arm: str, name: str) -> str:
    """The model card: YAML that the hub reads, then what a stranger has to know."""
    assert run.result is not None
    scale = nearest_scale(paper, config)
    ours = [verdict for verdict in paper.verdicts(run.result, scale) if verdict.holds is not None]
    recorded = paper.verdicts()
    sources = sorted({verdict.source for verdict in recorded if verdict.source})
    tags = ["labkit", paper.slug, f"arxiv:{paper.arxiv}"]
    lines = ["---", f"license: {CODE_LICENSE}", "library_name: labkit", "tags:", *(f"- {tag}" for tag in tags), "---"]
    lines += [f"# {paper.slug}: {arm}", "", paper.idea, ""]
    lines += [
        f"Trained with labkit, an implementation of [{paper.title}](https://arxiv.org/abs/{paper.arxiv}) "
        f"({paper.venue}) by others than its authors."
    ]
    lines += ["", "## Load it", "", "```python", *loading_lines(paper, name), "```"]
    lines += ["", "## How it was trained", "", *(f"- {line}" for line in _training(paper, config, run))]
    lines += ["", "## What this run measured", ""]
    lines += [ledger_markdown(ours) if ours else f"No claim of the paper is measured at scale `{scale}` by this run."]
    lines += ["", "## What the recorded runs say about the method", "", ledger_markdown(recorded), ""]
    lines += [f"Recorded runs: {', '.join(f'`{source}`' for source in sources) or 'none'}."]
    lines += ["A claim holds when the near end of its 95 % interval over seeds passes the margin that was set before."]
    return "\n".join(lines) + "\n"


def loading_lines(paper: Paper, name: str) -> list[str]:
    """Three lines of Python that read the folder `name` back."""
    return [f"from {paper.room} import load", "", f"model = load({json.dumps(name)})"]


def _training(paper: Paper, config: Config, run: Run) -> Iterator[str]:
    result, about = run.result or {}, environment_of(run)
    data = str(result.get("data", "see the config"))
    yield f"Data: {data}" + (f" ({_terms(data)})" if data in registry.names() else "")
    yield f"Command: `{command(paper, config)}`"
    yield f"Time: {run.spent.wall_seconds:.0f} s on {', '.join(about.get('gpus') or [about.get('processor', 'a CPU')])}"
    yield f"With: torch {about.get('torch')}, labkit {about.get('labkit')}, commit {about.get('commit')}"


def _terms(name: str) -> str:
    dataset = registry.get(name)
    return f"{dataset.title}; {dataset.licence}; {dataset.citation}"


def environment_of(run: Run) -> dict[str, Any]:
    """Versions and hardware that the run noted."""
    return read_object(run.directory / "environment.json") or {}


def command(paper: Paper, config: Config) -> str:
    """The command that makes a run with this config."""
    scale = nearest_scale(paper, config)
    words = ["labkit", "train", paper.slug, "--scale", scale]
    for name, value in changes(paper, config, scale).items():
        words += ["-p", name, value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)


def nearest_scale(paper: Paper, config: Config) -> str:
    """The scale from which the fewest fields were changed."""
    return min(paper.configs, key=lambda scale: len(changes(paper, config, scale)))


def changes(paper: Paper, config: Config, scale: str) -> dict[str, Any]:
    """The fields that decide the result and differ from the scale's own, as plain values."""
    given = plain_fields(paper.config(scale))
    return {name: value for name, value in plain_fields(config).items() if value != given[name]}
