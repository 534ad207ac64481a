"""Translating with the model: the source is encoded once, and every step computes the newest token alone.

BERT and the encoder run once a sentence; keys and values of both memories are computed once, too, and are shared by all
hypotheses of a sentence: the beam stands where positions stand in training. What grows is the cache of the decoder's
self-attention. A search in `labkit.text` drives the steps.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.bertfused.method.layers import SelfCache
from labkit.papers.bertfused.method.transformer import BertView, Encoded, Transformer
from labkit.text.search import BeamStep, Hypothesis, StepDecoder, beam_search, greedy, sample


class CachedDecoder:
    """A `StepDecoder` that computes one new token a step."""

    def __init__(self, model: Transformer, encoded: Encoded) -> None:
        self.model, self.encoded = model, encoded
        self.caches = [SelfCache() for _ in model.decoder.layers]
        self.position, self.beam = 0, 1

    def step(self, tokens: Int[Tensor, "batch beam"]) -> Float[Tensor, "batch beam vocabulary"]:
        self.beam = tokens.shape[1]
        y = self.model.embed_at(tokens, self.position)
        self.position += 1
        return self.model.logits(self.model.decode_embedded(y, self.encoded, self.caches))

    def select(self, parents: Int[Tensor, "batch beam"]) -> None:
        first = torch.arange(len(parents), device=parents.device)[:, None] * self.beam
        for cache in self.caches:
            cache.select((first + parents).flatten())

    def keep(self, sentences: Int[Tensor, " kept"]) -> None:
        self.encoded = self.encoded.select(sentences)
        rows = sentences[:, None] * self.beam + torch.arange(self.beam, device=sentences.device)
        for cache in self.caches:
            cache.select(rows.flatten())


class RecomputingDecoder:
    """A `StepDecoder` without a cache: every step runs the decoder over the whole prefix, as training does.

    What the cached one is tested and timed against.
    """

    def __init__(self, model: Transformer, encoded: Encoded) -> None:
        self.model, self.encoded = model, encoded
        self.prefix: Int[Tensor, "batch beam length"] | None = None

    def step(self, tokens: Int[Tensor, "batch beam"]) -> Float[Tensor, "batch beam vocabulary"]:
        new = tokens[:, :, None]
        self.prefix = new if self.prefix is None else torch.cat([self.prefix, new], 2)
        batch, beam = tokens.shape
        each = self.encoded.select(torch.arange(batch, device=tokens.device).repeat_interleave(beam))
        return self.model.logits(self.model.decode(self.prefix.flatten(0, 1), each)[:, -1]).unflatten(0, (batch, beam))

    def select(self, parents: Int[Tensor, "batch beam"]) -> None:
        assert self.prefix is not None
        self.prefix = self.prefix[torch.arange(len(parents), device=parents.device)[:, None], parents]

    def keep(self, sentences: Int[Tensor, " kept"]) -> None:
        assert self.prefix is not None
        self.prefix, self.encoded = self.prefix[sentences], self.encoded.select(sentences)


def translate_ids(
    model: Transformer,
    source: Int[Tensor, "batch source"],
    bert: BertView | None = None,
    *,
    beam: int = 5,
    length_penalty: float = 1.0,
    longest: tuple[float | int, int] = (1.5, 20),
    cache: bool = True,
    early: bool = True,
    on_step: Callable[[BeamStep], None] | None = None,
) -> list[list[Hypothesis]]:
    """Translations of token ids: of each sentence up to `beam`, best first; beam 1 is greedy search.

    Args:
        source: ids that end with eos, padded on the right.
        longest: (a, b): an output has at most a |x| + b tokens. [ours; fairseq's default is 0 |x| + 200]
        cache: False recomputes every prefix: the same outputs, much slower.
        early, on_step: see `beam_search`.

    Raises:
        InputError: see `Transformer.encode` and `beam_search`.
    """
    sizes = model.sizes
    with torch.inference_mode(), _evaluating(model):
        decoder, limits = _begin(model, model.encode(source, bert), longest, cache)
        forbidden = (sizes.pad, sizes.bos)
        if beam == 1 and on_step is None:
            hypotheses = greedy(decoder, limits, bos=sizes.bos, eos=sizes.eos, forbidden=forbidden)
            return [[h._replace(score=h.log_prob / (len(h.tokens) + 1) ** length_penalty)] for h in hypotheses]
        return beam_search(
            decoder, limits, beam=beam, bos=sizes.bos, eos=sizes.eos, length_penalty=length_penalty,
            forbidden=forbidden, early=early, on_step=on_step,
        )  # fmt: skip


def sample_ids(
    model: Transformer,
    source: Int[Tensor, "batch source"],
    bert: BertView | None,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    top: int = 0,
    longest: tuple[float | int, int] = (1.5, 20),
) -> list[Hypothesis]:
    """One translation a sentence, drawn from the model; see `sample`."""
    sizes = model.sizes
    with torch.inference_mode(), _evaluating(model):
        decoder, limits = _begin(model, model.encode(source, bert), longest, cache=True)
        return sample(
            decoder, limits, generator, bos=sizes.bos, eos=sizes.eos, temperature=temperature, top=top,
            forbidden=(sizes.pad, sizes.bos),
        )  # fmt: skip


def score_ids(model: Transformer, encoded: Encoded, target: Int[Tensor, "batch target"]) -> Float[Tensor, " batch"]:
    """log p of whole translations, by teacher forcing; `target` ends with eos and is padded on the right."""
    start = torch.full_like(target[:, :1], model.sizes.bos)
    log_probs = model.logits(model.decode(torch.cat([start, target[:, :-1]], 1), encoded)).log_softmax(-1)
    each = log_probs.gather(2, target[:, :, None])[:, :, 0]
    return each.masked_fill(target == model.sizes.pad, 0).sum(1)


def _begin(
    model: Transformer, encoded: Encoded, longest: tuple[float | int, int], cache: bool
) -> tuple[StepDecoder, Int[Tensor, " batch"]]:
    factor, more = longest
    if not 0 <= factor <= 1000 or not 1 <= more <= 2**20:
        raise InputError(f"longest is (a, b) with a of at least 0 and b of at least 1; got {longest}.")
    limits = (encoded.mask.sum(-1).flatten() * factor + more).long().clamp_max(model.sizes.longest)
    return (CachedDecoder if cache else RecomputingDecoder)(model, encoded), limits


class _evaluating:
    """Dropout and drop-net off inside of the block, and as before after it."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.before = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.before)
