"""Token batches: every sentence once an epoch, no batch too large, the order known by two numbers."""

from itertools import islice

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.text.batches import TokenBatches, cut

LENGTHS = np.random.default_rng(0).integers(1, 40, (300, 3))


def test_every_sentence_once_an_epoch_and_no_batch_too_large():
    batches = TokenBatches(LENGTHS, 200, seed=1)
    for _ in range(2):
        epoch = list(islice(batches, len(batches)))
        assert sorted(np.concatenate(epoch)) == list(range(300))
        for rows in epoch:
            assert len(rows) * LENGTHS[rows].max() <= 200  # the longest of the three ways counts
        assert batches.position == len(batches)


def test_little_is_padding_and_epochs_differ():
    batches = TokenBatches(LENGTHS, 400)
    first, second = (list(islice(batches, len(batches))) for _ in range(2))
    longest = LENGTHS.max(1)
    padded = sum(len(rows) * longest[rows].max() for rows in first)
    assert longest.sum() / padded > 0.85  # in random order .55
    assert [list(rows) for rows in first] != [list(rows) for rows in second]
    starts = [longest[rows].max() for rows in first]
    assert starts != sorted(starts)


def test_a_resumed_run_goes_on_with_the_next_batch():
    whole = TokenBatches(LENGTHS, 200, seed=3)
    for _ in range(len(whole) + 5):
        next(whole)
    again = TokenBatches(LENGTHS, 200, seed=3)
    again.load_state_dict(whole.state_dict())
    for _ in range(len(whole)):
        assert list(next(again)) == list(next(whole))


def test_seeds_decide():
    first, same, other = (TokenBatches(LENGTHS, 200, seed) for seed in (1, 1, 2))
    assert [list(rows) for rows in islice(first, 9)] == [list(rows) for rows in islice(same, 9)]
    assert [list(rows) for rows in islice(TokenBatches(LENGTHS, 200, 1), 9)] != [list(r) for r in islice(other, 9)]


def test_cut_by_hand():
    lengths = np.array([5, 4, 3, 2, 1])
    assert [rows.tolist() for rows in cut(lengths, np.arange(5), 10)] == [[0, 1], [2, 3, 4]]
    assert [rows.tolist() for rows in cut(lengths, np.arange(5), 1)] == [[0], [1], [2], [3], [4]]
    assert cut(lengths, np.arange(0), 10) == []


def test_what_cannot_be_batched_is_named():
    with pytest.raises(InputError, match="sentence 2 has 30 tokens, and a batch holds 20"):
        TokenBatches(np.array([[3], [30]]), 20)
    with pytest.raises(InputError, match="no sentences"):
        TokenBatches(np.zeros((0, 3), dtype=np.int64), 20)
    with pytest.raises(InputError, match="tokens"):
        TokenBatches(LENGTHS, 0)
