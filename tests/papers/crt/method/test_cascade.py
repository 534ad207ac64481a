"""The tracker: exact cases, one target or many, every switch, the protocol, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.data.tracking import Sequence
from labkit.errors import InputError
from labkit.metrics.tracking import box_overlaps
from labkit.papers.crt import (
    Cascade,
    CascadeTracker,
    LookAlikes,
    ResNetFeatures,
    Ridge,
    Settings,
    Tracker,
    look_alikes,
    stage1_only,
    track_together,
)
from labkit.papers.crt.experiment.config import ARMS, DEEP, UNTRAINED
from labkit.papers.crt.experiment.tracking import Census, arm_tracker
from labkit.papers.crt.method.cascade import Decision, Diagnostics
from labkit.papers.crt.method.convolution import Convolution, Regression
from labkit.papers.crt.method.crop import View
from labkit.papers.crt.method.ridge_head import RidgeHead

EASY = LookAlikes(frames=10, rivals=1, similarity=0.3, height=120, width=160)
CLIP = look_alikes(EASY, 0)
HARD = look_alikes(replace(EASY, rivals=4, similarity=0.9, own_light=True, frames=14), 1)


MINING_IN_EVERY_FRAME = Settings(ridge=Ridge(mining="anchored"), gate=(0.0, 0.0, 0.0), states=True)


def follow(tracker, clip):
    tracker.init(clip.frames[0], tuple(clip.boxes[0].tolist()))
    return [tracker.update(clip.frames[t]) for t in range(1, len(clip))]


def boxes_of(answers):
    return np.array([each.box for each in answers])


def test_it_obeys_the_protocol_and_follows():
    tracker = CascadeTracker()
    assert isinstance(tracker, Tracker)
    answers = follow(tracker, CLIP)
    assert box_overlaps(boxes_of(answers), CLIP.boxes[1:]).min() > 0.6
    assert all(each.present and each.score > 0.25 for each in answers)


@pytest.mark.slow
def test_init_starts_over():
    tracker = CascadeTracker()
    first = boxes_of(follow(tracker, CLIP))
    follow(tracker, HARD)
    np.testing.assert_array_equal(boxes_of(follow(tracker, CLIP)), first)


def test_without_weight_stage_2_decides_nothing():
    """m = 0: the cascade is stage 1, box by box."""
    np.testing.assert_array_equal(
        boxes_of(follow(CascadeTracker(Settings(mix=0.0)), HARD)), boxes_of(follow(CascadeTracker(stage1_only()), HARD))
    )


def test_with_one_candidate_the_cascade_is_stage_1():
    settings = Settings(most=1, skip_single=True)
    np.testing.assert_array_equal(
        boxes_of(follow(CascadeTracker(settings), HARD)), boxes_of(follow(CascadeTracker(stage1_only(settings)), HARD))
    )


def test_stage_2_does_decide_something():
    """The counterpart: if it did not, the two tests above would prove nothing."""
    full, alone = (boxes_of(follow(CascadeTracker(s), HARD)) for s in (Settings(), stage1_only()))
    assert np.abs(full - alone).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize("settings", [Settings(), MINING_IN_EVERY_FRAME], ids=["plain", "mining"])
def test_side_by_side_is_one_by_one(settings):
    """Two videos of different sizes and targets of different shapes in one batch.

    Forty conjugate-gradient steps in float32 carry rounding up to .02 of a score, over 20 pairs of clips. So a near
    tie may fall to the neighbouring cell, three pixels on: boxes overlap by .70 and more.
    """
    other = look_alikes(replace(EASY, height=150, width=140, aspect=0.5, frames=10), 3)
    together, clips = Cascade(settings), (CLIP, other)
    together.init([clip.frames[0] for clip in clips], [clip.boxes[0] for clip in clips])
    together.update([clip.frames[1] for clip in clips])
    tracks = track_together(Cascade(settings), clips)
    for k, clip in enumerate(clips):
        tracker = CascadeTracker(settings)
        alone = boxes_of(follow(tracker, clip.part(0, 2)))
        torch.testing.assert_close(together.last.scores[k], tracker.cascade.last.scores[0], rtol=0, atol=0.1)
        alone = boxes_of(follow(tracker, clip))
        assert box_overlaps(tracks[k].boxes[1:], alone).min() > 0.5
        assert len(tracks[k].boxes) == len(clip)


@pytest.mark.slow
@pytest.mark.parametrize("name", UNTRAINED)
def test_every_arm_tracks_an_easy_clip(name):
    answers = follow(arm_tracker(name), CLIP)
    assert box_overlaps(boxes_of(answers), CLIP.boxes[1:]).min() > 0.4


@pytest.mark.slow
def test_mining_goes_through_the_gate():
    """An open gate mines every rival, a shut one none, and then the cascade is the one without mining."""
    plain, shut = Cascade(), Cascade(replace(MINING_IN_EVERY_FRAME, gate=(2.0, 0.0, 0.0), states=False))
    boxes = [track_together(cascade, [HARD])[0].boxes for cascade in (plain, shut)]
    np.testing.assert_array_equal(*boxes)
    assert not shut.head.hard.valid.any()
    mined = []
    track_together(Cascade(MINING_IN_EVERY_FRAME), [HARD], lambda t, cascade, last: mined.append(int(last.mined.sum())))
    assert sum(mined) > 0


def test_presence():
    """The target vanishes behind grey: absent; and back it is where it was."""
    grey = np.full_like(CLIP.frames[0], 128)
    tracker = CascadeTracker()
    follow(tracker, CLIP)
    assert not any(tracker.update(grey).present for _ in range(3))
    assert tracker.update(CLIP.frames[-1]).present


def hidden_for_a_while(second: tuple[int, int], rival: float = 0.0) -> Sequence:
    """A textured square that rests, is gone for eight frames and comes back at `second` (x, y of its corner).

    rival: share of its texture in a look-alike that comes to where the target was two frames after it is gone.
    """
    random = np.random.default_rng(5)
    ground = np.clip(random.normal(110, 6, (200, 420, 3)), 0, 255).astype(np.uint8)
    texture, other = (random.integers(0, 256, (4, 4, 3)).repeat(6, 0).repeat(6, 1) for _ in range(2))
    first, frames, boxes = (60, 80), [], []
    for t in range(30):
        picture, at = ground.copy(), None if 10 <= t < 18 else (first if t < 10 else second)
        if rival and t >= 12:
            picture[first[1] : first[1] + 24, first[0] : first[0] + 24] = rival * texture + (1 - rival) * other
        if at is not None:
            picture[at[1] : at[1] + 24, at[0] : at[0] + 24] = texture
        frames.append(picture)
        boxes.append((np.nan,) * 4 if at is None else (*at, 24, 24))
    return Sequence("hidden", frames, np.array(boxes, dtype=float), np.isnan(boxes)[:, 0])


FAR = (170, 100)  # 110 pixels on: outside of the 120 pixels of the search image, inside of twice as many


@pytest.mark.slow
def test_a_lost_target_is_found_again_where_it_comes_back():
    """Its box rests meanwhile; without the search it is never seen again."""
    clip = hidden_for_a_while(FAR)
    (track,) = track_together(Cascade(), [clip])
    assert track.present.tolist() == (~clip.absent).tolist()
    overlaps = box_overlaps(track.boxes, np.where(np.isnan(clip.boxes), 0.0, clip.boxes))
    assert overlaps[~clip.absent].min() > 0.6
    np.testing.assert_array_equal(track.boxes[10:18], track.boxes[9:10].repeat(8, 0))
    (without,) = track_together(Cascade(Settings(widen=1.0)), [clip])
    assert box_overlaps(without.boxes, clip.boxes)[18:].max() == 0


def test_nothing_is_learned_while_the_target_is_lost():
    clip, cascade = hidden_for_a_while(FAR), Cascade()
    filters = []
    track_together(cascade, [clip], lambda t, c, last: filters.append((c.head.w.clone(), c.regression.weight.clone())))
    for t in range(10, 17):  # w and the memory's weights after frame t + 1
        torch.testing.assert_close(filters[t], filters[9], rtol=0, atol=0)
    assert not torch.equal(filters[25][0], filters[9][0])


@pytest.mark.slow
def test_a_look_alike_is_not_taken_for_the_lost_target():
    """A stranger with a third of its texture comes to where it was; by a lower bar it would be followed."""
    clip = hidden_for_a_while(FAR, rival=0.35)
    (track,) = track_together(Cascade(), [clip])
    assert track.present.tolist() == (~clip.absent).tolist()
    assert box_overlaps(track.boxes, clip.boxes)[18:].min() > 0.6
    (taken,) = track_together(Cascade(Settings(again=0.3)), [clip])
    assert taken.present[13:].all()
    assert box_overlaps(taken.boxes, clip.boxes)[18:].max() == 0


@pytest.mark.slow
def test_a_target_that_has_changed_counts_twice():
    """The usual score of a real clip lies between 0 and 1: always above a threshold of 0, soon below one of 1."""
    counts = {0.0: set(), 1.0: set()}
    for misfit, values in counts.items():

        class Watched(RidgeHead):
            def update(self, rows, counts, rivals, values=values):
                values.add(float(counts))
                super().update(rows, counts, rivals)

        follow(CascadeTracker(Settings(misfit=misfit), head=lambda kind=Watched: kind(Ridge())), CLIP)
    assert counts == {0.0: {1.0}, 1.0: {2.0}}


@pytest.mark.slow
def test_lost_beside_followed():
    """In a batch each target is lost and found by itself."""
    clips = (hidden_for_a_while(FAR), hidden_for_a_while((60, 80)))
    together = track_together(Cascade(), clips)
    for track, clip in zip(together, clips, strict=True):
        assert track.present.tolist() == (~clip.absent).tolist()
        (alone,) = track_together(Cascade(), [clip])
        assert box_overlaps(track.boxes, alone.boxes).min() > 0.5


@pytest.mark.slow
def test_where_stage_2_is_left_out_stage_1_says_whether_the_target_is_there():
    """One target alone and beside another: a skipped frame is judged by the same score in both."""
    settings = Settings(skip_single=True, most=1)
    alone = [each.present for each in follow(CascadeTracker(settings), CLIP)]
    assert all(alone)
    track, _ = track_together(Cascade(settings), [CLIP, HARD])
    assert track.present[1:].tolist() == alone


def test_a_box_never_leaves_the_frame_and_stays_finite():
    noise = np.random.default_rng(0).integers(0, 256, (12, 60, 80, 3), dtype=np.uint8)
    tracker = CascadeTracker(Settings(scales=(0.9, 1.0, 1.1), confident=0.0))
    tracker.init(noise[0], (2.0, 2.0, 12.0, 30.0))
    for frame in noise[1:]:
        x, y, w, h = tracker.update(frame).box
        assert np.isfinite([x, y, w, h]).all()
        assert 0 <= x + w / 2 <= 80
        assert 0 <= y + h / 2 <= 60


@pytest.mark.slow
def test_scales_follow_a_growing_target():
    frames = 26
    clip = look_alikes(LookAlikes(frames=frames, rivals=0, sprite=30, zoom=0.3, clutter=15.0, speed=0.3, light=0.0), 2)
    clip = clip.part(0, frames)
    change = clip.boxes[-1, 2] / clip.boxes[0, 2]
    (track,) = track_together(Cascade(ARMS["scales"].settings), [clip])
    grown = track.boxes[-1, 2] / track.boxes[0, 2]
    assert abs(change - 1) > 0.1
    assert (grown - 1) * (change - 1) > 0  # the right direction


def test_a_deep_cascade_runs():
    """Projection, ATOM's augmentation and states, PrRoI on two maps; random weights, so only that it runs."""
    stage1 = replace(DEEP.stage1, projection=8, memory=40, first_steps=(2, 2))
    settings = replace(DEEP, size=64, stage1=stage1, bins=1)
    (track,) = track_together(Cascade(settings, ResNetFeatures(18)), [CLIP.part(0, 3)])
    assert np.isfinite(track.boxes).all()


def test_census_counts():
    """By hand: a target in the middle of 40 x 40 cells, a hard cell of half its score, a weak one of a fifth."""
    scores = torch.zeros(1, 40, 40)
    scores[0, 20, 20], scores[0, 5, 5], scores[0, 30, 30] = 1.0, 0.5, 0.2
    box = np.array([[90.0, 90.0, 20.0, 20.0]])  # centred; the search image is the frame's 200 pixels at 160
    sequence = Sequence("still", [np.zeros((200, 200, 3), dtype=np.uint8)], box, np.zeros(1, dtype=bool))
    view = View(torch.tensor([[100.0, 100.0]]), torch.tensor([200.0]), 160)
    two, one = torch.tensor([[True, True, False]]), torch.tensor([False])
    empty = torch.zeros(1, 3)
    decision = Decision(torch.zeros(1, 3, 2), two, empty, empty, empty, torch.tensor([0]), torch.ones(1), one)
    census = Census([sequence], kappa=0.35, floor=0.08)
    census(0, stage_1(), Diagnostics(view, torch.tensor([[16.0, 16.0]]), scores, decision, two))
    actual = census.summary(0)
    near = sum((x + 0.5 - 20) ** 2 + (y + 0.5 - 20) ** 2 <= (0.6 * 4) ** 2 for x in range(40) for y in range(40))
    assert actual["hard_share"] == pytest.approx(1 / (1600 - near))
    assert actual["hard_response"] == pytest.approx(0.25 / (0.25 + 0.04))
    assert (actual["candidates"], actual["skip_rate"], actual["mined"]) == (2.0, 0.0, 2.0)


def stage_1():
    """A cascade that has learned nothing but where its scores stand."""
    cascade = Cascade()
    cascade.regression = Regression(cascade.settings.stage1, 16, torch.ones(1, 2))
    return cascade


@pytest.mark.parametrize("kernel", [7, 4])
def test_on_a_still_picture_the_box_stays_within_a_cell(kernel):
    frame = CLIP.frames[0]
    tracker = CascadeTracker(stage1_only(Settings(stage1=Convolution(kernel=kernel))))
    tracker.init(frame, tuple(CLIP.boxes[0].tolist()))
    for _ in range(15):
        answers = tracker.update(frame)
    cell = 5 * CLIP.boxes[0, 2] / 40
    assert (
        np.abs(np.array(answers.box) - CLIP.boxes[0]).max() <= cell + 0.01
    )  # half a cell every frame would be 7 cells


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Settings(mix=1.5), "mix must lie between"),
        (lambda: Settings(bins=0), "bins must lie between 1 and 64"),
        (lambda: Settings(widen=0.5), "widen must lie between 1 and 8; got 0.5"),
        (lambda: Settings(present=float("nan")), "present must lie"),
        (lambda: Settings(scales=()), "number_of_scales must lie between 1"),
        (lambda: Settings(size=10**9), "size must lie between 32 and 4096"),
        (lambda: Ridge(lam=0.0), "lam must lie between"),
        (lambda: Ridge(keep_first=float("inf")), "keep_first must lie between 0 and 1"),
        (lambda: Convolution(rate=1.0), "rate must lie between 0 and 0.5"),
        (lambda: Convolution(first_steps=()), "steps must lie between 1"),
        (lambda: Cascade(Settings(refine=True)), "trained Refiner"),
        (lambda: Cascade(Settings(size=90)), "multiple of the features' stride"),
        (lambda: Cascade().update([CLIP.frames[0]]), "call init"),
        (lambda: Cascade().init([CLIP.frames[0]], []), "one box per frame"),
        (lambda: CascadeTracker().init(CLIP.frames[0], (0.0, 0.0, 1.0, 50.0)), "at least 2 x 2"),
        (lambda: CascadeTracker().init(CLIP.frames[0], (0.0, float("nan"), 9.0, 5.0)), "finite"),
        (lambda: CascadeTracker().init(CLIP.frames[0], (500.0, 0.0, 9.0, 5.0)), "outside the 160 x 120"),
        (lambda: CascadeTracker().init(CLIP.frames[0].astype(np.float32), (5.0, 5.0, 9.0, 5.0)), "uint8 RGB"),
        (lambda: CascadeTracker().init(CLIP.frames[0][..., 0], (5.0, 5.0, 9.0, 5.0)), "uint8 RGB"),
        (lambda: track_together(Cascade(), []), "no sequence"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_wrong_number_of_frames():
    cascade = Cascade()
    cascade.init([CLIP.frames[0]], CLIP.boxes[:1])
    with pytest.raises(InputError, match="there are 1 targets; got 2"):
        cascade.update([CLIP.frames[1]] * 2)
