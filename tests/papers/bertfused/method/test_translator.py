"""Raw text in, raw text out: order, blank lines, batches, documents, refusals."""

from collections.abc import Sequence

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.bertfused.method.bert import random_bert
from labkit.papers.bertfused.method.transformer import Architecture, Fusion, Transformer
from labkit.papers.bertfused.method.translator import Translator

pytest.importorskip("transformers")
WORDS = ["a", "b", "c", "d", "e", "f"]
LINES = ["a b c", "", "d", "e f a b c d", "  ", "c c c", "d"]


class Letters:
    """Words of one letter, from id 4 on."""

    def encode(self, text: str) -> list[int]:
        return [4 + WORDS.index(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[token - 4] if token >= 4 else "?" for token in ids)


def translator(mode: str = "both", document: bool = False) -> Translator:
    sizes = Architecture(
        vocabulary=10, width=16, feed_forward=16, heads=2, encoder_layers=1, decoder_layers=1, longest=9
    )
    model = Transformer(sizes, Fusion(mode=mode, bert_width=32), seed=1)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(3)
    return Translator(model, Letters(), random_bert(LINES), document)


@pytest.mark.parametrize("mode", ["off", "both"])
def test_order_is_kept_and_blank_lines_stay(mode):
    ours = translator(mode)
    together = ours.translate(LINES, beam=2)
    assert [bool(line) for line in together] == [True, False, True, True, False, True, True]
    assert together[2] == together[6]
    assert together == [ours.translate([line], beam=2)[0] for line in LINES]


@pytest.mark.shapes_unchecked
def test_batches_change_nothing():
    ours, reports = translator(), []
    one = ours.translate(LINES, beam=2, batch_tokens=1, progress=reports.append)
    assert one == ours.translate(LINES, beam=2, batch_tokens=10_000)
    assert reports == [3, 4, 5, 6, 7]  # the two blank lines are done at once


def test_progress_ends_with_all_lines():
    reports: list[int] = []
    translator().translate(LINES, beam=1, progress=reports.append)
    assert reports[-1] == len(LINES)


def test_bert_reads_the_line_before_in_a_document():
    """A changed line changes the next one's view, not the one after a blank line."""
    ours = translator(document=True)
    first, second = (ours._tokenized([line, "d", "", "d"])[1] for line in ("a b", "c c"))
    assert first[1] != second[1]
    assert first[3] == second[3]
    assert first[3].ids == ours.bert.tokenize(["d"], [""])[0].ids
    assert translator()._tokenized(["a b", "d"])[1][1].ids == ours.bert.tokenize(["d"])[0].ids


def test_scores_come_with_the_search():
    decoded = translator().search(LINES, beam=3)
    assert [len(hypotheses) for hypotheses in decoded] == [3, 0, 3, 3, 0, 3, 3]
    assert all(h[0].score >= h[-1].score for h in decoded if h)


def test_nothing_to_translate():
    assert translator().translate([]) == []
    assert translator().translate(["", " "]) == ["", ""]


def test_misuse_is_refused():
    ours = translator()
    with pytest.raises(InputError, match="line 2 has 41 tokens, and the model takes 9 at most"):
        ours.translate(["a", "a " * 40])
    with pytest.raises(InputError, match="beam must lie"):
        ours.translate(["a"], beam=0)
    with pytest.raises(InputError, match="give the BERT"):
        Translator(ours.model, Letters())
    with pytest.raises(InputError, match="BERT of width 32; this one has 16"):
        Translator(ours.model, Letters(), random_bert(LINES, width=16))
    plain = Translator(translator("off").model, Letters(), random_bert(LINES))
    assert plain.bert is None  # not needed, not run
