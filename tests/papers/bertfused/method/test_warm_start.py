"""The second stage: what it takes over, what it says, what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from labkit.errors import InputError
from labkit.papers.bertfused.method.transformer import Fusion, Transformer
from labkit.papers.bertfused.method.warm_start import fuse, warm_start

WIDTH = 24


@pytest.mark.parametrize("mode", ["encoder", "decoder", "both", "stacked"])
def test_all_that_is_plain_is_taken_over_and_attention_to_bert_is_new(sizes, mode):
    plain = Transformer(sizes, seed=1)
    fused = fuse(plain, WIDTH, mode, drop_net=0.25, seed=2)
    ours, theirs = fused.state_dict(), plain.state_dict()
    assert set(fused.report.loaded) == set(theirs)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert set(fused.report.new) == ours.keys() - theirs.keys()
    assert all(".bert_attn" in name for name in fused.report.new)
    layers = {"encoder": 2, "decoder": 3}.get(mode, 5)
    assert f"61 tensors loaded, {len(fused.report.new)} new (attention to BERT in {layers} layers)" in str(
        fused.report
    ).replace(f"{len(theirs)} tensors", "61 tensors")
    assert fused.drop_net.rate == 0.25


def test_the_plain_model_stays_as_it_is(sizes):
    plain = Transformer(sizes, seed=1)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    fused = fuse(plain, WIDTH)
    nn.init.zeros_(fused.encoder.layers[0].fc1.weight)
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_a_fused_model_goes_on_from_a_fused_one(sizes):
    first, second = (Transformer(sizes, Fusion(bert_width=WIDTH), seed=seed) for seed in (1, 2))
    report = warm_start(second, first.state_dict())
    assert report.new == ()
    assert "none new" in str(report)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def another(sizes, **changes: int) -> dict[str, torch.Tensor]:
    return Transformer(replace(sizes, **changes)).state_dict()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda sizes: another(sizes, vocabulary=24), "24 entries in its vocabulary, the fused one 23"),
        (lambda sizes: another(sizes, feed_forward=40), r"fc1.weight is \(40, 32\) and should be \(48, 32\)"),
        (lambda sizes: another(sizes, decoder_layers=2), "decoder.layers.2.fc1.weight.* missing"),
        (lambda sizes: another(sizes, encoder_layers=3), "encoder.layers.2.fc1.weight.* left over"),
        (lambda sizes: {f"model.{name}": v for name, v in another(sizes).items()}, "missing.*left over"),
        (lambda sizes: {}, "embed_tokens.weight.* missing"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(sizes, spoil, words):
    model = Transformer(sizes, Fusion(bert_width=WIDTH), seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=words):
        warm_start(model, spoil(sizes))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_fused_is_refused(sizes):
    plain = Transformer(sizes)
    with pytest.raises(InputError, match="fused already"):
        fuse(fuse(plain, WIDTH), WIDTH)
    with pytest.raises(InputError, match="fuses nothing"):
        fuse(plain, WIDTH, "off")
