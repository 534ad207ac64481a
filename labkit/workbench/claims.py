"""Claims: what a paper's abstract says, sentence by sentence, each with a measured effect and a margin.

A claim turns one statement into one number per seed, oriented so that more of it speaks for the statement. It holds
when the near end of the 95 % interval over seeds passes the margin. One seed gives no interval: then the value itself
decides, and the ledger shows that it was one seed. Where a run trains many seeds at once, a claim brings an interval
over all of them. A claim that does not hold is shown like any other.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Result = Mapping[str, Any]


class Estimate(NamedTuple):
    """An effect with its 95 % interval, from so many independent replicates (per stratum, where there are strata)."""

    value: float
    low: float
    high: float
    replicates: int


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
    measure: Callable[[Result], float | None]
    margin: float
    scale: str
    unit: str = ""
    note: str = ""
    pooled: Callable[[Sequence[Result]], Estimate | None] | None = None


@dataclass(frozen=True)
class Verdict:
    """A claim against results. `measured` is the mean over seeds; None where nothing was measured.

    seeds: independent replicates behind the interval.
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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def effect(self) -> str:
        """The measured effect as people write it: mean, interval, seeds; with the digits that its margin needs."""
        if self.measured is None:
            return "not measured"
        digits = max(2, 1 - math.floor(math.log10(abs(self.margin)))) if self.margin else 2
        interval = f" [{self.low:+.{digits}f}, {self.high:+.{digits}f}]" if self.low is not None else ""
        seeds = f", {self.seeds} seed{'s' if self.seeds > 1 else ''}"
        return f"{self.measured:+.{digits}f}{interval} {self.unit}".rstrip() + seeds

    @property
    def word(self) -> str:
        """'not shown': the interval holds the margin, more seeds could decide either way."""
        if self.holds is None:
            return "not measured"
        if self.holds:
            return "holds"
        return "not shown" if self.high is not None and self.high >= self.margin else "does not hold"


def judge(paper: str, claim: Claim, results: Sequence[Result], source: str | None) -> Verdict:
    """Measure `claim` on one result per seed. An effect that is not a finite number counts as not measured."""
    values = [float(v) for v in map(claim.measure, results) if v is not None and math.isfinite(v)]
    mean, low, high = interval(values)
    replicates = len(values)
    if claim.pooled and (estimate := claim.pooled(results)) and all(map(math.isfinite, estimate)):
        mean, low, high, replicates = estimate
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
        source=source if replicates else None,
        low=low,
        high=high,
        seeds=replicates,
        unit=claim.unit,
        note=claim.note,
    )


def interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Mean and 95 % Student interval of the mean; no interval from a single value, nothing from none."""
    if not values:
        return None, None, None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None, None
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    reach = _student(0.975, len(values) - 1) * math.sqrt(variance / len(values))
    return mean, mean - reach, mean + reach


def bootstrap(
    strata: Sequence["NDArray[np.float64]"],
    statistic: Callable[[list["NDArray[np.float64]"]], "NDArray[np.float64]"],
    draws: int = 4000,
    seed: int = 0,
) -> Estimate:
    """Effect and 95 % percentile interval over replicates.

    Args:
        strata: per stratum (an environment, a kind of clip) an array (columns, replicates): what is compared, side by
            side on the same seeds. Inside of each stratum replicates are drawn anew, all columns together.
        statistic: from a list of such arrays (columns, ..., replicates) to the effect (...).
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    places = [generator.integers(0, part.shape[-1], (draws, part.shape[-1])) for part in strata]
    drawn = statistic([part[:, place] for part, place in zip(strata, places, strict=True)])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(statistic(list(strata))), float(low), float(high), strata[0].shape[-1])


def prediction_interval(values: Sequence[float], level: float = 0.99) -> tuple[float, float]:
    """Where one more value from the same source lies with probability `level`; everywhere, after a single value."""
    if len(values) < 2:
        return -math.inf, math.inf
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    reach = _student((1 + level) / 2, len(values) - 1) * math.sqrt(variance * (1 + 1 / len(values)))
    return mean - reach, mean + reach


def _student(probability: float, freedom: int) -> float:
    """Quantile of Student's distribution."""
    from scipy import stats  # takes a second to import, and most commands judge nothing

    return float(stats.t.ppf(probability, freedom))


def ledger_text(verdicts: Iterable[Verdict]) -> str:
    """One claim a line, key first, the verdict last: stable enough for nbval, and a diff names the claim."""
    return "\n".join(f"claim {v.key}: {v.word}" for v in verdicts)


def ledger_markdown(verdicts: Iterable[Verdict]) -> str:
    """The ledger as a Markdown table, for notebooks and the README."""
    head = "| | the abstract says | paper's figure | measured here | margin | verdict |\n|---|---|---|---|---|---|"
    mark = {True: "✓", False: "✗", None: "–"}
    rows = (
        (mark[v.holds], v.sentence, v.published or "–", v.effect, f"{v.margin:g} {v.unit}".rstrip(), v.word)
        for v in verdicts
    )
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in cells)])
