"""What several commands take from the user, and the config that follows from it."""

import os
from typing import Annotated

import typer

from labkit import papers
from labkit.errors import InputError
from labkit.workbench.experiment import SCALES, Config, Paper

Slug = Annotated[str, typer.Argument(metavar="SLUG", help="a paper, as `labkit list` names it")]
AnySlug = Annotated[str, typer.Argument(metavar="SLUG", help="a paper; default: all")]
Scale = Annotated[str, typer.Option(help=f"one of {', '.join(SCALES)}")]
Pairs = Annotated[list[str] | None, typer.Option("-p", metavar="KEY VALUE", help="override a config field")]
RunDir = Annotated[str, typer.Option(help="folder of the run; default: a new one under runs/")]
Resume = Annotated[
    bool, typer.Option("--resume", help="go on with the run in --run-dir, or with the latest unfinished one")
]
Seed = Annotated[int | None, typer.Option(help="seed of every random generator")]
Seeds = Annotated[str, typer.Option(help="seeds with commas between: 0,1,2")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def asked(slug: str, scale: str, pairs: list[str] | None, seed: int | None, device: str | None) -> tuple[Paper, Config]:
    """The paper and the checked config the user asked for; every mistake is named here, before anything starts."""
    from labkit import devices

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
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun has started them already
        devices.check_processes(config.device, config.devices)
    return paper, config


def rooms(slug: str) -> list[Paper]:
    """The paper `slug`, or all when it is empty."""
    return [papers.load(name) for name in ([slug] if slug else papers.names())]


def numbers(seeds: str) -> list[int]:
    """'0,1,2' as numbers.

    Raises:
        InputError: something else, or a number twice.
    """
    try:
        parsed = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise InputError(f"--seeds takes whole numbers with commas between, such as 0,1,2; got '{seeds}'.") from None
    if len(set(parsed)) < len(parsed):
        raise InputError(f"--seeds holds a number twice: {seeds}. The same run twice tells nothing new.")
    return parsed


def pair_words(pairs: list[str] | None) -> list[str]:
    """The pairs as they are typed: -p key value."""
    return [word for pair in pairs or [] for word in ("-p", *pair.split("=", 1))]
