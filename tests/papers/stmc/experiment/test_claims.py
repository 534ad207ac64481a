"""What the claims measure, on results whose answer is known."""

import pytest

from labkit.papers.stmc import PAPER

CLAIMS = {claim.key: claim for claim in PAPER.claims}


def table(hand, face):
    return {"hand": {"alone": 0, "any": hand}, "face": {"alone": 0, "any": face}, "motion": {"alone": 0, "any": 0}}


RESULT = {
    "data": "avatars",
    "arms": {
        "multi-cue": {"wer": 0.1, "confusions": table(0.0, 0.1), "pixels": 0.8},
        "full-frame": {"wer": 0.7, "confusions": table(0.3, 0.4)},
        "hand-only": {"wer": 0.6}, "face-only": {"wer": 0.9}, "pose-only": {"wer": 0.5},
        "intra-only": {"wer": 0.2}, "inter-only": {"wer": 0.05},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("full-frames-ignore-cues", 0.35 - 0.05),
        ("multi-cue-reads-better", 0.6),
        ("pose-branch-is-enough", 1.2),
        ("cues-collaborate", 0.4),
        ("inter-path-joins-them", 0.1),
        ("intra-path-keeps-cues-apart", -0.05),
    ],
)
def test_what_they_measure(key, value):
    assert CLAIMS[key].measure(RESULT) == pytest.approx(value)


def test_a_corpus_is_judged_by_its_own_claim_alone():
    result = {"data": "phoenix2014t", "arms": {"multi-cue": {"wer": 0.21}}}
    assert CLAIMS["phoenix-2014-t"].measure(result) == pytest.approx(0.03)
    assert CLAIMS["phoenix-2014"].measure(result) is None
    assert CLAIMS["csl"].measure(result) is None
    other = {"data": "phoenix2014", "arms": {"multi-cue": {"wer": 0.207}}}
    assert CLAIMS["phoenix-2014"].measure(other) == pytest.approx(0.037)
    assert CLAIMS["phoenix-2014-t"].measure(other) is None
