"""A rehearsal says what the tracker itself would decide, for every setting that can be moved, and quickly."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.crt import look_alikes
from labkit.papers.crt.experiment.clips import LookAlikes
from labkit.papers.crt.experiment.config import MINING
from labkit.papers.crt.method.cascade import Settings
from labkit.papers.crt.method.convolution import Regression
from labkit.papers.crt.method.ridge_head import Ridge, RidgeHead
from labkit.papers.crt.teaching import rehearsal, scenes
from labkit.papers.crt.teaching.rehearsal import Choice, replay


@functools.cache
def crowd():
    return look_alikes(LookAlikes(frames=16, rivals=4, similarity=0.85, height=140, width=180), 1)


@functools.cache
def described():
    return rehearsal.describe(crowd())


@pytest.mark.slow
def test_the_first_decision_is_the_trackers():
    """Before anything more is learned the two must agree to the last candidate: same maps, same head, same scores."""
    (look, *_) = scenes.snapshots(crowd(), 2, Settings(bins=4), guided=True)
    decision = rehearsal._decide(
        described().options[7][0], described().position[0], described().size[0], _first_weights(Choice()), Choice()
    )
    np.testing.assert_allclose(decision.fused.numpy(), 0.3 * look.s1 + 0.7 * look.s2, atol=2e-4)
    assert int(decision.is_target.nonzero()) == look.target
    assert int(decision.fused.argmax()) == look.winner


def _first_weights(choice):
    head = RidgeHead(Ridge(lam=choice.lam, eta=choice.eta))
    head.first(described().first)
    return head.w[0]


def test_with_the_winner_right_throughout_it_is_the_guided_tracker():
    """An easy clip: the tracker decides for the target in each frame and learns there, as the rehearsal does."""
    easy = look_alikes(LookAlikes(frames=12, rivals=2, similarity=0.2, height=140, width=180, speed=0.5), 4)
    snapshots = scenes.snapshots(easy, 12, Settings(bins=4), guided=True)
    result = replay(rehearsal.describe(easy, (7,)), Choice())
    assert [look.winner == look.target for look in snapshots] == [True] * 11
    lead = [_lead((0.3 * look.s1 + 0.7 * look.s2), look.target) for look in snapshots]
    np.testing.assert_allclose(result.lead, lead, atol=0.06)  # it learns where it decided: up to half a cell off
    assert max(abs(n - len(look.s1)) for n, look in zip(result.left, snapshots, strict=True)) <= 1  # near the threshold


def _lead(scores, target):
    others = np.delete(scores, target)
    return scores[target] - (others.max() if len(others) else 0.0)


def test_m_0_is_stage_1_alone_and_kappa_leaves_fewer():
    alone = replay(described(), Choice(mix=0.0))
    agree = np.sign(alone.lead) == np.sign(alone.lead1)
    assert agree.mean() > 0.8  # a neighbour of the peak can answer more than the peak of a weaker candidate
    loose, strict = replay(described(), Choice(kappa=0.1)), replay(described(), Choice(kappa=0.9))
    assert sum(strict.left) < sum(loose.left)
    assert strict.skip_rate > loose.skip_rate
    assert strict.right1 >= loose.right1 - 1e-9


def test_without_learning_nothing_but_the_first_frame_counts():
    """eta = 0: w stays, so the lead of every frame is that of the first solution."""
    w = _first_weights(Choice())
    result = replay(described(), Choice(eta=0.0))
    for t in (3, 9, 14):
        decision = rehearsal._decide(
            described().options[7][t], described().position[t], described().size[t], w, Choice()
        )
        assert result.lead[t] == pytest.approx(rehearsal._lead(decision.fused, decision.is_target), abs=1e-5)


def test_stage_2_learns_from_every_second_frame():
    """By hand: running Gram of the first frame, then of frames 2, 4, ...; the lead of frame 11 from frames up to 10."""
    head = RidgeHead(Ridge())
    head.first(described().first)
    for t in (2, 4, 6, 8, 10):
        head.running.update(*described().rows[t - 1], torch.tensor([0.02]))
    w = head.running.solve(0.002)[0]
    decision = rehearsal._decide(
        described().options[7][10], described().position[10], described().size[10], w, Choice()
    )
    wanted = rehearsal._lead(decision.fused, decision.is_target)
    assert replay(described(), Choice()).lead[10] == pytest.approx(wanted, abs=1e-5)


def test_each_view_stands_on_the_target_of_the_frame_before():
    """So the target's place is its step, in pixels of a search image of five targets."""
    centre = crowd().boxes[:, :2] + crowd().boxes[:, 2:] / 2
    scale = 160 / (5 * np.sqrt(crowd().boxes[0, 2:].prod()))
    np.testing.assert_allclose(
        torch.stack(described().position).numpy(), 80 + scale * np.diff(centre, axis=0), atol=1e-3
    )


@pytest.mark.slow
def test_stage_1_learns_as_often_as_the_trackers_does(monkeypatch):
    """A sample every second frame, at the target's place in cells; an improvement every sixth; for each filter."""
    learned, improved = [], []

    class Watched(Regression):
        def remember(self, x, centre, mask, rate=None):
            learned.append((self.settings.kernel, centre.flatten().tolist()))
            super().remember(x, centre, mask, rate)

        def improve(self, *given, **named):
            improved.append(self.settings.kernel)
            super().improve(*given, **named)

    monkeypatch.setattr(rehearsal, "Regression", Watched)
    actual = rehearsal.describe(crowd(), (3, 7))
    assert [kernel for kernel, _ in learned] == [3, 7] * 7
    for number, (_, at) in enumerate(learned):
        np.testing.assert_allclose(at, actual.position[2 * (number // 2) + 1].numpy() / 4, atol=1e-5)
    assert improved == [3, 7] + [3, 7] * 2  # with the first frame, then in frames 6 and 12


def test_rows_are_counted():
    """29 of the first frame and each of its 8 views, 29 of every second frame, and what is mined."""
    plain = replay(described(), Choice())
    assert plain.rows == 29 * 8 + 29 * 7
    assert plain.features == 256
    assert sum(plain.mined) == 0
    mined = replay(described(), Choice(mining="anchored"))
    assert mined.rows == plain.rows + sum(mined.mined)


def test_mining_goes_through_the_gate_and_changes_later_frames(monkeypatch):
    monkeypatch.setattr(rehearsal, "SETTINGS", replace(rehearsal.SETTINGS, gate=(0.0, 0.0, 0.0)))
    plain = replay(described(), Choice())
    for way in MINING:
        actual = replay(described(), Choice(mining=way))
        assert sum(actual.mined) > 5, way
        assert actual.lead[0] == pytest.approx(plain.lead[0])
        assert np.nanmax(np.abs(np.subtract(actual.lead, plain.lead))) > 1e-4, way
    monkeypatch.setattr(rehearsal, "SETTINGS", replace(rehearsal.SETTINGS, gate=(2.0, 0.0, 0.0)))
    shut = replay(described(), Choice(mining="anchored"))
    assert sum(shut.mined) == 0
    np.testing.assert_array_equal(shut.lead, plain.lead)


def test_a_frame_that_only_gives_negatives_gives_no_positives(monkeypatch):
    """With the gate open rivals come in every frame; the rows around the target only in every second one."""
    updates = []

    class Watched(RidgeHead):
        def update(self, rows, counts, rivals):
            updates.append((rivals.frame, bool(counts), bool(rivals.valid.any())))
            super().update(rows, counts, rivals)

    monkeypatch.setattr(rehearsal, "RidgeHead", Watched)
    monkeypatch.setattr(rehearsal, "SETTINGS", replace(rehearsal.SETTINGS, gate=(0.0, 0.0, 0.0)))
    replay(described(), Choice(mining="anchored"))
    assert {learn for frame, learn, _ in updates if frame % 2} == {False}
    assert {learn for frame, learn, _ in updates if frame % 2 == 0} == {True}
    assert all(mined for frame, _, mined in updates if frame % 2)


def test_settings_out_of_range_say_what_is_allowed():
    for wrong, message in (
        ({"kappa": 0.05}, "0.1 <= kappa < 1"),
        ({"mix": 1.1}, "0 <= m <= 1"),
        ({"lam": 0.0}, "lam > 0"),
        ({"eta": 1.0}, "eta < 1"),
    ):
        with pytest.raises(InputError, match=message):
            Choice(**wrong)
    with pytest.raises(InputError, match="filters of 3, 5, 7, 11; got 6"):
        replay(described(), Choice(kernel=6))
