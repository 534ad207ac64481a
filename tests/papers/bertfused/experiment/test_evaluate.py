"""What translations are worth, by hand."""

from functools import partial

import pytest

from labkit.data.translation import ParallelText
from labkit.metrics.bleu import paired_bootstrap
from labkit.papers.bertfused.experiment import evaluate
from labkit.papers.bertfused.experiment.config import Config
from labkit.papers.bertfused.experiment.evaluate import gain, plain, pronoun_accuracy, scores

CONFIG = Config()
TEXT = ParallelText(
    ("the dog sees the cat .", "the man sees it ."), ("Der Hund  sieht die Katze .", "der Mann sieht ihn .")
)


def test_perfect_and_empty():
    perfect = scores(["der hund sieht die katze .", "der mann sieht ihn ."], TEXT, CONFIG)
    assert perfect["bleu"] == pytest.approx(100)
    assert perfect["exact"] == perfect["content"] == perfect["nouns"] == 1
    assert perfect["signature"].startswith("nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:2.")
    nothing = scores(["", ""], TEXT, CONFIG)
    assert nothing["bleu"] == nothing["exact"] == nothing["nouns"] == 0


def test_a_reference_is_what_the_tokenizer_gives_back():
    assert plain(" Der  Hund\t", lowercase=False) == "Der Hund"
    assert plain("GRÖSSE", lowercase=True) == "grösse"


def test_pronouns():
    """Only sentences that say it count; two pronouns are none."""
    assert pronoun_accuracy(["", "der mann sieht ihn ."], TEXT) == 1
    assert pronoun_accuracy(["ihn", "der mann sieht sie ."], TEXT) == 0
    assert pronoun_accuracy(["", "er sieht ihn es ."], TEXT) == 0
    assert pronoun_accuracy([""], TEXT.select([0])) == 0


def test_gain_against_itself_is_nothing(monkeypatch):
    monkeypatch.setattr(evaluate, "paired_bootstrap", partial(paired_bootstrap, draws=50))
    same = gain(list(TEXT.targets), list(TEXT.targets), TEXT, CONFIG)
    assert same["bleu"] == same["low"] == same["high"] == 0
    better = gain([t.lower() for t in TEXT.targets], ["der", "die"], TEXT, CONFIG)
    assert better["bleu"] > 50


def test_a_single_test_sentence_has_a_gain_and_no_interval():
    """An interval over one sentence is not a number, which no result may hold."""
    text = ParallelText(("a dog",), ("ein hund",))
    assert gain(["ein hund"], ["hund"], text, Config()).keys() == {"bleu"}


def test_chinese_is_counted_in_characters():
    """13a takes a sentence without spaces for one word, of which no part can be right."""
    text = ParallelText(("the dog runs .",), ("\u72d7\u5728\u8857\u4e0a\u8dd1\u3002",))
    config = Config(target="zh")
    result = scores(["\u72d7\u5728\u8857\u4e0a\u8dd1"], text, config)
    assert "tok:zh" in result["signature"]
    assert result["bleu"] > 30
    assert scores(["\u72d7\u5728\u8857\u4e0a\u8dd1"], text, Config())["bleu"] < 1
