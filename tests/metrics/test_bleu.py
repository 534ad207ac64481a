"""BLEU by hand, by sacreBLEU, and what the bootstrap may say."""

import math

import pytest

from labkit.errors import InputError
from labkit.metrics.bleu import bleu, paired_bootstrap, statistics, tokenization_for

pytest.importorskip("sacrebleu")
REFERENCES = ["the cat sat on the mat today", "a dog runs in the park"]
CLOSE = ["the cat sat on a mat today", "a dog runs in the park"]
FAR = ["the cat sat on a rug today", "a dog walks in the park"]


def test_by_hand():
    """13 words a side; 12 of 13, 9 of 11, 6 of 9 and 4 of 7 n-grams match."""
    result = bleu(CLOSE, REFERENCES)
    assert result.score == pytest.approx(100 * (12 / 13 * 9 / 11 * 6 / 9 * 4 / 7) ** 0.25)
    assert result.precisions == pytest.approx((100 * 12 / 13, 100 * 9 / 11, 100 * 6 / 9, 100 * 4 / 7))
    assert result.brevity_penalty == 1
    assert result.signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert statistics(CLOSE, REFERENCES).sum(0).tolist() == [13, 13, 12, 9, 6, 4, 13, 11, 9, 7]


def test_too_short_is_penalized():
    result = bleu(["the cat sat on the", "a dog runs in the park"], REFERENCES)
    assert result.brevity_penalty == pytest.approx(math.exp(1 - 13 / 11))
    assert result.score == pytest.approx(100 * result.brevity_penalty)


def test_ends():
    assert bleu(REFERENCES, REFERENCES).score == pytest.approx(100)
    assert bleu(["", ""], REFERENCES).score == 0


def test_case_and_tokens_are_said_and_matter():
    upper = [line.upper() for line in REFERENCES]
    assert bleu(upper, REFERENCES, lowercase=True).score == pytest.approx(100)
    assert bleu(upper, REFERENCES).score < 5
    assert "case:lc" in bleu(upper, REFERENCES, lowercase=True).signature
    assert "tok:none" in bleu(CLOSE, REFERENCES, tokenize="none").signature
    assert bleu(["it is (so) here now"], ["it is ( so ) here now"]).score == pytest.approx(100)
    assert bleu(["it is (so) here now"], ["it is ( so ) here now"], tokenize="none").score < 50


def test_the_sum_of_the_sentences_is_the_corpus():
    from sacrebleu.metrics import BLEU

    lengths = statistics(FAR * 5, REFERENCES * 5).sum(0).tolist()
    again = BLEU.compute_bleu(lengths[2:6], lengths[6:], lengths[0], lengths[1], smooth_method="exp")
    assert again.score == pytest.approx(bleu(FAR * 5, REFERENCES * 5).score)


def test_a_gap_has_an_interval_and_a_p_value():
    better = paired_bootstrap(CLOSE * 20, FAR * 20, REFERENCES * 20, draws=200)
    assert better.gain.value == pytest.approx(bleu(CLOSE, REFERENCES).score - bleu(FAR, REFERENCES).score)
    assert 0 < better.gain.low < better.gain.value < better.gain.high
    assert better.p_value < 0.02
    same = paired_bootstrap(CLOSE * 20, CLOSE * 20, REFERENCES * 20, draws=200)
    assert tuple(same.gain)[:3] == (0, 0, 0)
    assert same.p_value > 0.9
    back = paired_bootstrap(FAR * 20, CLOSE * 20, REFERENCES * 20, draws=200)
    assert back.gain.value == pytest.approx(-better.gain.value)


def test_bad_input_is_refused():
    for call in (
        lambda: bleu(CLOSE, REFERENCES[:1]),
        lambda: bleu([], []),
        lambda: paired_bootstrap(CLOSE, FAR[:1], REFERENCES),
    ):
        with pytest.raises(InputError, match="each hypothesis needs one reference"):
            call()


def test_languages_without_spaces_have_a_tokenizer_of_their_own(monkeypatch):
    """MeCab is a package of its own: without it characters are counted, and the signature says so."""
    assert [tokenization_for(language) for language in ("de", "zh", "xx")] == ["13a", "zh", "13a"]
    monkeypatch.setattr("labkit.metrics.bleu.find_spec", lambda name: None)
    assert tokenization_for("ja") == "char"
    monkeypatch.setattr("labkit.metrics.bleu.find_spec", lambda name: object())
    assert tokenization_for("ja") == "ja-mecab"
