"""Decoding: the cache against teacher forcing, the search against transformers' `generate`."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.bertfused.method.decoding import (
    CachedDecoder,
    RecomputingDecoder,
    sample_ids,
    score_ids,
    translate_ids,
)
from labkit.papers.bertfused.method.transformer import Architecture, BertView, Fusion, Transformer, branches
from labkit.papers.bertfused.method.warm_start import fuse

SHORT = (0.5, 4)  # tokens of an output, for models that seldom end by themselves
MODES = ["off", "encoder", "decoder", "both", "stacked"]
EOS = 2
unchecked = pytest.mark.shapes_unchecked


def model_of(sizes: Architecture, mode: str = "both", seed: int = 3) -> Transformer:
    """With larger embeddings than at the start: what follows depends on the words, and outputs end now and then."""
    model = Transformer(sizes, Fusion(mode=mode, bert_width=24), seed).eval()
    with torch.no_grad():
        model.embed_tokens.weight.mul_(2.5)
    return model


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_step_by_step_is_teacher_forcing(sizes, source, target, view, mode):
    model = model_of(sizes, mode)
    encoded = model.encode(source, view)
    wanted = model.logits(model.decode(target, encoded))
    decoder = CachedDecoder(model, encoded)
    for position in range(target.shape[1]):
        logits = decoder.step(target[:, position : position + 1])[:, 0]
        torch.testing.assert_close(logits, wanted[:, position], rtol=0, atol=2e-5)


@torch.no_grad()
def test_a_vocabulary_of_the_targets_own_is_searched_as_it_is_trained(sizes, source, view):
    """Its tokens go beyond the source's 23; each one's score is that of teacher forcing."""
    model = Transformer(replace(sizes, target_vocabulary=60), Fusion(bert_width=24), 3).eval()
    model.embed_targets.weight.mul_(2.5)
    written = set()
    for row, hypotheses in enumerate(translate_ids(model, source, view, beam=3, longest=SHORT)):
        one = BertView(view.states[row : row + 1], view.real[row : row + 1])
        for best in hypotheses:
            written |= set(best.tokens)
            forced = score_ids(model, model.encode(source[row : row + 1], one), torch.tensor([[*best.tokens, EOS]]))
            assert float(forced) == pytest.approx(best.log_prob, abs=1e-4)
    assert max(written) >= 23


@unchecked
@torch.no_grad()
def test_hypotheses_can_be_exchanged_and_sentences_can_leave(sizes, source, view):
    """Three prefixes a sentence, mixed after every token, a sentence gone after four: each row is its own prefix."""
    model, draw = model_of(sizes), torch.Generator().manual_seed(4)
    encoded = model.encode(source, view)
    cached, plain = CachedDecoder(model, encoded), RecomputingDecoder(model, encoded)
    rows = 3
    for position in range(18):  # past the first doubling of the cache
        tokens = torch.randint(3, 23, (rows, 3), generator=draw)
        torch.testing.assert_close(cached.step(tokens), plain.step(tokens), rtol=0, atol=3e-5)
        parents = torch.randint(0, 3, (rows, 3), generator=draw)
        kept = torch.tensor([2, 0])
        for decoder in (cached, plain):
            decoder.select(parents)
            if position == 4:
                decoder.keep(kept)
        rows = 2 if position >= 4 else 3


def outputs(batch: list) -> list[list[list[int]]]:
    return [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in batch]


@pytest.mark.parametrize("mode", [*(pytest.param(m, marks=unchecked) for m in MODES if m != "both"), "both"])
def test_the_cache_changes_nothing_but_the_time(sizes, source, view, mode):
    model = model_of(sizes, mode)
    cached, plain = (translate_ids(model, source, view, beam=3, longest=SHORT, cache=cache) for cache in (True, False))
    assert outputs(cached) == outputs(plain)
    scores = [[h.score for batch in each for h in batch] for each in (cached, plain)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-5)


@unchecked
@pytest.mark.parametrize(("mode", "beam"), [("encoder", 3), ("decoder", 3), ("stacked", 3), ("both", 3), ("both", 1)])
def test_without_berts_branch_it_says_what_the_plain_model_says(sizes, source, view, mode, beam):
    plain = model_of(sizes, "off")
    fused = fuse(plain, 24, mode)
    wanted = translate_ids(plain, source, beam=beam, longest=SHORT)
    with branches(fused, 1.0, 0.0):
        assert translate_ids(fused, source, view, beam=beam, longest=SHORT) == wanted
    assert translate_ids(fused, source, view, beam=beam, longest=SHORT) != wanted


@unchecked
def test_company_changes_nothing(sizes, source, view):
    model = model_of(sizes)
    together = outputs(translate_ids(model, source, view, beam=3, longest=SHORT))
    order = torch.tensor([2, 0, 1])
    assert outputs(translate_ids(model, source[order], BertView(*(v[order] for v in view)), beam=3, longest=SHORT)) == [
        together[row] for row in order
    ]
    for row in range(3):
        length, words = int((source[row] != 0).sum()), int(view.real[row].sum())
        alone = BertView(view.states[row : row + 1, :words], view.real[row : row + 1, :words])
        assert outputs(translate_ids(model, source[row : row + 1, :length], alone, beam=3, longest=SHORT)) == [
            together[row]
        ]


@pytest.mark.parametrize("beam", [1, 4])
@torch.no_grad()
def test_scores_are_those_of_teacher_forcing(sizes, source, view, beam):
    model = model_of(sizes)
    decoded = translate_ids(model, source, view, beam=beam, length_penalty=0.6, longest=SHORT)
    encoded = model.encode(source, view)
    for row, hypotheses in enumerate(decoded):
        assert len(hypotheses) == beam
        for h in hypotheses:
            target = torch.tensor([[*h.tokens, EOS]])
            log_prob = float(score_ids(model, encoded.select(torch.tensor([row])), target))
            assert h.log_prob == pytest.approx(log_prob, abs=1e-4)
            assert h.score == pytest.approx(log_prob / target.shape[1] ** 0.6, abs=1e-4)


def test_a_wide_beam_finds_the_best_of_all_translations(view):
    """Four tokens, at most three a translation, so that 4^3 hypotheses hold all there are."""
    sizes = Architecture(
        vocabulary=5, width=16, feed_forward=16, heads=2, encoder_layers=1, decoder_layers=2, longest=9
    )
    model = model_of(sizes, seed=1)
    source = torch.tensor([[3, 4, 3, EOS], [4, EOS, 0, 0], [3, 3, EOS, 0]])
    decoded = translate_ids(model, source, view, beam=64, longest=(0, 3))
    targets = [(*words, EOS) for length in range(3) for words in itertools.product((3, 4), repeat=length)]
    with torch.no_grad():
        encoded = model.encode(source, view)
        for row in range(3):
            one = encoded.select(torch.tensor([row]))
            scores = {t[:-1]: float(score_ids(model, one, torch.tensor([t]))) / len(t) for t in targets}
            best = max(scores, key=lambda words: scores[words])
            assert tuple(decoded[row][0].tokens) == best
            assert decoded[row][0].score == pytest.approx(scores[best], abs=1e-5)
            assert len(decoded[row]) == len(targets)


@pytest.mark.slow
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize(("penalty", "early"), [(1.0, True), (0.6, False), (0.0, True)])
def test_it_is_what_transformers_generates(sizes, source, beam, penalty, early):
    """The plain model's weights in a Marian: the same hypotheses, the same scores.

    Where a sentence has to end, `generate` would write log p = 0 for its end; a processor of ours keeps log p.
    """
    transformers = pytest.importorskip("transformers")
    from labkit.papers.bertfused.method.marian import marian_inputs, to_marian

    class MustEnd(transformers.LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            if input_ids.shape[1] < 12:
                return scores
            only = torch.full_like(scores, float("-inf"))
            only[:, EOS] = scores[:, EOS]
            return only

    model = model_of(sizes, "off")
    marian = to_marian(model)
    options: dict[str, object] = {} if beam == 1 else {"length_penalty": penalty}
    if beam > 1:
        options["early_stopping"] = True if early else "never"
    marian.generation_config.forced_eos_token_id = None
    theirs = marian.generate(
        **marian_inputs(source, 0), num_beams=beam, num_return_sequences=beam, do_sample=False, max_new_tokens=12,
        suppress_tokens=[0, 1], logits_processor=[MustEnd()], output_scores=True, return_dict_in_generate=True,
        **options,
    )  # fmt: skip
    words = [[token for token in row if token > EOS] for row in theirs.sequences.tolist()]
    ours = translate_ids(model, source, beam=beam, length_penalty=penalty, longest=(0, 12), early=early)
    assert outputs(ours) == [words[i : i + beam] for i in range(0, 3 * beam, beam)]
    if beam > 1:
        scores = [h.score for hypotheses in ours for h in hypotheses]
        assert scores == pytest.approx(theirs.sequences_scores.tolist(), abs=1e-4)


def test_limits(sizes, source, view):
    model = model_of(sizes)
    for row in translate_ids(model, source, view, beam=2, longest=(0.5, 1)):
        assert all(len(h.tokens) < 5 for h in row)
    lengths = [len(row[0].tokens) for row in translate_ids(model, source, view, beam=1, longest=(1, 1))]
    assert all(length <= int((line != 0).sum()) for length, line in zip(lengths, source, strict=True))


def test_a_model_in_training_is_evaluated_and_goes_on_training(sizes, source, view):
    model = model_of(sizes)
    wanted = outputs(translate_ids(model, source, view, beam=2, longest=SHORT))
    model.train()
    before = model.drop_net.generator.get_state()
    assert outputs(translate_ids(model, source, view, beam=2, longest=SHORT)) == wanted
    assert model.training
    assert torch.equal(model.drop_net.generator.get_state(), before)


@unchecked
def test_samples(sizes, source, view):
    model = model_of(sizes)

    def draw(seed: int, **options: float) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [h.tokens for h in sample_ids(model, source, view, generator, longest=SHORT, **options)]

    assert draw(0) == draw(0) != draw(1)
    greedy = [row[0].tokens for row in translate_ids(model, source, view, beam=1, longest=SHORT)]
    assert draw(0, top=1) == greedy
    assert draw(0, temperature=0.001) == greedy


def test_misuse_is_refused(sizes, source, view):
    model = model_of(sizes)
    for options, words in [({"beam": 0}, "beam must lie"), ({"longest": (1.0, 0)}, "longest is"), ({}, "give `bert`")]:
        with pytest.raises(InputError, match=words):
            translate_ids(model, source, view if options else None, **options)
