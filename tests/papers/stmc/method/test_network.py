"""The whole network: batches against sentences, heads, stages, losses and labels."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.papers.stmc.method import losses
from labkit.papers.stmc.method.architecture import PAPER, SMALL
from labkit.papers.stmc.method.network import STMC, Output, next_stage
from labkit.papers.stmc.method.pseudo_labels import aligned_labels, even_labels
from labkit.text import ctc


def network(labels=5, **changes):
    torch.manual_seed(0)
    return STMC(replace(SMALL, **changes), labels).double().eval()


def sentences(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(n, 3, 40, 40, dtype=torch.float64, generator=generator) for n in lengths]


@pytest.mark.parametrize("padded", [False, True])
def test_a_batch_gives_what_each_sentence_gives_by_itself(padded):
    """Packed LSTMs, masked ends: every head, to 1e-9 in double precision."""
    net, some = network(padded=padded), sentences(24, 16, 21)
    together = net(torch.cat(some), torch.tensor([24, 16, 21]))
    for k, frames in enumerate(some):
        alone = net(frames, torch.tensor([len(frames)]))
        steps = int(alone.lengths)
        assert steps == int(together.lengths[k])
        for batch, one in zip([together.joint, *together.cues], [alone.joint, *alone.cues], strict=True):
            torch.testing.assert_close(batch[k, :steps], one[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(net.posteriors(frames), alone.joint[0])


def test_heads_of_the_paper():
    """Two-layer BLSTMs of 512 and 128 a direction on 1024 and 256 channels."""
    with torch.device("meta"):
        heads = STMC(PAPER, 1296).heads
    rnn = [heads.joint.rnn, *(head.rnn for head in heads.cues)]
    assert [(r.input_size, r.hidden_size, r.num_layers, r.dropout) for r in rnn] == [(1024, 512, 2, 0.3)] + 4 * [
        (256, 128, 2, 0.3)
    ]
    assert heads.joint.linear.out_features == 1296


def test_stage_2_goes_on_with_the_backbone_of_stage_1_and_heads_of_its_own():
    torch.manual_seed(0)
    first = STMC(SMALL, 5, first_stage=True)
    second = next_stage(first)
    assert second.backbone is first.backbone
    assert not any(name.startswith("heads.joint.rnn") for name in first.state_dict())
    assert any(name.startswith("heads.joint.rnn") for name in second.state_dict())


# -- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 30.0])
def test_the_key_points_loss_by_hand(beta):
    """Two frames, one point: errors .01 and .5 in the row, 0 in the column; mean over 2 T K = 4 numbers."""
    points, targets = torch.zeros(2, 1, 2, dtype=torch.float64), torch.zeros(2, 1, 2, dtype=torch.float64)
    points[0, 0, 0], points[1, 0, 0] = 0.01, 0.5

    def smooth(x):
        return x * x / 2 if abs(x) < 1 else abs(x) - 0.5

    inside = (smooth(beta * 0.01) + smooth(beta * 0.5)) / 4
    outside = beta * (smooth(0.01) + smooth(0.5)) / 4
    assert float(losses.pose_loss(points, targets, beta, "inside")) == pytest.approx(inside)
    assert float(losses.pose_loss(points, targets, beta, "outside")) == pytest.approx(outside)
    if beta == 1:
        assert inside == pytest.approx(outside)


def test_small_errors_differ_by_beta_between_the_two_readings():
    points, targets = torch.full((3, 2, 2), 1e-3), torch.zeros(3, 2, 2)
    inside, outside = (float(losses.pose_loss(points, targets, 30.0, name)) for name in ("inside", "outside"))
    assert inside / outside == pytest.approx(30.0, rel=1e-4)


def test_its_slope_is_one_where_the_two_pieces_meet():
    for error in (1 / 30 - 1e-9, 1 / 30 + 1e-9):
        points = torch.tensor([[[error, 0.0]]], dtype=torch.float64, requires_grad=True)
        losses.pose_loss(points, torch.zeros(1, 1, 2, dtype=torch.float64), 30.0).backward()
        assert float(points.grad[0, 0, 0]) == pytest.approx(30 / 2, rel=1e-5)  # beta / (2 T K)


def test_points_that_nobody_saw_do_not_count():
    points, targets = torch.rand(4, 3, 2, requires_grad=True), torch.rand(4, 3, 2)
    targets[1, 2] = math.nan
    loss = losses.pose_loss(points, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert not points.grad[1, 2].any()
    assert torch.isfinite(losses.pose_loss(points, torch.full_like(targets, math.nan)))


def output(*shapes):
    generator = torch.Generator().manual_seed(0)
    log_probs = [torch.randn(2, 6, 4, generator=generator).log_softmax(-1) for _ in range(1 + len(shapes))]
    return Output(log_probs[0], log_probs[1:], torch.tensor([6, 4]), None)


def test_the_joint_loss_is_that_of_the_joint_head_and_alpha_times_the_cues():
    said, glosses = output(1, 2), [torch.tensor([1, 2]), torch.tensor([3])]
    parts = [
        sum(-ctc.log_likelihood(p[k, :n].double().numpy(), g.tolist()) / len(g)
            for k, (n, g) in enumerate(zip((6, 4), glosses, strict=True))) / 2
        for p in (said.joint, *said.cues)
    ]  # fmt: skip
    assert float(losses.joint_loss(said, glosses, 0.6)) == pytest.approx(parts[0] + 0.6 * sum(parts[1:]), abs=1e-5)
    assert float(losses.joint_loss(said, glosses, 0.0)) == pytest.approx(parts[0], abs=1e-5)


def test_a_sentence_whose_glosses_do_not_fit_costs_nothing():
    said = output()
    assert float(losses.ctc(said.joint[:1], torch.tensor([2]), [torch.tensor([1, 1])])) == 0


def test_the_frame_loss_is_the_mean_over_steps_then_sentences():
    said, labels = output(1), [torch.tensor([1, 1, 2, 2, 3, 3]), torch.tensor([2, 2, 1, 1])]
    wanted = 0.0
    for p in (said.joint, *said.cues):
        for k, row in enumerate(labels):
            wanted -= float(p[k, range(len(row)), row].mean()) / 2
    assert float(losses.frame_loss(said, labels)) == pytest.approx(wanted, abs=1e-5)


# -- labels -----------------------------------------------------------------------------------------------------------


def test_even_labels_cut_a_sentence_into_equal_parts():
    assert even_labels([3, 1, 2], 6).tolist() == [3, 3, 1, 1, 2, 2]
    assert even_labels([3, 1], 5).tolist() == [3, 3, 3, 1, 1]


def test_aligned_labels_follow_the_posteriors_and_fill_the_sentence():
    p = np.full((8, 3), math.log(0.02))
    for step, label in enumerate((0, 1, 0, 0, 0, 0, 2, 0)):
        p[step, label] = math.log(0.96)
    assert aligned_labels(p, [1, 2]).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert aligned_labels(p[:2], [1, 1]) is None
