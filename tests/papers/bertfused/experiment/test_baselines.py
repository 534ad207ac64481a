"""Other ways to use BERT: what each attends to, and that decoding with a cache is what training sees."""

import pytest
import torch

from labkit.papers.bertfused.experiment.baselines import Bilingual, Context
from labkit.papers.bertfused.experiment.config import ARMS, WITHOUT_XLM
from labkit.papers.bertfused.experiment.model import build
from labkit.papers.bertfused.method.decoding import score_ids, translate_ids
from labkit.papers.bertfused.method.layers import Architecture
from labkit.papers.bertfused.method.transformer import BertView, Fusion, Transformer
from labkit.papers.bertfused.method.warm_start import warm_start

SIZES = Architecture(20, 16, 32, 2, 2, 2, 0.0, longest=64)
SOURCE = torch.tensor([[5, 6, 7, 2], [8, 2, 0, 0]])
TARGET = torch.tensor([[1, 9, 10], [1, 11, 12]])


def bert_view(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return BertView(torch.randn(2, 5, 12, generator=draw), torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))


@pytest.mark.parametrize("name", WITHOUT_XLM)
def test_every_arm_is_built_and_searches_as_it_is_trained(name):
    """The score of what greedy search writes is that of teacher forcing."""
    arm = ARMS[name]
    model = build(arm, SIZES, 12, seed=1).eval()
    view = bert_view() if arm.hears else None
    hypotheses = translate_ids(model, SOURCE, view, beam=1, longest=(0, 4))
    for row, (best,) in enumerate(hypotheses):
        target = torch.tensor([[*best.tokens, SIZES.eos]])
        one = None if view is None else BertView(view.states[row : row + 1], view.real[row : row + 1])
        with torch.inference_mode():
            wanted = score_ids(model, model.encode(SOURCE[row : row + 1], one), target)
        assert float(wanted) == pytest.approx(best.log_prob, abs=1e-4)


@pytest.mark.parametrize("name", ["bert-encoder", "bert-input"])
def test_the_source_is_read_in_berts_words_alone(name):
    model = build(ARMS[name], SIZES, 12, seed=0).eval()
    first = model(SOURCE, TARGET, bert_view())
    assert torch.equal(first, model(SOURCE.flip(1), TARGET, bert_view()))
    assert not torch.allclose(first, model(SOURCE, TARGET, bert_view(1)))
    padded = bert_view()
    padded.states[1, 3:] = 100.0
    torch.testing.assert_close(model(SOURCE, TARGET, padded), first, rtol=0, atol=1e-5)


def test_bert_as_the_encoder_has_no_encoder_of_its_own():
    assert not [n for n, _ in build(ARMS["bert-encoder"], SIZES, 12, 0).named_parameters() if n.startswith("encoder")]


def test_the_document_baseline_is_the_fused_model_with_its_own_embeddings():
    model = Context(SIZES, drop_net=0.0, seed=0).eval()
    ids = torch.tensor([[7.0, 8, 2], [9, 2, 0]])[..., None]
    view = BertView(ids, ids[..., 0] > 0)
    fused = Transformer(SIZES, Fusion(bert_width=16, drop_net=0.0), 0).eval()
    fused.load_state_dict(model.state_dict())
    wanted = fused(SOURCE, TARGET, BertView(fused._embed(ids[..., 0].long()), view.real))
    torch.testing.assert_close(model(SOURCE, TARGET, view), wanted)


def test_two_languages_share_everything_but_an_embedding():
    model = Bilingual(SIZES, seed=0).eval()
    there = model(SOURCE, TARGET)
    model.direction = (1, 0)
    assert not torch.allclose(model(SOURCE, TARGET), there)
    with torch.no_grad():
        model.languages.zero_()
    plain = Transformer(SIZES, seed=0).eval()
    torch.testing.assert_close(model(SOURCE, TARGET), plain(SOURCE, TARGET))


@pytest.mark.parametrize("direction", [(0, 1), (1, 0), (1, 1)])
def test_a_bilingual_model_searches_as_it_is_trained(direction):
    model = Bilingual(SIZES, seed=3).eval()
    model.direction = direction
    for row, (best,) in enumerate(translate_ids(model, SOURCE, None, beam=1, longest=(0, 4))):
        encoded = model.encode(SOURCE[row : row + 1])
        with torch.inference_mode():
            wanted = score_ids(model, encoded, torch.tensor([[*best.tokens, SIZES.eos]]))
        assert float(wanted) == pytest.approx(best.log_prob, abs=1e-4)


def test_the_warm_start_takes_the_languages_along():
    plain, fused = Bilingual(SIZES, seed=0), Bilingual(SIZES, Fusion(bert_width=12), seed=1)
    report = warm_start(fused, plain.state_dict())
    assert "languages" in report.loaded
    assert all(".bert_attn" in name for name in report.new)
