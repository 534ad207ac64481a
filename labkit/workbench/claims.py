"""Claims: what a paper's abstract says, sentence by sentence, each with a measured effect and a margin.

A claim turns one statement into one number per seed, oriented so that more of it speaks for the statement. It holds
when the near end of the 95 % interval over seeds passes the margin. One seed gives no interval: then the value itself
decides, and the ledger shows that it was one seed. Where a run trains many seeds at once, a claim brings an interval
over all of them. A claim that does not hold is shown like any other.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from labkit.errors import RunError
from labkit.metrics.intervals import Interval, student

Result = Mapping[str, Any]
Measure = Callable[[Result], float | None]
Pooled = Callable[[Sequence[Result]], Interval | None]

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Claim:
    """One statement of an abstract, made measurable.

    Args:
        key: short name, unique in its paper; lower case with hyphens.
        sentence: the statement in our own words.
        published: the paper's own figure for it, None where it is not known to us. Never a guess.
        measure: from a run's result to the effect, larger speaks for the statement; None where it was not measured.
        margin: the least effect that counts, in `unit`; set from the noise before measuring.
        scale: the scale at which it is measured.
        unit: unit of effect and margin.
        note: what a reader must know to judge the number.
        pooled: for runs that hold many replicates each (seeds trained at once, clips): the effect and its interval over
            the replicates of all runs together; None where they did not measure it. Without it the interval is
            Student's, over runs.
    """

    key: str
    sentence: str
    published: str | None
    measure: Measure
    margin: float
    scale: str
    unit: str = ""
    note: str = ""
    pooled: Pooled | None = None


def read(result: Result, *path: str) -> Any:
    """`result[path[0]][path[1]]...`; None where the run did not measure it."""
    value: Any = result
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def number(*path: str) -> Measure:
    """Measure of a claim: one number of the result."""

    def measure(result: Result) -> float | None:
        value = read(result, *path)
        return None if value is None else float(value)

    return measure


def difference(first: Measure, second: Measure) -> Measure:
    """Measure of a claim: the first minus the second; None where a run lacks one of them."""

    def measure(result: Result) -> float | None:
        a, b = first(result), second(result)
        return None if a is None or b is None else a - b

    return measure


def least(*measures: Measure) -> Measure:
    """The smallest of several effects: the claim must hold for each. None where a run lacks one of them."""
    return _over_all(min, measures)


def largest(*measures: Measure) -> Measure:
    """The largest of several, such as the best of the rivals. None where a run lacks one of them."""
    return _over_all(max, measures)


def _over_all(choose: Callable[[list[float]], float], measures: Sequence[Measure]) -> Measure:
    def measure(result: Result) -> float | None:
        values = [one(result) for one in measures]
        known = [value for value in values if value is not None]
        return choose(known) if len(known) == len(values) else None

    return measure


def _written(value: float, margin: float) -> str:
    """With its sign and two digits of the margin, two to four decimals; a zero has no sign.

    What four decimals cannot show has a power of ten, where the margin is as small: +3·10⁻⁹. What is less than a
    hundredth of the margin is zero.
    """
    digits = min(4, max(2, 1 - math.floor(math.log10(abs(margin))))) if margin else 2
    text = f"{value:+.{digits}f}"
    if float(text):
        return text
    small = abs(margin) < 10**-digits and abs(value) >= abs(margin) / 100 > 0
    return _with_powers(f"{value:+.0e}") if small else text[1:]


def _with_powers(text: str) -> str:
    """-1e-06 as people write it: -1·10⁻⁶."""
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}·10{str(int(exponent)).translate(RAISED)}" if e else text


def least_effect(margin: float, unit: str) -> str:
    """A claim's margin, as tables write it."""
    return f"{_with_powers(f'{margin:g}')} {unit}".rstrip()


@dataclass(frozen=True)
class Verdict:
    """A claim against results. `measured` is the mean over seeds; None where nothing was measured.

    seeds: independent replicates behind the interval.
    stale: the room's code or config has changed since the record behind it was made, as far as the record can tell.
    """

    paper: str
    key: str
    sentence: str
    published: str | None
    measured: float | None
    margin: float
    scale: str
    holds: bool | None
    source: str | None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    unit: str = ""
    note: str = ""
    stale: bool = False

    @property
    def doubt(self) -> str:
        """What is to be said beside the verdict; mostly nothing."""
        return ", code or config changed since" if self.stale else ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def effect(self) -> str:
        """The measured effect as people write it: mean, interval, seeds; with the digits that its margin needs."""
        if self.measured is None:
            return "not measured"
        return f"{self.numbers} {self.unit}".rstrip() + f", {self.seeds} seed{'s' if self.seeds > 1 else ''}"

    @property
    def numbers(self) -> str:
        """Mean and interval alone; a dash where nothing was measured."""
        if self.measured is None:
            return "–"
        interval = ""
        if self.low is not None and self.high is not None:
            interval = f" [{_written(self.low, self.margin)}, {_written(self.high, self.margin)}]"
        return _written(self.measured, self.margin) + interval

    @property
    def mark(self) -> str:
        """One letter: it holds, it does not, nothing was measured."""
        return {True: "✓", False: "✗", None: "–"}[self.holds]

    @property
    def word(self) -> str:
        """'not shown': the interval holds the margin, more seeds could decide either way."""
        if self.holds is None:
            return "not measured"
        if self.holds:
            return "holds"
        return "not shown" if self.high is not None and self.high >= self.margin else "does not hold"


def judge(paper: str, claim: Claim, results: Sequence[Result], source: str | None) -> Verdict:
    """The claim against one result per seed.

    Raises:
        RunError: a result has not the form that the claim reads, such as an arm without its numbers; names both.
    """
    effect = effect_of(claim, results, source)
    mean = effect.value if effect else None
    low, high = (effect.low, effect.high) if effect and math.isfinite(effect.low) else (None, None)
    near_end = mean if low is None else low
    return Verdict(
        paper=paper,
        key=claim.key,
        sentence=claim.sentence,
        published=claim.published,
        measured=mean,
        margin=claim.margin,
        scale=claim.scale,
        holds=None if near_end is None else near_end >= claim.margin,
        source=source if effect else None,
        low=low,
        high=high,
        seeds=effect.replicates if effect else 0,
        unit=claim.unit,
        note=claim.note,
    )


def effect_of(claim: Claim, results: Sequence[Result], source: str | None) -> Interval | None:
    """The claim's effect and its interval; None where it was not measured, or is not a finite number.

    Raises:
        RunError: a result has not the form that the claim reads.
    """
    with _stumbles_named(claim, source):
        values = [float(v) for v in map(claim.measure, results) if v is not None and math.isfinite(v)]
        over_all = claim.pooled(results) if claim.pooled else None
    if over_all and all(map(math.isfinite, over_all)):
        return over_all
    return student(values) if values else None


@contextmanager
def _stumbles_named(claim: Claim, source: str | None) -> Iterator[None]:
    """A measure that stumbles over a result means that the result is damaged, or of an older version."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RunError(
            f"{source or 'a result'} lacks what the claim '{claim.key}' reads ({type(error).__name__}: {error}). "
            "Restore that file with git, or record it anew with the command that it holds."
        ) from error


def ledger_markdown(verdicts: Iterable[Verdict]) -> str:
    """The ledger as a Markdown table, for notebooks and the README."""
    head = "| | the abstract says | paper's figure | measured here | margin | verdict |\n|---|---|---|---|---|---|"
    rows = (
        (v.mark, v.sentence, v.published or "–", v.effect, least_effect(v.margin, v.unit), v.word + v.doubt)
        for v in verdicts
    )
    return "\n".join([head, *map(table_row, rows)])


def table_row(cells: Iterable[str]) -> str:
    """A row of a Markdown table. A bar in a cell would end the cell, a line break the table."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def unmeasured(verdicts: Sequence[Verdict]) -> str:
    """One line for a run that measures nothing, in place of a ledger of dashes."""
    papers, scales = (sorted({getattr(v, name) for v in verdicts}) for name in ("paper", "scale"))
    commands = ", ".join(f"labkit claims {paper}" for paper in papers)
    return f"This scale measures no claim; they are about {', '.join(scales)}. The recorded ones: {commands}"
