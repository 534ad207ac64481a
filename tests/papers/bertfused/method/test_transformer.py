"""The model: fusion off is the plain one, drop-net chooses branches, padding and the future do not matter."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.bertfused.method.attention import watch
from labkit.papers.bertfused.method.marian import to_marian
from labkit.papers.bertfused.method.transformer import (
    PLAIN,
    Architecture,
    BertView,
    Fusion,
    Transformer,
    branches,
    sinusoids,
)
from labkit.papers.bertfused.method.warm_start import fuse, warm_start

MODES = ["encoder", "decoder", "both", "stacked"]
WIDTH = 24


def fusion(mode: str = "both", **options: object) -> Fusion:
    return Fusion(mode=mode, bert_width=WIDTH, **options)


@pytest.mark.parametrize("mode", MODES)
def test_without_berts_branch_it_is_the_plain_model(sizes, source, target, view, mode):
    plain = Transformer(sizes, seed=1).eval()
    fused = fuse(plain, WIDTH, mode).eval()
    assert (fused(source, target, view) - plain(source, target)).abs().max() > 0.01
    with branches(fused, 1.0, 0.0):
        assert torch.equal(fused(source, target, view), plain(source, target))
        assert torch.equal(fused(source, target), plain(source, target))  # and needs no BERT


def test_one_seed_gives_one_start_to_what_both_models_have(sizes):
    plain, fused = Transformer(sizes, seed=5).state_dict(), Transformer(sizes, fusion(), seed=5).state_dict()
    assert all(torch.equal(value, fused[name]) for name, value in plain.items())
    assert all(".bert_attn." in name for name in fused.keys() - plain.keys())
    other = Transformer(sizes, seed=6).state_dict()["embed_tokens.weight"]
    assert not torch.equal(other, plain["embed_tokens.weight"])


def test_separate_vocabularies_with_one_content_are_the_shared_one(sizes, source, target, view):
    joint, two = (Transformer(s, fusion(), seed=1).eval() for s in (sizes, replace(sizes, target_vocabulary=23)))
    tensors = joint.state_dict()
    two.load_state_dict(tensors | {"embed_targets.weight": tensors["embed_tokens.weight"]})
    assert torch.equal(two(source, target, view), joint(source, target, view))
    with torch.no_grad():
        two.embed_tokens.weight.mul_(2)  # the source alone hears of it
    assert torch.equal(two._embed(target, two._target_embedding), joint._embed(target))
    assert (two(source, target, view) - joint(source, target, view)).abs().max() > 0.01


def test_what_separate_vocabularies_cannot_do_is_refused(sizes):
    two = replace(sizes, target_vocabulary=31)
    with pytest.raises(InputError, match="the plain model has 31 entries in its vocabulary, the fused one 30"):
        warm_start(Transformer(replace(two, target_vocabulary=30)), Transformer(two).state_dict())
    with pytest.raises(InputError, match="share a vocabulary"):
        to_marian(Transformer(two))
    with pytest.raises(InputError, match="eos must lie"):
        replace(two, target_vocabulary=4, eos=4)


def test_the_start_is_that_of_the_official_code(sizes):
    """Bounds of the uniform draws; attn_B starts with larger weights than the native attention."""
    big = Transformer(replace(sizes, width=64, heads=4), fusion(), seed=0)
    layer = big.encoder.layers[0]
    bounds = {
        layer.self_attn.in_proj.weight: math.sqrt(6 / (4 * 64)),
        layer.bert_attn.q_proj.weight: math.sqrt(6 / (2 * 64)),
        layer.bert_attn.v_proj.weight: math.sqrt(6 / (64 + WIDTH)),
        layer.fc1.weight: math.sqrt(6 / (64 + 48)),
    }
    for weight, bound in bounds.items():
        assert 0.97 * bound < float(weight.detach().abs().max()) <= bound  # of 1500 draws or more, one is that near
    embedding = big.embed_tokens.weight
    assert not embedding[0].any()
    assert float(embedding[1:].detach().std()) == pytest.approx(64**-0.5, rel=0.1)
    assert not layer.fc1.bias.any()


def test_parameter_counts_are_the_papers_architecture():
    """IWSLT with 10,000 tokens and BERT-base: 5.1 + 12.6 + 18.9 = 36.7 million, and 12 x (2 d^2 + 2 d d_B) more.

    Built with one layer a side: the six are alike.
    """
    sizes, d, f = Architecture(vocabulary=10_000), 512, 1024
    assert (sizes.width, sizes.feed_forward, sizes.encoder_layers, sizes.decoder_layers) == (d, f, 6, 6)
    one = replace(sizes, vocabulary=40, longest=8, encoder_layers=1, decoder_layers=1)
    model = Transformer(one, Fusion())
    counts = {
        part: sum(value.numel() for name, value in model.named_parameters() if part in name and "bert" not in name)
        for part in ("encoder.layers", "decoder.layers", "embed")
    }
    attention, network, norm = 4 * (d * d + d), 2 * d * f + d + f, 2 * d
    assert counts["encoder.layers"] == attention + network + 2 * norm
    assert counts["decoder.layers"] == 2 * attention + network + 3 * norm
    assert counts["embed"] == 40 * d
    total = 6 * counts["encoder.layers"] + 6 * counts["decoder.layers"] + 10_000 * d
    assert total == 36_663_296
    fused = sum(value.numel() for name, value in model.named_parameters() if "bert" in name)
    assert 6 * fused == 12 * (2 * d * d + 2 * d * 768 + 4 * d) == 15_753_216


@pytest.mark.parametrize("mode", MODES)
def test_which_layers_are_fused(sizes, mode):
    names = [name for name, _ in Transformer(sizes, fusion(mode)).named_modules() if name.endswith("bert_attn")]
    encoder, decoder = (sum(name.startswith(side) for name in names) for side in ("encoder", "decoder"))
    assert (encoder, decoder) == {"encoder": (2, 0), "decoder": (0, 3)}.get(mode, (2, 3))
    gated = Transformer(sizes, fusion(mode, encoder_gates=(False, True), decoder_gates=(True, False, False)))
    assert [layer.bert_attn is not None for layer in gated.encoder] == [False, mode != "decoder"]
    assert [layer.bert_attn is not None for layer in gated.decoder] == [mode != "encoder", False, False]


def test_the_average_of_both_branches_is_taken_outside_of_training(sizes, source, target, view):
    """By hand for the first encoder layer: LN(x + 1/2 attn_S + 1/2 attn_B)."""
    model = Transformer(sizes, fusion(), seed=1).eval()
    layer, mask, bert_mask = next(iter(model.encoder)), (source != 0)[:, None, None], view.real[:, None, None]
    x = model.embed_tokens(source) * math.sqrt(32) + sinusoids(40, 32)[:9]
    native = layer.self_attn.attend(*layer.self_attn.itself(x), mask)
    bert = layer.bert_attn.attend(layer.bert_attn.queries(x), layer.bert_attn.memory(view.states), bert_mask)
    norm = layer.self_attn_layer_norm
    mixed = F.layer_norm(x + native / 2 + bert / 2, (32,), norm.weight, norm.bias)
    wanted = F.layer_norm(mixed + layer.fc2(F.relu(layer.fc1(mixed))), (32,))
    got = layer(x, mask, layer.bert_attn.memory(view.states), bert_mask, model.mixture)
    torch.testing.assert_close(got, wanted)


def test_nothing_is_drawn_outside_of_training(sizes, source, target, view):
    model = Transformer(sizes, fusion()).eval()
    before, outside = model.drop_net.generator.get_state(), torch.get_rng_state()
    assert torch.equal(model(source, target, view), model(source, target, view))
    assert torch.equal(model.drop_net.generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), outside)
    model.train()(source, target, view)
    assert not torch.equal(model.drop_net.generator.get_state(), before)


@pytest.mark.parametrize("skip", [True, False])
def test_with_a_rate_of_one_each_layer_trains_one_branch(sizes, source, target, view, skip):
    model = Transformer(sizes, fusion(drop_net=1.0, skip=skip), seed=3)
    model(source, target, view).square().sum().backward()
    for layer, native in [
        *((layer, layer.self_attn) for layer in model.encoder),
        *((layer, layer.encoder_attn) for layer in model.decoder),
    ]:
        assert learns(native) != learns(layer.bert_attn)
    if not skip:
        assert all(value.grad is not None for value in model.parameters())


def test_with_a_rate_of_zero_all_branches_train(sizes, source, target, view):
    model = Transformer(sizes, fusion(drop_net=0.0))
    model(source, target, view).square().sum().backward()
    assert all(learns(layer.bert_attn) and learns(layer.self_attn) for layer in [*model.encoder, *model.decoder])
    assert all(learns(layer.encoder_attn) for layer in model.decoder)


def learns(module: torch.nn.Module) -> bool:
    return any(value.grad is not None and bool(value.grad.any()) for value in module.parameters())


def test_the_future_does_not_reach_back_and_the_source_reaches_everything(sizes, source, target, view):
    model = Transformer(sizes, fusion(), seed=1).eval()
    before = model(source, target, view)
    changed = target.clone()
    changed[0, 4] = 22 if int(target[0, 4]) != 22 else 21
    after = model(source, changed, view)
    assert torch.equal(after[0, :4], before[0, :4])
    assert ((after[0, 4:] - before[0, 4:]).abs().amax(-1) > 1e-4).all()
    assert torch.equal(after[1:], before[1:])
    other = source.clone()
    other[0, 2] = 22 if int(source[0, 2]) != 22 else 21
    assert ((model(other, target, view)[0] - before[0]).abs().amax(-1) > 1e-4).all()
    states = view.states.clone()
    states[0, 1] += 1
    assert ((model(source, target, BertView(states, view.real))[0] - before[0]).abs().amax(-1) > 1e-4).all()


def test_padding_does_not_matter(sizes, source, target, view):
    """A sentence alone, without padding, has the logits that it has in the batch."""
    model = Transformer(sizes, fusion(), seed=1).eval()
    together = model(source, target, view)
    for row in range(3):
        words, length = int(view.real[row].sum()), int((source[row] != 0).sum())
        alone = BertView(view.states[row : row + 1, :words], view.real[row : row + 1, :words])
        wanted = model(source[row : row + 1, :length], target[row : row + 1], alone)
        torch.testing.assert_close(together[row : row + 1], wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_a_fused_layer(mode):
    """Finite differences in double precision, through both branches; d = 8, h = 2."""
    sizes = Architecture(
        vocabulary=6, width=8, feed_forward=6, heads=2, encoder_layers=1, decoder_layers=1, dropout=0.0
    )
    model = Transformer(sizes, Fusion(mode=mode, bert_width=5, drop_net=0.0), seed=0).double()
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(2, 3, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 4, 8, generator=draw, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 3, 8, generator=draw, dtype=torch.float64, requires_grad=True)
    real, words = torch.ones(2, 4, dtype=torch.bool), torch.tensor([[True, True, False], [True] * 3])

    def forward(x: Tensor, y: Tensor, states: Tensor) -> Tensor:
        return model.decode_embedded(y, model.encode_embedded(x, real, BertView(states, words)))

    assert torch.autograd.gradcheck(forward, (x, y, states), fast_mode=True)


def test_positions():
    """p_t: fairseq's last frequency is exactly 1/10000, Marian's just above it."""
    for kind, last in (("fairseq", 1e-4), ("marian", 10000 ** -(15 / 16))):
        table = sinusoids(50, 32, kind)
        assert table[7, 0] == pytest.approx(math.sin(7), abs=1e-6)
        assert table[7, 16] == pytest.approx(math.cos(7), abs=1e-6)
        assert table[40, 15] == pytest.approx(math.sin(40 * last), abs=1e-6)


def test_attention_can_be_watched(sizes, source, target, view):
    model = Transformer(sizes, fusion(), seed=1).eval()
    with watch(model) as watched:
        model(source, target, view)
    weights = watched["decoder.layers.2.bert_attn"][0]
    assert weights.shape == (3, 4, 7, 8)
    assert not weights[0, ..., 3:].any()
    assert len(watched) == 2 * 2 + 3 * 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 30}, "multiple of heads"),
        ({"heads": 0}, "heads must lie"),
        ({"dropout": 1.0}, "dropout must lie"),
        ({"pad": 23}, "pad must lie"),
        ({"activation": "tanh"}, "activation must be one of"),
    ],
)
def test_impossible_sizes_are_refused(sizes, change, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        replace(sizes, **change)
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)


def test_misuse_is_refused_in_words(sizes, source, target, view):
    model = Transformer(sizes, fusion()).eval()
    with pytest.raises(InputError, match="give `bert`"):
        model(source, target)
    with pytest.raises(InputError, match=r"must be \(3, words, 24\)"):
        model(source, target, BertView(view.states[:, :, :20], view.real))
    with pytest.raises(InputError, match="takes 40 at most"):
        model(torch.ones(1, 41, dtype=torch.long), target[:1], BertView(view.states[:1], view.real[:1]))
    with pytest.raises(InputError, match="encoder_gates must name each of the 2 layers"):
        Transformer(sizes, fusion(encoder_gates=(True,)))
    with pytest.raises((InputError, TypeCheckError), match="mode"):
        Fusion(mode="sideways")  # type: ignore[arg-type]
    assert PLAIN.widths("encoder", 2) == [None, None]
