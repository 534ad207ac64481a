"""CTC's decoders against all paths written down, against closed forms, and against flashlight-text."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labkit.errors import InputError
from labkit.text import ctc


def posteriors(time: int, labels: int, seed: int = 0, sharpness: float = 1.0) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(0, sharpness, (time, labels))
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


FOOLS_THE_BEST_PATH = np.log([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3]])
"""Blank is best in both steps, p(blank, blank) = .16; but 'a' has three paths, .12 + .12 + .09 = .33."""


@pytest.mark.parametrize(("time", "labels"), [(1, 3), (4, 2), (6, 3), (5, 4)])
def test_the_sum_over_paths_is_the_loss_of_torch_and_the_forward_recursion(time, labels):
    p = posteriors(time, labels)
    for labelling, wanted in ctc.labellings(p).items():
        assert ctc.log_likelihood(p, labelling) == pytest.approx(math.log(wanted), abs=1e-9)
        if labelling:
            loss = F.ctc_loss(
                torch.from_numpy(p)[:, None], torch.tensor([labelling]), torch.tensor([time]),
                torch.tensor([len(labelling)]), reduction="sum",
            )  # fmt: skip
            assert float(loss) == pytest.approx(-math.log(wanted), abs=1e-6)


def test_probabilities_of_all_labellings_add_up_to_one():
    assert sum(ctc.labellings(posteriors(5, 3)).values()) == pytest.approx(1, abs=1e-12)


def test_short_cases_by_hand():
    p = posteriors(1, 3)
    assert ctc.log_likelihood(p, [1]) == pytest.approx(p[0, 1])
    assert ctc.log_likelihood(posteriors(2, 3), [1, 1]) == -math.inf  # a blank must stand between
    assert ctc.shortest([1, 1, 2]) == 4
    assert ctc.collapse([0, 1, 1, 0, 1, 2, 2, 0]) == (1, 1, 2)


@pytest.mark.parametrize(("time", "n"), [(3, 1), (5, 2), (6, 3), (4, 4)])
def test_distinct_labels_have_as_many_paths_as_the_binomial_says(time, n):
    """With equal probabilities a labelling's is (number of paths) / V^T: C(T + n, 2 n) paths."""
    uniform = np.full((time, n + 1), -math.log(n + 1))
    paths = math.exp(ctc.log_likelihood(uniform, range(1, n + 1))) * (n + 1) ** time
    assert paths == pytest.approx(math.comb(time + n, 2 * n))


# -- decoders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_every_labelling_with_its_whole_probability(seed):
    p = posteriors(5, 3, seed, sharpness=0.5 + seed / 4)
    everything = ctc.labellings(p)
    hypotheses = ctc.beam_search(p, width=3**5)
    assert {h.labels for h in hypotheses} == everything.keys()
    for hypothesis in hypotheses:
        assert hypothesis.log_prob == pytest.approx(math.log(everything[hypothesis.labels]), abs=1e-9)
    assert [h.log_prob for h in hypotheses] == sorted((h.log_prob for h in hypotheses), reverse=True)


def test_the_best_labelling_is_not_that_of_the_best_path():
    assert ctc.greedy(FOOLS_THE_BEST_PATH).labels == ()
    best = ctc.beam_search(FOOLS_THE_BEST_PATH, 20)[0]
    assert best.labels in ((1,), (2,))
    assert math.exp(best.log_prob) == pytest.approx(0.33)


def test_a_beam_of_one_is_not_greedy_either():
    """It adds up paths: after 'a', blank and 'a' both stay with it, .3 + .3 against .4 for 'b', which greedy takes."""
    p = np.log([[0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
    assert ctc.greedy(p).labels == (1, 2)
    narrow = ctc.beam_search(p, 1)[0]
    assert narrow.labels == (1,)
    assert math.exp(narrow.log_prob) == pytest.approx(0.7 * 0.6)


def test_a_wider_beam_never_finds_less():
    for seed in range(10):
        p = posteriors(12, 6, seed, 2.0)
        best = [ctc.beam_search(p, width)[0].log_prob for width in (1, 4, 64)]
        assert best[2] >= best[0] - 1e-9
        assert best[2] <= ctc.log_likelihood(p, ctc.beam_search(p, 64)[0].labels) + 1e-9


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_narrow_beam_loses_nothing_by_looking_at_few_labels(width):
    """A slow search that looks at all labels keeps the same prefixes."""
    for seed in range(8):
        p = posteriors(9, 30, seed, 1.0)
        beam = [(h.labels, h.log_prob) for h in ctc.beam_search(p, width)]
        wanted = slow_beam(p, width)
        assert [labels for labels, _ in beam] == [labels for labels, _ in wanted]
        assert [score for _, score in beam] == pytest.approx([score for _, score in wanted])


def slow_beam(p, width):
    """Prefix beam search as in a textbook: a dictionary of prefixes, all labels, plain probabilities."""
    beam = {(): (1.0, 0.0)}
    for step in np.exp(p):
        grown = {}

        def add(prefix, in_blank, in_label, into=grown):
            old = into.get(prefix, (0.0, 0.0))
            into[prefix] = (old[0] + in_blank, old[1] + in_label)

        for prefix, (in_blank, in_label) in beam.items():
            add(prefix, (in_blank + in_label) * step[0], 0.0)
            for label in range(1, len(step)):
                if prefix and prefix[-1] == label:
                    add(prefix, 0.0, in_label * step[label])
                    add((*prefix, label), 0.0, in_blank * step[label])
                else:
                    add((*prefix, label), 0.0, (in_blank + in_label) * step[label])
        beam = dict(sorted(grown.items(), key=lambda entry: -sum(entry[1]))[:width])
    return [(prefix, math.log(sum(parts))) for prefix, parts in beam.items()]


@pytest.mark.parametrize("seed", range(5))
def test_flashlight_text_finds_the_same(seed):
    decoder = pytest.importorskip("flashlight.lib.text.decoder", reason="needs the extra 'peers'")
    p = posteriors(7, 4, seed, 1.5)
    options = decoder.LexiconFreeDecoderOptions(
        beam_size=4**7, beam_size_token=4, beam_threshold=1e9, lm_weight=0.0, sil_score=0.0, log_add=True,
        criterion_type=decoder.CriterionType.CTC,
    )  # fmt: skip
    peer = decoder.LexiconFreeDecoder(options, decoder.ZeroLM(), -1, 0, [])
    emissions = np.ascontiguousarray(p, dtype=np.float32)
    result = peer.decode(emissions.ctypes.data, *p.shape)[0]
    ours = ctc.beam_search(p, 4**7)[0]
    assert ctc.collapse([token for token in result.tokens if token >= 0]) == ours.labels
    assert result.score == pytest.approx(ours.log_prob, abs=1e-4)


# -- forced alignment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_forced_alignment_is_the_best_of_all_paths_of_the_labelling(seed):
    p, labels = posteriors(6, 3, seed), (1, 2, 2)
    paths = [path for path in itertools.product(range(3), repeat=6) if ctc.collapse(path) == labels]
    best = max(sum(p[t, c] for t, c in enumerate(path)) for path in paths)
    alignment = ctc.align(p, labels)
    assert alignment.log_prob == pytest.approx(best, abs=1e-12)
    assert ctc.collapse(alignment.path) == labels
    assert alignment.log_prob <= ctc.log_likelihood(p, labels)
    for label, (first, last) in zip(labels, alignment.spans, strict=True):
        assert set(alignment.path[first : last + 1]) == {label}


def test_an_empty_labelling_is_all_blank():
    p = posteriors(3, 2)
    assert ctc.align(p, ()).path == (0, 0, 0)
    assert ctc.log_likelihood(p, ()) == pytest.approx(p[:, 0].sum())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: ctc.greedy(p[0]), "table"),
        (lambda p: ctc.greedy(p[:0]), "table"),
        (lambda p: ctc.greedy(p + 3), "log_softmax"),
        (lambda p: ctc.greedy(p * np.nan), "log_softmax"),
        (lambda p: ctc.greedy(p, blank=9), "blank must be one of"),
        (lambda p: ctc.beam_search(p, 0), "at least 1"),
        (lambda p: ctc.align(p, [1, 1, 1]), "need 5 steps"),
        (lambda p: ctc.align(p, [7]), "labels lie between"),
        (lambda p: ctc.log_likelihood(p, [0]), "not the blank"),
        (lambda p: ctc.labellings(np.repeat(p, 20, 0)), "paths"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call(posteriors(3, 3))
