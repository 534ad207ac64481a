"""Search over a model whose every probability is written in a table: against all outputs there are."""

import functools
import itertools
import math
from collections import Counter

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.text.search import BeamStep, beam_search, greedy, sample

BOS, EOS, VOCABULARY = 1, 2, 4


@functools.cache
def table_row(vocabulary: int, *key: object) -> Tensor:
    seed = hash(key) % 2**31  # of numbers: the same in every process
    return 2 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))


class Table:
    """p(next | prefix) drawn once for every sentence and prefix; EOS is as likely as any word."""

    def __init__(self, sentences: int, vocabulary: int = VOCABULARY, seed: int = 0, deaf: bool = False) -> None:
        self.vocabulary, self.seed, self.deaf = vocabulary, seed, deaf
        self.rows = list(range(sentences))
        self.prefixes: list[list[tuple[int, ...]]] = []

    def logits(self, sentence: int, prefix: tuple[int, ...]) -> Tensor:
        return table_row(self.vocabulary, self.seed, sentence, prefix)

    def step(self, tokens: Tensor) -> Tensor:
        if not self.prefixes:
            self.prefixes = [[()] * tokens.shape[1] for _ in self.rows]
        self.prefixes = [
            [(*prefix, token) for prefix, token in zip(row, new, strict=True)]
            for row, new in zip(self.prefixes, tokens.tolist(), strict=True)
        ]
        return torch.stack(
            [torch.stack([self.logits(s, p[1:]) for p in row]) for s, row in zip(self.rows, self.prefixes, strict=True)]
        )

    def select(self, parents: Tensor) -> None:
        if not self.deaf:
            chosen = zip(self.prefixes, parents.tolist(), strict=True)
            self.prefixes = [[row[parent] for parent in new] for row, new in chosen]

    def keep(self, sentences: Tensor) -> None:
        kept = sentences.tolist()
        self.rows, self.prefixes = [self.rows[row] for row in kept], [self.prefixes[row] for row in kept]

    def log_prob(self, sentence: int, tokens: tuple[int, ...]) -> float:
        """Of an output and its end."""
        return sum(
            float(self.logits(sentence, tokens[:t]).log_softmax(-1)[token]) for t, token in enumerate((*tokens, EOS))
        )


def every_output(table: Table, sentence: int, limit: int, alpha: float) -> list[tuple[float, tuple[int, ...]]]:
    words = [token for token in range(table.vocabulary) if token != EOS]
    outputs = [output for length in range(limit) for output in itertools.product(words, repeat=length)]
    scored = [(table.log_prob(sentence, o) / (len(o) + 1) ** alpha, o) for o in outputs]
    return sorted(scored, reverse=True)


def search(table: Table, limits: list[int], beam: int, alpha: float = 1.0, **options: object) -> list:
    return beam_search(
        table, torch.tensor(limits, dtype=torch.long), beam=beam, bos=BOS, eos=EOS, length_penalty=alpha, **options
    )


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("early", [True, False])
def test_a_wide_beam_finds_the_best_of_all_outputs(alpha, early):
    """Beam |V|^n: nothing is pruned, so that all outputs come out, in the order of their scores."""
    for sentence, hypotheses in enumerate(search(Table(3), [3] * 3, 64, alpha, early=early)):
        wanted = every_output(Table(3), sentence, 3, alpha)
        assert len(hypotheses) == len(wanted) == 1 + 3 + 9
        for hypothesis, (score, output) in zip(hypotheses, wanted, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-5)
            assert tuple(hypothesis.tokens) == output


def test_no_narrower_beam_finds_more_than_one_that_prunes_nothing():
    best = [hypotheses[0].score for hypotheses in search(Table(20), [4] * 20, 4**4, early=False)]
    for beam in (1, 2):
        narrow = [hypotheses[0].score for hypotheses in search(Table(20), [4] * 20, beam, early=False)]
        assert all(n <= b + 1e-5 for n, b in zip(narrow, best, strict=True))
        assert any(n < b - 1e-3 for n, b in zip(narrow, best, strict=True))


def test_a_model_that_does_not_hear_its_parents_is_noticed():
    hypotheses = search(Table(3, deaf=True), [3] * 3, 64)
    assert [tuple(h.tokens) for h in hypotheses[0]] != [output for _, output in every_output(Table(3), 0, 3, 1.0)]


def test_beam_one_is_greedy_search():
    limits = torch.full((20,), 6)
    alone = greedy(Table(20), limits, bos=BOS, eos=EOS)
    for one, hypotheses in zip(alone, search(Table(20), limits.tolist(), 1), strict=True):
        assert len(hypotheses) == 1
        assert one.tokens == hypotheses[0].tokens
        assert one.log_prob == pytest.approx(hypotheses[0].log_prob, abs=1e-5)


@pytest.mark.parametrize("beam", [2, 3])
def test_scores_are_those_of_the_model(beam):
    table = Table(10)
    for sentence, hypotheses in enumerate(search(Table(10), [5] * 10, beam, 0.6)):
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for hypothesis in hypotheses:
            log_prob = table.log_prob(sentence, tuple(hypothesis.tokens))
            assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-5)
            assert hypothesis.score == pytest.approx(log_prob / (len(hypothesis.tokens) + 1) ** 0.6, abs=1e-5)


def test_waiting_never_finds_less_than_stopping_early():
    early, late = (search(Table(40), [7] * 40, 3, 1.0, early=early) for early in (True, False))
    gains = [b[0].score - a[0].score for a, b in zip(early, late, strict=True)]
    assert min(gains) >= -1e-6
    assert max(gains) > 1e-3  # and sometimes more


@pytest.mark.parametrize("beam", [1, 3])
def test_a_sentence_comes_out_the_same_in_any_company(beam):
    """Sentences leave the batch when they are done, at different steps; limits are their own."""
    limits = [1, 5, 2, 7, 4, 5]
    together = search(Table(6), limits, beam)
    for sentence, limit in enumerate(limits):
        table = Table(1)
        table.rows = [sentence]
        assert search(table, [limit], beam)[0] == together[sentence]
        assert all(len(h.tokens) < limit for h in together[sentence])
    assert [h.tokens for h in together[0]] == [[]]  # room for the end alone


def test_forbidden_tokens_are_not_written():
    for hypotheses in search(Table(10), [6] * 10, 3, forbidden=(0, BOS)):
        assert {token for hypothesis in hypotheses for token in hypothesis.tokens} <= {3}


def test_who_looks_on_sees_every_candidate():
    steps: list[BeamStep] = []
    hypotheses = search(Table(2), [4, 4], 2, on_step=steps.append)
    assert [step.tokens.shape[1] for step in steps] == [4] * len(steps)
    for step in steps:
        assert (step.log_probs.diff(dim=1) <= 0).all()
        assert not (step.tokens.gather(1, step.survivors) == EOS)[
            step.log_probs.gather(1, step.survivors) > -math.inf
        ].any()
    ended = Counter(
        int(s)
        for step in steps
        for s, f in zip(step.sentences, step.finished, strict=True)
        for _ in range(int(f.sum()))
    )
    assert all(ended[sentence] >= len(each) for sentence, each in enumerate(hypotheses))


def test_samples_have_the_models_frequencies():
    """2000 draws of the first token: chi-square with 3 degrees of freedom, below 21.1 with probability 1 - 1e-4."""
    table = Table(2000)
    table.rows = [0] * 2000
    draws = sample(table, torch.full((2000,), 2), torch.Generator().manual_seed(0), bos=BOS, eos=EOS)
    counts = Counter(h.tokens[0] if h.tokens else EOS for h in draws)
    expected = 2000 * Table(1).logits(0, ()).softmax(-1)
    assert sum((counts[t] - float(e)) ** 2 / float(e) for t, e in enumerate(expected)) < 21.1


def test_a_sample_among_the_one_most_probable_is_greedy():
    limits = torch.full((10,), 5)
    drawn = sample(Table(10), limits, torch.Generator().manual_seed(0), bos=BOS, eos=EOS, top=1)
    assert [h.tokens for h in drawn] == [h.tokens for h in greedy(Table(10), limits, bos=BOS, eos=EOS)]


def test_samples_depend_on_their_generator_alone():
    def draw(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [h.tokens for h in sample(Table(30), torch.full((30,), 5), generator, bos=BOS, eos=EOS)]

    assert draw(1) == draw(1) != draw(2)


def test_no_sentence_no_output():
    assert search(Table(0), [], 3) == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: search(Table(1), [3], 0), "beam must lie"),
        (lambda: search(Table(1), [0], 2), "limits must hold"),
        (lambda: search(Table(1), [3], 2, math.nan), "length_penalty must lie"),
        (
            lambda: sample(Table(1), torch.tensor([3]), torch.Generator(), bos=BOS, eos=EOS, temperature=0.0),
            "temperature must lie",
        ),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises((InputError, TypeCheckError), match=words):
        call()
