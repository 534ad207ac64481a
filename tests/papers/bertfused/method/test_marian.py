"""Marian of transformers, there and back."""

import pytest
import torch
from torch import nn

from labkit.errors import InputError
from labkit.papers.bertfused.method.decoding import translate_ids
from labkit.papers.bertfused.method.marian import from_marian, marian_inputs, to_marian
from labkit.papers.bertfused.method.transformer import BertView, Fusion, Transformer, branches
from labkit.papers.bertfused.method.warm_start import fuse

transformers = pytest.importorskip("transformers")


def marian(seed: int = 0, **changes: object):
    """As the translation models that people have: swish, padding last, outputs that begin with padding."""
    torch.manual_seed(seed)
    about = {
        "vocab_size": 30, "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
        "activation_function": "swish", "scale_embedding": True, "pad_token_id": 29, "eos_token_id": 0,
        "decoder_start_token_id": 29, "forced_eos_token_id": 0,
    }  # fmt: skip
    model = transformers.MarianMTModel(transformers.MarianConfig(**about | changes)).eval()
    model.final_logits_bias.copy_(torch.randn(1, 30))
    return model


SOURCE = torch.tensor([[5, 6, 7, 8, 0], [9, 3, 0, 29, 29]])
TARGET = torch.tensor([[29, 4, 5], [29, 6, 29]])


@torch.no_grad()
def test_a_checkpoint_of_the_common_kind_is_taken_over():
    theirs = marian()
    ours = from_marian(theirs)
    wanted = theirs(**marian_inputs(SOURCE, 29), decoder_input_ids=TARGET).logits
    torch.testing.assert_close(ours(SOURCE, TARGET), wanted, rtol=0, atol=1e-5)
    assert (ours.sizes.pad, ours.sizes.bos, ours.sizes.eos, ours.sizes.positions) == (29, 29, 0, "marian")
    generated = theirs.generate(**marian_inputs(SOURCE, 29), num_beams=1, do_sample=False, max_new_tokens=10)
    words = [[token for token in row if token not in (0, 29)] for row in generated.tolist()]
    assert [hypotheses[0].tokens for hypotheses in translate_ids(ours, SOURCE, beam=1, longest=(0, 10))] == words


@torch.no_grad()
def test_it_can_be_fused():
    plain = from_marian(marian())
    model = fuse(plain, 12)
    view = BertView(torch.randn(2, 4, 12), torch.ones(2, 4, dtype=torch.bool))
    assert not torch.equal(model(SOURCE, TARGET, view), plain(SOURCE, TARGET))
    with branches(model, 1.0, 0.0):
        assert torch.equal(model(SOURCE, TARGET, view), plain(SOURCE, TARGET))


@torch.no_grad()
def test_there_and_back(sizes, source, target):
    plain = Transformer(sizes, seed=4).eval()
    theirs = to_marian(plain)
    wanted = plain(source, target)
    got = theirs(**marian_inputs(source, 0), decoder_input_ids=target).logits
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(from_marian(theirs)(source, target), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Linear(2, 2), "a MarianMTModel of transformers is needed; got Linear"),
        (lambda: marian(scale_embedding=False), "scaled by sqrt"),
        (lambda: marian(decoder_ffn_dim=20), "feed-forward networks of one width"),
        (lambda: marian(decoder_attention_heads=4), "as many heads"),
        (lambda: marian(activation_function="tanh"), "an activation among"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        from_marian(make())


def test_other_positions_are_refused():
    theirs = marian()
    nn.init.ones_(theirs.model.encoder.embed_positions.weight)
    with pytest.raises(InputError, match="sinusoidal positions"):
        from_marian(theirs)


def test_a_fused_model_is_no_marian(sizes):
    with pytest.raises(InputError, match="fused model cannot become a Marian"):
        to_marian(Transformer(sizes, Fusion()))
