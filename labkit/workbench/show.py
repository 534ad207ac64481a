"""Put before the reader of a notebook: the ledger, a config, the scales side by side."""

import operator
from collections.abc import Iterable, Mapping

from IPython.display import Markdown, display
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from labkit.workbench.claims import Verdict, ledger_markdown
from labkit.workbench.experiment import fields_of


def ledger(verdicts: Iterable[Verdict]) -> None:
    """Claims with their measured effects and verdicts, as a table."""
    display(Markdown(ledger_markdown(verdicts)))


def config(config: BaseModel) -> None:
    """Every field of a config with its value and what it means."""
    rows = [f"| {name} | {_plain(config, name)} | {field.description} |" for name, field in _fields(type(config))]
    display(Markdown("\n".join(["| field | value | meaning |\n|---|---|---|", *rows])))


def scales(configs: Mapping[str, BaseModel]) -> None:
    """The fields in which the scales of a paper differ, side by side."""
    names = [name for name, _ in _fields(type(next(iter(configs.values()))))]
    table = {name: [_plain(config, name) for config in configs.values()] for name in names}
    rows = [f"| {name} | {' | '.join(values)} |" for name, values in table.items() if len(set(values)) > 1]
    head = f"| | {' | '.join(configs)} |\n|---{'|---' * len(configs)}|"
    display(Markdown("\n".join([head, *rows])))


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Of a nested config its fields, and not the config itself."""
    fields = fields_of(model)
    return [(name, field) for name, field in fields.items() if not any(n.startswith(f"{name}.") for n in fields)]


def _plain(config: BaseModel, name: str) -> str:
    value = operator.attrgetter(name)(config)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
