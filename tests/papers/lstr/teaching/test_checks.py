"""Claims read a result as they say; wrong answers to checks are rejected."""

import numpy as np
import pytest

from labkit.papers.lstr.experiment.claims import CLAIMS, ON_OBJECT, PLAIN
from labkit.papers.lstr.teaching import checks, exercises, scenes

WRONG = (
    (checks.check_viterbi, exercises.greedy_path),
    (checks.check_past_mask, exercises.broken_mask),
    (checks.check_corners, lambda boxes: np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)),
)


@pytest.mark.parametrize(("check", "wrong"), WRONG)
def test_wrong_answers_are_rejected(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong)


@pytest.mark.slow
def test_ceilings_are_those_of_many_videos():
    """The generator's own labels against the exact chances; 400 videos, 2,400 answers: deviation .01."""
    from labkit.papers.lstr.experiment import actors

    limits = scenes.ceilings()
    drawn = actors.videos(400, 11, actors.WALKING)
    late = drawn.labels[:, 2:] % 2
    both = late.sum(-1, keepdim=True)
    share = float(((both != 1) | (late == 1)).float().mean())  # of exactly one, saying "yes" is right half the time
    assert share == pytest.approx(limits["count"], abs=0.05)
    assert limits["guess"] < limits["count"] < 1


def arm(**numbers):
    return {"object": 0.3, "late": 0.55, "frame_map": 0.2, "video": {"0.5": 0.1}} | numbers


def test_claims_measure_what_they_say():
    by_key = {claim.key: claim.measure for claim in CLAIMS}
    arms = {
        "roi": arm(), "short": arm(object=0.95, frame_map=0.5, video={"0.5": 0.4}),
        "long": arm(late=0.75, frame_map=0.3),
        "cascade": arm(object=0.94, late=0.74, frame_map=0.8, video={"0.5": 0.6}), "parallel": arm(frame_map=0.81),
        "uniform": arm(object=0.5), "acrn": arm(object=0.6), "no-geometry": arm(object=0.7), "actors-only": arm(),
        "identity": arm(late=0.5), "shuffled": arm(late=0.7), "centered": arm(late=0.9), "lfb-mean": arm(frame_map=0.6),
        "lfb-max": arm(frame_map=0.7),
        "lfb-non-local": arm(frame_map=0.75),
    }  # fmt: skip
    result = {"data": PLAIN, "arms": arms, "proposals": {"recall": 0.99}}
    wanted = {
        "short-term-context-needed": 0.65, "long-term-context-needed": 0.2, "cascade-of-both-best": 0.3,
        "cascade-of-both-best-tubes": 0.2, "tubelets-from-a-3d-rpn": 0.99, "own-features-are-blind": -1 / 30,
        "attention-finds-the-context": 0.35, "geometry-guides-attention": 0.25,
        "context-is-more-than-other-actors": 0.65,
        "dynamics-travel-along-the-graph": 0.04, "dynamics-travel-along-a-centered-graph": 0.2,
        "graph-against-feature-banks": 0.05, "cascade-against-parallel": -0.01,
    }  # fmt: skip
    for key, value in wanted.items():
        assert by_key[key](result) == pytest.approx(value), key
    assert by_key["cascade-against-parallel-events-in-context"](result) is None
    assert by_key["cascade-against-parallel-events-in-context"]({**result, "data": ON_OBJECT}) == pytest.approx(-0.01)
    assert by_key["short-term-context-needed"]({**result, "data": ON_OBJECT}) is None
    assert by_key["better-on-ava"]({**result, "data": "ava"}) == pytest.approx(0.3)
    assert {claim.key for claim in CLAIMS if claim.measure(result) is None} == {
        "cascade-against-parallel-events-in-context", "better-on-ucf24", "better-on-jhmdb", "better-on-ucf-sports",
        "better-on-ava",
    }  # fmt: skip
