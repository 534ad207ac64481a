"""Claims read a result as they say; wrong answers to checks are rejected."""

import pytest

from labkit.metrics.tracking import box_overlaps
from labkit.papers.crt import PAPER
from labkit.papers.crt.experiment.claims import CLAIMS
from labkit.papers.crt.teaching import checks, exercises

REFUSED = {
    "always present": "says both: GM 0: TPR 0.9",
    "always absent": "says both: GM 0: TPR 0.00, TNR 1.00",
    "the tracker's own threshold": "says both: GM 0",
    "too strict": "reaches GM 0.8: GM 0.",
    "upside down": "reaches GM 0.8: GM 0.",
    "knows the whole clip": "looks back only: frame",
    "one answer for all": "one answer a frame: one answer per frame: (48,) scores give () answers",
    "numbers": "one answer a frame: the answers are True (present) and False (absent); got float64",
}


@pytest.mark.slow
def test_presence_names_the_property_that_fails():
    exercise = PAPER.exercise("presence")
    assert set(exercise.wrong) == set(REFUSED)
    for name, words in REFUSED.items():
        assert exercise.check(exercise.wrong[name]).message.startswith(f"presence: {words}"), name
    assert exercise.check(lambda scores: list(scores >= 0.65)).passed  # a list will do


@pytest.mark.slow
def test_presence_is_counted_as_oxuva_does():
    """A tracker that is always present: TPR is its share of good boxes, TNR 0; hand-counted on every clip."""
    actual = exercises.presence_counts(lambda scores: scores >= -1.0, exercises.HELD_OUT)
    pairs = exercises.goes_away(exercises.HELD_OUT)
    good = sum(int((box_overlaps(t.boxes, c.boxes)[1:] >= 0.5).sum()) for c, t in pairs)
    assert (actual.hits, actual.true_absent) == (good, 0)
    assert actual.false_present == sum(int(c.absent.sum()) for c, _ in pairs) == 3 * 16
    assert actual.max_gm == pytest.approx(0.5 * actual.tpr**0.5)


WRONG = (
    (checks.check_ridge, lambda x, y, lam: exercises.dual(x, y, lam) * 0.99),
    (checks.check_phi, lambda u: ((u + 1) / 2).clamp(0, 1)),
    (checks.check_pixel, lambda index, kernel, stride: (index + 0.5 * (1 - kernel % 2)) * stride),
    (checks.check_max_gm, lambda tpr, tnr: max(tpr, tnr)),
    (checks.check_logistic, lambda x, y, lam, steps: exercises.logistic(x, y, 2 * lam, steps)),
)


@pytest.mark.parametrize(("check", "wrong"), WRONG)
def test_wrong_answers_are_rejected(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong)


def arm(**numbers):
    return {
        "lost": 0.0,
        "auc": 0.8,
        "hard_share": 0.03,
        "hard_response": 0.4,
        "candidates": 5.0,
        "lost_to_rival": 0.0,
    } | numbers


def test_claims_measure_what_they_say():
    by_key = {claim.key: claim.measure for claim in CLAIMS}
    kinds = {
        "plain": {"arms": {"stage-1": arm(lost=0.3, lost_to_rival=0.2), "cascade": arm(lost=0.1),
                           "anchored": arm(auc=0.85), "sgd-fc": arm(auc=0.75)}},
        "walkers": {"arms": {"stage-1": arm(lost=0.5, lost_to_rival=0.4), "cascade": arm(lost=0.5, hard_share=0.05),
                             "anchored": arm(auc=0.8), "sgd-fc": arm(auc=0.8)}},
    }  # fmt: skip
    result = {"data": "generated clips", "clips": kinds}
    assert by_key["hard-distractors-are-few"](result) == pytest.approx(0.96)
    assert by_key["the-few-matter"](result) == pytest.approx(0.4)
    assert by_key["distractors-cause-drift"](result) == pytest.approx(0.6 / 0.8)
    assert by_key["stage-1-filters"](result) == pytest.approx(1 - 5 / 1600)
    assert by_key["stage-2-repairs-clips"](result) == pytest.approx(0.1)
    assert by_key["learned-features-repair-clips"](result) is None
    learned = {"plain": {"arms": {"stage-1": arm(lost=0.3), "cascade-learned": arm(lost=0.01)}}}
    assert by_key["learned-features-repair-clips"]({"clips": learned}) == pytest.approx(0.29)
    assert by_key["mining-helps"](result) == pytest.approx(0.025)
    assert by_key["mining-helps-learned-features"](result) is None
    learned = {"plain": {"arms": {"cascade-learned": arm(auc=0.83), "anchored-learned": arm(auc=0.82)}}}
    assert by_key["mining-helps-learned-features"]({"clips": learned}) == pytest.approx(-0.01)
    assert by_key["closed-form-replaces-layers"](result) == pytest.approx(0.025)
    footage = {"TLD_pedestrian2": {"arms": {"stage-1": {"lost": 0.15}, "cascade": {"lost": 0.0}}}}
    assert by_key["stage-2-repairs-footage"]({"footage": footage}) == pytest.approx(0.15)
    assert by_key["real-time"]({"speed": {"cascade": 50.0}}) == 50.0
    scores = {"stage-1-resnet18": {"auc": [0.6, 0.5, 0.7]}, "cascade-resnet18": {"auc": [0.63, 0.5, 0.7]},
              "cascade-resnet50": {"auc": [0.6, 0.5, 0.7]}}  # fmt: skip
    other = {"stage-1-resnet18": {"auc": [0.6, 0, 0]}, "cascade-resnet18": {"auc": [0.59, 0, 0]}}
    full = {
        "benchmarks": {
            "lasot": scores,
            "otb2015": other,
            "vot2018": {"stage-1-resnet18": {"eao": 1}, "cascade-resnet18": {"eao": 1}},
        }
    }
    assert by_key["cascade-beats-stage-1-everywhere"](full) == pytest.approx(-0.01)
    assert by_key["state-of-the-art"](full) == pytest.approx(0.6 - 0.569)


def test_intervals_are_those_of_all_clips_of_all_runs():
    def each(**values):
        return {"each": values}

    def run(shift):
        kinds = {
            "plain": {"arms": {"stage-1": each(lost=[0.3, 0.1, 0.2], lost_to_rival=[0.3, 0.0, 0.1]),
                               "cascade": each(lost=[0.1 + shift, 0.1, 0.0])}},
            "walkers": {"arms": {"stage-1": each(lost=[0.5, 0.5, 0.2], lost_to_rival=[0.4, 0.5, 0.2]),
                                 "cascade": each(lost=[0.2, 0.6, 0.2])}},
        }  # fmt: skip
        return {"clips": kinds}

    claims = {claim.key: claim for claim in CLAIMS}
    repair = claims["stage-2-repairs-clips"].pooled([run(0.0), run(0.1)])
    plain, walkers = (0.2 + 0.0 + 0.2 + 0.1 + 0.0 + 0.2) / 6, (0.3 - 0.1 + 0.0) / 3
    assert repair.value == pytest.approx((plain + walkers) / 2)
    assert repair.low < repair.value < repair.high
    assert repair.replicates == 6
    drift = claims["distractors-cause-drift"].pooled([run(0.0), run(0.1)])
    assert drift.value == pytest.approx((0.4 + 1.1) / (0.6 + 1.2))
    assert claims["mining-helps"].pooled([run(0.0)]) is None
    assert claims["mining-helps"].pooled([]) is None


def test_what_was_not_measured_is_none():
    for claim in CLAIMS:
        assert claim.measure({"data": "generated clips"}) is None, claim.key
        assert claim.published is None
        assert claim.measure({"clips": {"plain": {"arms": {}}}, "benchmarks": {"lasot": {}}}) is None, claim.key
    lossless = {"clips": {"plain": {"arms": {"stage-1": arm()}}}}
    drift = next(c for c in CLAIMS if c.key == "distractors-cause-drift")
    assert drift.measure(lossless) is None  # nothing lost: nothing to blame on anybody
