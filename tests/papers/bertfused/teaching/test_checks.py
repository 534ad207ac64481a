"""The checks hold for the room's own code: they are no second implementation."""

import pytest
import torch

from labkit.data.translation import ParallelText
from labkit.papers.bertfused.experiment.data import Batch
from labkit.papers.bertfused.experiment.loop import smoothed_cross_entropy
from labkit.papers.bertfused.method.bert import Words
from labkit.papers.bertfused.teaching import checks, exercises


def test_contexts_of_parallel_text():
    def contexts(sentences, talks):
        return list(ParallelText(tuple(sentences), tuple(sentences), tuple(talks)).contexts())

    checks.check_contexts(contexts)
    checks.check_first_sentences(contexts)


def test_the_loop_has_the_loss_of_the_exercise():
    draw = torch.Generator().manual_seed(3)
    logits, target = torch.randn(2, 4, 6, generator=draw), torch.tensor([[1, 2, 0, 0], [5, 4, 3, 2]])
    ours = smoothed_cross_entropy(logits, Batch(target, target, target, None), 0.1, 0)
    torch.testing.assert_close(ours, exercises.smoothed(logits, target, 0.1, 0))


def test_bert_pads_as_the_exercise_wants():
    bert = checks.small_bert()
    view = bert.view([Words(list(row), [0] * len(row)) for row in checks.ROWS])
    assert view.real.sum(1).tolist() == [len(row) for row in checks.ROWS]
    ids, mask = exercises.padding(checks.ROWS, 0)
    wanted = bert.model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(view.states[view.real], wanted[mask.bool()], rtol=0, atol=1e-5)


def test_the_left_padded_batch_is_far_off():
    """Not rounding: the bug of the exercise is a hundred times the tolerance."""
    with pytest.raises(AssertionError, match="is another one in the batch"):
        checks.check_padding(exercises.broken_padding)


def test_order_is_nothing_and_content_is_all():
    assert exercises.survivals() == (True, False, False)


def test_parameters_of_the_sheet():
    """15.7 million on top of 36.7 million."""
    assert exercises.new_parameters() == pytest.approx(15.7e6, rel=0.01)
