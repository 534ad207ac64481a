"""Greedy search, beam search and sampling for any model that gives the next token's logits.

    score(y) = sum_t log p(y_t | y_<t, x) / |y|^alpha        |y| counts the end of the sentence

As in fairseq: 2 k candidates a step from k hypotheses; what ends among the first k is finished, the first k others go
on; the first step goes out from one hypothesis; at its limit a sentence has to end. transformers' `generate` does the
same. A sentence that is done leaves the batch, so that the others get faster.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.ranges import within


@runtime_checkable
class StepDecoder(Protocol):
    """A model in the middle of decoding a batch of sentences, each with `beam` hypotheses."""

    def step(self, tokens: Int[Tensor, "batch beam"]) -> Float[Tensor, "batch beam vocabulary"]:
        """Append a token to each hypothesis; logits of the one after it."""
        ...

    def select(self, parents: Int[Tensor, "batch beam"]) -> None:
        """Hypothesis k of sentence b becomes what parents[b, k] of the same sentence was."""
        ...

    def keep(self, sentences: Int[Tensor, " survivors"]) -> None:
        """Only these sentences go on."""
        ...


class Hypothesis(NamedTuple):
    """An output: its tokens without the one that ends it, log p of them all, and log p / length^alpha."""

    tokens: list[int]
    log_prob: float
    score: float


class BeamStep(NamedTuple):
    """What a beam search considered at one step, best first: for those who want to look on."""

    sentences: Int[Tensor, " batch"]
    """Which of the given sentences the rows are."""
    parents: Int[Tensor, "batch candidates"]
    tokens: Int[Tensor, "batch candidates"]
    log_probs: Float[Tensor, "batch candidates"]
    """Of the whole hypothesis."""
    finished: Bool[Tensor, "batch candidates"]
    survivors: Int[Tensor, "batch beam"]
    """Which candidates go on, as numbers of columns."""


@dataclass
class _Beams:
    """Rows of sentences that are not done, and of each its hypotheses that have not ended."""

    sentences: Int[Tensor, " batch"]
    limits: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch beam length"]
    log_probs: Float[Tensor, "batch beam"]

    def keep(self, rows: Int[Tensor, " survivors"]) -> None:
        self.sentences, self.limits = self.sentences[rows], self.limits[rows]
        self.tokens, self.log_probs = self.tokens[rows], self.log_probs[rows]


def beam_search(
    decoder: StepDecoder,
    limits: Int[Tensor, " batch"],
    *,
    beam: int,
    bos: int,
    eos: int,
    length_penalty: float = 1.0,
    forbidden: Sequence[int] = (),
    early: bool = True,
    on_step: Callable[[BeamStep], None] | None = None,
) -> list[list[Hypothesis]]:
    """Up to `beam` finished hypotheses of each sentence, best score first.

    Args:
        decoder: holds `beam` hypotheses of each sentence, all of them empty.
        limits: tokens that each output may have, the one that ends it included.
        length_penalty: alpha; 0 compares log p itself, which favours short outputs.
        forbidden: tokens that are never written, such as padding.
        early: a sentence is done when `beam` of its hypotheses have ended [official code]; otherwise when none that
            goes on can still be better than those that ended.

    Raises:
        InputError: beam, limits or penalty out of range.
    """
    within(1, 10_000, beam=beam)
    within(-10, 10, length_penalty=length_penalty)
    _check_limits(limits)
    finished: list[list[Hypothesis]] = [[] for _ in limits]
    beams = _Beams(
        sentences=torch.arange(len(limits), device=limits.device),
        limits=limits,
        tokens=limits.new_full((len(limits), beam, 1), bos),
        log_probs=torch.full((len(limits), beam), -math.inf, device=limits.device),
    )
    beams.log_probs[:, 0] = 0  # all hypotheses are the same at first: one speaks for them
    length = 0
    while len(beams.sentences):
        length += 1
        log_probs = _log_probs(decoder.step(beams.tokens[:, :, -1]), forbidden, eos, beams.limits == length)
        step = _best_candidates(beams, log_probs, eos)
        if on_step is not None:
            on_step(step)
        _finish(beams, step, finished, length, length_penalty)
        _go_on(beams, step, eos)
        if beam > 1:
            decoder.select(step.parents.gather(1, step.survivors))
        alive = _alive(beams, finished, length, length_penalty, early)
        if not all(alive):
            rows = torch.tensor([row for row, yes in enumerate(alive) if yes], dtype=torch.long, device=limits.device)
            beams.keep(rows)
            decoder.keep(rows)
    return finished


def greedy(
    decoder: StepDecoder, limits: Int[Tensor, " batch"], *, bos: int, eos: int, forbidden: Sequence[int] = ()
) -> list[Hypothesis]:
    """The most probable next token, again and again; for a decoder with one hypothesis a sentence."""
    return _one_by_one(decoder, limits, lambda log_probs: log_probs.argmax(-1), bos, eos, forbidden)


def sample(
    decoder: StepDecoder,
    limits: Int[Tensor, " batch"],
    generator: torch.Generator,
    *,
    bos: int,
    eos: int,
    temperature: float = 1.0,
    top: int = 0,
    forbidden: Sequence[int] = (),
) -> list[Hypothesis]:
    """Outputs drawn from the model, one a sentence: what back-translation likes better than the best ones.

    Args:
        temperature: below 1 the probable becomes more so.
        top: draw among so many of the most probable tokens; 0: all.

    Raises:
        InputError: a temperature that is not above 0.
    """
    within(1e-3, 1e3, temperature=temperature)

    def draw(log_probs: Tensor) -> Tensor:
        scaled = log_probs / temperature
        if 0 < top < scaled.shape[-1]:
            scaled = scaled.masked_fill(scaled < scaled.topk(top).values[:, -1:], -math.inf)
        probabilities = scaled.softmax(-1).to(generator.device)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(log_probs.device)

    return _one_by_one(decoder, limits, draw, bos, eos, forbidden)


def _one_by_one(
    decoder: StepDecoder,
    limits: Int[Tensor, " batch"],
    choose: Callable[[Tensor], Tensor],
    bos: int,
    eos: int,
    forbidden: Sequence[int],
) -> list[Hypothesis]:
    """One hypothesis a sentence; `choose` picks tokens (batch) from log-probabilities (batch, vocabulary)."""
    _check_limits(limits)
    outputs: list[list[int]] = [[] for _ in limits]
    totals, sentences = [0.0] * len(limits), list(range(len(limits)))
    tokens, length = torch.full_like(limits, bos), 0
    while sentences:
        length += 1
        log_probs = _log_probs(decoder.step(tokens[:, None]), forbidden, eos, limits == length)[:, 0]
        tokens = choose(log_probs)
        chosen, gains = tokens.tolist(), log_probs.gather(1, tokens[:, None])[:, 0].tolist()
        for sentence, token, gain in zip(sentences, chosen, gains, strict=True):
            outputs[sentence].append(token)
            totals[sentence] += gain
        rows = [row for row, token in enumerate(chosen) if token != eos]
        if len(rows) < len(sentences):
            survivors = torch.tensor(rows, dtype=torch.long, device=limits.device)
            tokens, limits, sentences = tokens[survivors], limits[survivors], [sentences[row] for row in rows]
            decoder.keep(survivors)
    return [Hypothesis(out[:-1], total, total / len(out)) for out, total in zip(outputs, totals, strict=True)]


def _log_probs(
    logits: Float[Tensor, "batch beam vocabulary"], forbidden: Sequence[int], eos: int, last: Bool[Tensor, " batch"]
) -> Float[Tensor, "batch beam vocabulary"]:
    """log p of the next token; -inf for what must not be written, and for all but `eos` where a sentence has to end."""
    log_probs = logits.float().log_softmax(-1)
    log_probs[..., [token for token in forbidden if token != eos]] = -math.inf
    ends = torch.arange(logits.shape[-1], device=logits.device) == eos
    return log_probs.masked_fill(last[:, None, None] & ~ends, -math.inf)


def _best_candidates(beams: _Beams, log_probs: Float[Tensor, "batch beam vocabulary"], eos: int) -> BeamStep:
    beam, vocabulary = log_probs.shape[1:]
    totals = (beams.log_probs[:, :, None] + log_probs).flatten(1)
    best, places = totals.topk(min(2 * beam, beam * vocabulary))
    parents, tokens = places // vocabulary, places % vocabulary
    ends, columns = tokens == eos, torch.arange(best.shape[1], device=best.device)
    finished = ends & (columns < beam) & (best > -math.inf)
    order = (columns + ends * best.shape[1]).argsort(-1)[:, :beam]  # those that do not end first, best first
    if order.shape[1] < beam:  # a vocabulary of one token
        order = torch.cat([order, order[:, -1:].expand(-1, beam - order.shape[1])], 1)
    return BeamStep(beams.sentences, parents, tokens, best, finished, order)


def _finish(
    beams: _Beams, step: BeamStep, finished: list[list[Hypothesis]], length: int, length_penalty: float
) -> None:
    """Note the hypotheses that ended; of each sentence the best stay, as many as the beam is wide."""
    for row, column in step.finished.nonzero().tolist():
        sentence, log_prob = int(step.sentences[row]), float(step.log_probs[row, column])
        tokens = beams.tokens[row, step.parents[row, column], 1:].tolist()
        pool = finished[sentence]
        pool.append(Hypothesis(tokens, log_prob, log_prob / length**length_penalty))
        pool.sort(key=lambda hypothesis: -hypothesis.score)
        del pool[beams.tokens.shape[1] :]


def _go_on(beams: _Beams, step: BeamStep, eos: int) -> None:
    """Each hypothesis becomes the candidate that was kept; where too few do not end, impossible ones fill the beam."""
    rows = torch.arange(len(step.survivors), device=step.survivors.device)[:, None]
    parents, tokens = step.parents.gather(1, step.survivors), step.tokens.gather(1, step.survivors)
    beams.tokens = torch.cat([beams.tokens[rows, parents], tokens[:, :, None]], 2)
    beams.log_probs = step.log_probs.gather(1, step.survivors).masked_fill(tokens == eos, -math.inf)


def _alive(
    beams: _Beams, finished: list[list[Hypothesis]], length: int, length_penalty: float, early: bool
) -> list[bool]:
    """Which sentences go on."""
    beam, alive = beams.tokens.shape[1], []
    best, limits = beams.log_probs.max(1).values.tolist(), beams.limits.tolist()
    for sentence, log_prob, limit in zip(beams.sentences.tolist(), best, limits, strict=True):
        pool = finished[sentence]
        longest = limit if length_penalty > 0 else length + 1  # log p falls from here on: no output scores higher
        hopeless = len(pool) >= beam and (early or pool[-1].score >= log_prob / longest**length_penalty)
        alive.append(log_prob > -math.inf and not hopeless)
    return alive


def _check_limits(limits: Int[Tensor, " batch"]) -> None:
    if limits.dim() != 1 or limits.is_floating_point() or (len(limits) and int(limits.min()) < 1):
        raise InputError("limits must hold one whole number of at least 1 for each sentence.")
