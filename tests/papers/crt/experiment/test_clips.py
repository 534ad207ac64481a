"""Generated clips: deterministic, boxes where the sprite is, rivals that never touch, as similar as asked."""

from dataclasses import replace

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.papers.crt import KINDS, LookAlikes, look_alikes
from labkit.papers.crt.experiment import data
from labkit.papers.crt.experiment.evaluate import hits

SMALL = LookAlikes(frames=12, rivals=3, height=140, width=160)


def test_a_seed_is_a_clip():
    a, b, c = look_alikes(SMALL, 4), look_alikes(SMALL, 4), look_alikes(SMALL, 5)
    for t in (0, 11):
        np.testing.assert_array_equal(a.frames[t], b.frames[t])
    assert np.abs(a.frames[0].astype(int) - c.frames[0]).mean() > 5


@pytest.mark.parametrize(
    "kind", [SMALL, replace(SMALL, aspect=0.5), replace(SMALL, zoom=0.2, blur=0.5, sway=0.1, pan=5.0)]
)
def test_the_box_is_where_the_sprite_is(kind):
    """Without noise, two clips that differ in the sprite alone differ inside its box alone."""
    plain = replace(kind, rivals=0, noise=0.0, light=0.0, clutter=0.0, edges=0)
    clip = look_alikes(plain, 1)
    for t in (0, 6, 11):
        changed = np.abs(clip.frames[t].astype(int) - 128).max(2) > 6
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        x, y, w, h = clip.boxes[t]
        slack = 1.5 + (plain.sway + plain.blur / 4) * plain.sprite
        assert columns[0] == pytest.approx(x, abs=slack)
        assert columns[-1] + 1 == pytest.approx(x + w, abs=slack)
        assert rows[0] == pytest.approx(y, abs=slack)
        assert rows[-1] + 1 == pytest.approx(y + h, abs=slack)


def test_the_target_goes_away_and_nothing_else_changes():
    """Absent frames have no box and no target; in all others the clip is the one without the absence."""
    kind = replace(SMALL, noise=0.0)
    whole, part = look_alikes(kind, 1), look_alikes(replace(kind, away=(4, 9)), 1)
    away = np.arange(12)[4:9]
    np.testing.assert_array_equal(np.flatnonzero(part.absent), away)
    np.testing.assert_array_equal(np.flatnonzero(~part.annotated), away)
    for t in range(12):
        changed = (whole.frames[t] != part.frames[t]).any(2)
        assert changed.any() == (t in away)
        if t in away:
            x, y, w, h = whole.boxes[t].round().astype(int)
            assert not np.delete(np.delete(changed, slice(y - 2, y + h + 3), 0), slice(x - 2, x + w + 3), 1).any()
            assert changed[y + 4 : y + h - 4, x + 4 : x + w - 4].mean() > 0.8
    for wrong in ((0, 4), (5, 4), (4, 13)):
        with pytest.raises(InputError, match="leave its first frame"):
            replace(kind, away=wrong)


@pytest.mark.parametrize("seed", range(5))
def test_rivals_keep_their_distance(seed):
    clip = look_alikes(replace(SMALL, frames=80), seed)
    centre = clip.boxes[:, :2] + clip.boxes[:, 2:] / 2
    distance = np.linalg.norm(np.asarray(clip.meta["rivals"]) - centre[:, None], axis=2)
    assert distance.min() >= SMALL.sprite * 0.999
    assert distance.min(0).max() < 6 * SMALL.sprite  # and every rival comes near


def test_hits_are_counted_on_rivals_only():
    clip = look_alikes(SMALL, 0)
    rivals = np.asarray(clip.meta["rivals"])
    on_rival = clip.boxes.copy()
    on_rival[:, :2] = rivals[:, 0] - clip.boxes[:, 2:] / 2
    assert hits(on_rival, clip.boxes, rivals).all()
    assert not hits(clip.boxes, clip.boxes, rivals).any()
    nowhere = clip.boxes + np.array([1000.0, 0, 0, 0])
    assert not hits(nowhere, clip.boxes, rivals).any()


def test_seeds_of_results_and_of_training_do_not_meet(monkeypatch):
    """Every clip that is tracked or trained on is drawn from a state of its own, whatever its kind and seed."""
    drawn = []

    def spy(settings, seed):
        drawn.append(seed)
        return look_alikes(replace(settings, frames=2), seed)

    monkeypatch.setattr(data, "look_alikes", spy)
    names = {clip.name for seed in (0, 1) for kind in KINDS for clip in data.clips(kind, 3, seed)}
    for seed in (0, 1):
        data.pairs(25, seed)
    assert len(names) == 12
    assert len(set(drawn)) == len(drawn) == 12 + 6


def test_pairs_know_where_the_target_is():
    """The crops at the pair's places look alike: the middle of the first, `place` of the second."""
    pairs = data.pairs(12, 0, kinds=("plain",))
    assert len(pairs) == 12
    size = pairs.first.shape[-1]
    alike, elsewhere = [], []
    for k in range(12):
        x, y = (int(v) for v in pairs.position[k])
        if not (12 <= x < size - 12 and 12 <= y < size - 12):
            continue
        mid = size // 2
        first = pairs.first[k, :, mid - 8 : mid + 8, mid - 8 : mid + 8].float()
        alike.append(float((first - pairs.second[k, :, y - 8 : y + 8, x - 8 : x + 8].float()).abs().mean()))
        elsewhere.append(float((first - pairs.second[k, :, 4:20, 4:20].float()).abs().mean()))
    assert np.mean(alike) < 0.7 * np.mean(elsewhere)
    assert bool(pairs.visible.any())


def test_pairs_from_annotated_videos():
    clip = look_alikes(SMALL, 0)
    boxes = clip.boxes.copy()
    boxes[3:9] = np.nan
    holed = replace(clip, boxes=boxes, meta={})
    pairs = data.pairs_from([holed], 5, 0, gap=3)
    assert len(pairs) == 5
    assert not pairs.visible.any()
    assert bool(pairs.position.isfinite().all())
    boxes[1:] = np.nan
    with pytest.raises(InputError, match="two annotated frames"):
        data.pairs_from([replace(clip, boxes=boxes, meta={})], 5, 0)


def test_a_shaken_start_is_near_the_box():
    box = np.array([10.0, 20.0, 30.0, 40.0])
    shaken = data._shaken(box, 3)
    assert 0 < np.abs(shaken - box).max() < 6
    np.testing.assert_array_equal(shaken, data._shaken(box, 3))
    assert (data._shaken(box, 4) != shaken).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"similarity": 1.0}, "cannot be told apart"),
        ({"frames": 1}, "frames >= 2"),
        ({"height": 50}, "at least 4 sprites"),
    ],
)
def test_bad_input(changes, words):
    with pytest.raises(InputError, match=words):
        LookAlikes(**changes)
    with pytest.raises(InputError, match="no kind of clip 'cats'"):
        data.clips("cats", 1, 0)
    assert set(KINDS) == {"plain", "walkers"}
