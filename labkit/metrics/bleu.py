"""BLEU and chrF by sacreBLEU, always with the signature that says how they were counted; and whether a gap is luck.

    BLEU = BP exp(mean_n log p_n), n = 1..4        BP = min(1, exp(1 - |reference| / |hypothesis|))
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.metrics.intervals import Interval, bootstrap_of

Tokenization = Literal["13a", "none", "intl", "zh", "char"]


class Bleu(NamedTuple):
    """A corpus score from 0 to 100, and how it was counted."""

    score: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    signature: str

    def __str__(self) -> str:
        parts = "/".join(f"{precision:.1f}" for precision in self.precisions)
        return f"BLEU {self.score:.2f} ({parts}, BP {self.brevity_penalty:.3f}) {self.signature}"


class Comparison(NamedTuple):
    """Two systems on the same sentences: BLEU of ours minus BLEU of theirs."""

    gain: Interval
    """With its interval over sentences drawn anew, both systems' together."""
    p_value: float
    """How often a gap at least so wide appears where there is none, by the same draws. [Koehn 2004]"""
    signature: str


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    lowercase: bool = False,
    tokenize: Tokenization = "13a",
) -> Bleu:
    """Corpus BLEU with one reference a sentence.

    Args:
        lowercase: count without regard to case, as for IWSLT'14.
        tokenize: "13a" for raw text; "none" for text that is tokenized already, to compare with multi-bleu.perl.

    Raises:
        InputError: not one reference a hypothesis, or none at all.
    """
    _check(hypotheses, references)
    metric = _metric(lowercase, tokenize)
    found = metric.corpus_score(list(hypotheses), [list(references)])
    return Bleu(float(found.score), tuple(found.precisions), float(found.bp), str(metric.get_signature()))


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF2, 0 to 100: F-score of character n-grams.

    Raises:
        InputError: as `bleu`.
    """
    from sacrebleu.metrics import CHRF

    _check(hypotheses, references)
    return float(CHRF().corpus_score(list(hypotheses), [list(references)]).score)


def paired_bootstrap(
    ours: Sequence[str],
    theirs: Sequence[str],
    references: Sequence[str],
    *,
    lowercase: bool = False,
    tokenize: Tokenization = "13a",
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Is the gap between two systems luck of the test sentences? Sentences are drawn anew, both systems' together.

    Raises:
        InputError: as `bleu`; or the systems translated different numbers of sentences.
    """
    _check(ours, references)
    _check(theirs, references)
    metric = _metric(lowercase, tokenize)
    counts = [np.array(statistics(side, references, lowercase=lowercase, tokenize=tokenize)) for side in (ours, theirs)]

    def gap(rows: list[int]) -> float:
        first, second = (_score(metric, side[rows].sum(0)) for side in counts)
        return first - second

    gain = bootstrap_of(gap, range(len(references)), draws=draws, seed=seed)
    generator = np.random.default_rng(seed)
    drawn = [gap(list(generator.integers(0, len(references), len(references)))) for _ in range(draws)]
    beyond = sum(abs(value - gain.value) >= abs(gain.value) for value in drawn)
    return Comparison(gain, (beyond + 1) / (draws + 1), str(metric.get_signature()))


def statistics(
    hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool = False, tokenize: Tokenization = "13a"
) -> NDArray[np.int64]:
    """What each sentence adds to the corpus: lengths of hypothesis and reference, matches and n-grams for n = 1..4."""
    _check(hypotheses, references)
    metric = _metric(lowercase, tokenize)
    return np.array(metric._extract_corpus_statistics(list(hypotheses), [list(references)]), dtype=np.int64)


def _score(metric: object, summed: NDArray[np.int64]) -> float:
    return float(metric._compute_score_from_stats(summed.tolist()).score)  # type: ignore[attr-defined]


def _metric(lowercase: bool, tokenize: Tokenization) -> object:
    from sacrebleu.metrics import BLEU

    return BLEU(lowercase=lowercase, tokenize=tokenize, force=True)


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references) or not references:
        raise InputError(
            f"each hypothesis needs one reference, and there must be some; got {len(hypotheses)} and {len(references)}."
        )
