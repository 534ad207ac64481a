"""Things put before the reader: the library's own source, the ledger."""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from IPython.display import Code, Markdown, display
from pydantic import BaseModel

from labkit.workbench.claims import Verdict, ledger_markdown


def show_source(*things: Callable[..., Any] | type) -> None:
    """The source of functions, methods or classes of labkit and where it stands. What you read is what runs.

    Raises:
        TypeError: not something that was written in Python.
    """
    for thing in things:
        thing = inspect.unwrap(thing)
        lines, first = inspect.getsourcelines(thing)
        display(Markdown(f"`{thing.__module__}.{thing.__qualname__}`, line {first}"))
        display(Code(textwrap.dedent("".join(lines)), language="python"))


def show_ledger(verdicts: Iterable[Verdict]) -> None:
    """Claims with their measured effects and verdicts, as a table."""
    display(Markdown(ledger_markdown(verdicts)))


def show_config(config: BaseModel) -> None:
    """Every field of a config with its value and what it means."""
    fields = type(config).model_fields.items()
    rows = [f"| {name} | {_plain(getattr(config, name))} | {field.description} |" for name, field in fields]
    display(Markdown("\n".join(["| field | value | meaning |\n|---|---|---|", *rows])))


def show_scales(configs: Mapping[str, BaseModel]) -> None:
    """The fields in which the scales of a paper differ, side by side."""
    names = type(next(iter(configs.values()))).model_fields
    table = {name: [_plain(getattr(config, name)) for config in configs.values()] for name in names}
    rows = [f"| {name} | {' | '.join(values)} |" for name, values in table.items() if len(set(values)) > 1]
    head = f"| | {' | '.join(configs)} |\n|---{'|---' * len(configs)}|"
    display(Markdown("\n".join([head, *rows])))


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
