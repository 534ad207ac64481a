"""The generated sentences: minimal pairs, grammar, exact key points, decoys, other sizes."""

import itertools

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.papers.stmc.experiment import avatars
from labkit.papers.stmc.experiment.avatars import GLOSSES, World, clip, cues_between, grammar, sentences


def test_every_gloss_has_one_partner_for_hand_and_face_each_and_two_for_motion():
    for gloss in GLOSSES:
        alone = [cues_between(gloss, other) for other in GLOSSES]
        assert [alone.count((cue,)) for cue in avatars.CUES] == [1, 1, 2]
    assert cues_between(GLOSSES[0], GLOSSES[0]) == ()


def test_sentences_follow_the_grammar_and_depend_on_the_seed_alone():
    follows, made = grammar(), sentences(8, seed=3)
    for sentence in made:
        assert 3 <= len(sentence.glosses) <= 5
        assert all(b in follows[a] and a != b for a, b in itertools.pairwise(sentence.glosses))
    again = sentences(2, seed=3)
    assert all(np.array_equal(a.frames, b.frames) and a.glosses == b.glosses for a, b in zip(made, again, strict=False))
    assert not np.array_equal(made[0].frames[0], sentences(1, seed=4)[0].frames[0])


def test_spans_cover_the_sentence():
    for sentence in sentences(5, seed=1):
        spans = sentence.meta["spans"]
        assert spans[0][0] == 0
        assert spans[-1][1] == len(sentence.frames) - 1
        assert all(b[0] == a[1] + 1 for a, b in itertools.pairwise(spans))
        assert all(7 <= last - first + 1 <= 10 for first, last in spans)


@pytest.mark.parametrize("gloss", ["LOWER-RING-SHUT", "CROSS-PLUS-OPEN"])
def test_key_points_are_where_the_hands_are_drawn(gloss):
    """Without noise: the hand's middle is pale skin in a cross and dark in a ring; both wrists, every frame."""
    sentence = clip(gloss, 2, World(noise=0.0, decoys=0))
    wanted = 0.9 if "PLUS" in gloss else 0.2
    for frame, points in zip(sentence.frames, sentence.points, strict=True):
        column, row = np.rint(points[6] * 39).astype(int)  # the right hand is drawn last
        assert frame[row, column, 0] / 255 == pytest.approx(wanted, abs=0.01)


def test_partners_differ_only_where_their_cue_is():
    """The same seed draws the same signer: a mouth changes pixels in the head alone."""
    shut, opened = (clip(f"RAISE-RING-{mouth}", 5, World(noise=0.0)).frames for mouth in ("SHUT", "OPEN"))
    rows = np.nonzero((shut != opened).any((0, 2, 3)))[0]
    assert 0 < len(rows) <= 4
    assert rows.max() < 20


def test_decoys_cover_more_of_the_picture():
    plain, full = (clip(GLOSSES[0], 1, World(noise=0.0, decoys=n)).frames for n in (0, 8))
    assert (plain != full).any(-1).mean() > 0.02


def test_other_sizes_are_the_same_picture():
    small, large = (clip(GLOSSES[3], 1, World(size=size, noise=0.0)) for size in (40, 80))
    assert large.frames.shape[1:] == (80, 80, 3)
    assert np.array_equal(large.points, small.points)
    assert np.abs(large.frames[:, ::2, ::2].astype(int) - small.frames).mean() < 8


def test_label_noise_stays_inside():
    noisy, exact = (clip(GLOSSES[0], 1, World(label_noise=n)) for n in (0.05, 0.0))
    assert 0.01 < np.abs(noisy.points - exact.points).mean() < 0.1
    assert noisy.points.min() >= 0


def test_bad_worlds_and_glosses_are_refused():
    with pytest.raises(InputError, match="noise must lie between"):
        World(noise=2.0)
    with pytest.raises(InputError, match="no gloss 'WAVE'"):
        clip("WAVE")
