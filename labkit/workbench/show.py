"""Put before the reader of a notebook: the ledger, a config, the scales side by side."""

from collections.abc import Iterable, Mapping

from IPython.display import Markdown, display
from pydantic import BaseModel

from labkit.workbench.claims import Verdict, ledger_markdown


def ledger(verdicts: Iterable[Verdict]) -> None:
    """Claims with their measured effects and verdicts, as a table."""
    display(Markdown(ledger_markdown(verdicts)))


def config(config: BaseModel) -> None:
    """Every field of a config with its value and what it means."""
    fields = type(config).model_fields.items()
    rows = [f"| {name} | {_plain(getattr(config, name))} | {field.description} |" for name, field in fields]
    display(Markdown("\n".join(["| field | value | meaning |\n|---|---|---|", *rows])))


def scales(configs: Mapping[str, BaseModel]) -> None:
    """The fields in which the scales of a paper differ, side by side."""
    names = type(next(iter(configs.values()))).model_fields
    table = {name: [_plain(getattr(config, name)) for config in configs.values()] for name in names}
    rows = [f"| {name} | {' | '.join(values)} |" for name, values in table.items() if len(set(values)) > 1]
    head = f"| | {' | '.join(configs)} |\n|---{'|---' * len(configs)}|"
    display(Markdown("\n".join([head, *rows])))


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
