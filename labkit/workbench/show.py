"""Put before the reader of a notebook: what is claimed, the ledger, a config, the scales side by side."""

import io
import operator
from collections.abc import Iterable, Mapping, Sequence

from IPython.display import Markdown, display
from PIL import Image
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from labkit import viz
from labkit.errors import InputError, nearest
from labkit.workbench.claims import Claim, Verdict, least_effect, ledger_markdown, table_row, unmeasured
from labkit.workbench.costs import costs_markdown
from labkit.workbench.experiment import Paper, fields_of
from labkit.workbench.notebooks import first_picture


def claims(paper: Paper, main: Sequence[str]) -> None:
    """What the paper claims: the claims with the keys `main` as a list, all others in a folded table.

    Raises:
        InputError: a key that no claim of the paper has.
    """
    by_key = {claim.key: claim for claim in paper.claims}
    for key in main:
        if key not in by_key:
            raise InputError(f"{paper.slug} has no claim '{key}'; did you mean {nearest(key, by_key)}?")
    leading = [f"{n}. **{by_key[key].sentence}** {_bar(by_key[key])}" for n, key in enumerate(main, 1)]
    others = [claim for claim in paper.claims if claim.key not in main]
    rows = [table_row((f"`{c.key}`", c.sentence, least_effect(c.margin, c.unit), c.scale)) for c in others]
    table = "\n".join(["| claim | in our words | counts from | measured at |\n|---|---|---|---|", *rows])
    display(Markdown("\n".join(leading)))
    if others:
        _folded(f"The other {len(others)} claims, counter-checks among them", table)


def _bar(claim: Claim) -> str:
    figure = f"the paper's figure: {claim.published}; " if claim.published else ""
    return f"({figure}counts from {least_effect(claim.margin, claim.unit)}, measured at `{claim.scale}`)"


def ledger(verdicts: Iterable[Verdict]) -> None:
    """Claims with their measured effects and verdicts, as a table; those that this scale does not measure are folded.

    Where nothing was measured it is one line.
    """
    every = list(verdicts)
    measured = [verdict for verdict in every if verdict.seeds]
    rest = [verdict for verdict in every if not verdict.seeds]
    if not measured:
        print(unmeasured(rest))
        return
    display(Markdown(ledger_markdown(measured)))
    if rest:
        _folded(f"{len(rest)} more claim{'s' if len(rest) > 1 else ''}, not measured here", ledger_markdown(rest))


def ledgers(papers: Iterable[Paper]) -> None:
    """The recorded claims of several papers, one folded table a paper, with how many hold."""
    for paper in papers:
        verdicts = paper.verdicts()
        holds = sum(verdict.holds is True for verdict in verdicts)
        measured = sum(verdict.holds is not None for verdict in verdicts)
        head = f"{paper.title}: {holds} of {measured} measured claims hold, {len(verdicts) - measured} not measured"
        _folded(head, ledger_markdown(verdicts))


def costs(papers: Iterable[Paper]) -> None:
    """What each scale of several papers takes and needs, as a table."""
    display(Markdown(costs_markdown(papers)))


def gallery(papers: Iterable[Paper], width: int = 460) -> None:
    """The first picture of each paper's notebook, as it stands in the committed outputs, `width` CSS pixels wide."""
    for paper in papers:
        display(Markdown(f"**[{paper.notebook}]({paper.notebook}.ipynb)** {paper.idea}"))
        if first := first_picture(paper.notebook):
            png, alt = first
            image, small = Image.open(io.BytesIO(png)), io.BytesIO()
            image.thumbnail((2 * width, 4 * width))
            image.convert("RGB").quantize(256).save(small, format="png", optimize=True)
            viz.show(small.getvalue(), alt or f"The first picture of {paper.notebook}: {paper.idea}")


def config(config: BaseModel, fields: Sequence[str] = ()) -> None:
    """A config's fields with value and meaning: those named, or all of them.

    Raises:
        InputError: the config has no such field.
    """
    known = dict(_fields(type(config)))
    for name in fields:
        if name not in known:
            raise InputError(f"the config has no field '{name}'; did you mean {nearest(name, known)}?")
    rows = [table_row((name, _plain(config, name), known[name].description or "")) for name in fields or known]
    display(Markdown("\n".join(["| field | value | meaning |\n|---|---|---|", *rows])))


def scales(configs: Mapping[str, BaseModel]) -> None:
    """The fields in which the scales of a paper differ, side by side."""
    names = [name for name, _ in _fields(type(next(iter(configs.values()))))]
    table = {name: [_plain(config, name) for config in configs.values()] for name in names}
    rows = [table_row((name, *values)) for name, values in table.items() if len(set(values)) > 1]
    head = f"| | {' | '.join(configs)} |\n|---{'|---' * len(configs)}|"
    display(Markdown("\n".join([head, *rows])))


def _folded(summary: str, content: str) -> None:
    """Markdown that opens at a click."""
    display(Markdown(f"<details>\n<summary>{summary}</summary>\n\n{content}\n\n</details>"))


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Of a nested config its fields, and not the config itself."""
    fields = fields_of(model)
    return [(name, field) for name, field in fields.items() if not any(n.startswith(f"{name}.") for n in fields)]


def _plain(config: BaseModel, name: str) -> str:
    value = operator.attrgetter(name)(config)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
