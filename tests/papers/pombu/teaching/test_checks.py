"""Exercises explain themselves; claims read a result as they say."""

import pytest

from labkit.papers.pombu import PAPER
from labkit.papers.pombu.experiment.claims import CLAIMS
from labkit.papers.pombu.method import lqr
from labkit.papers.pombu.teaching import checks, exercises, scenes


def test_the_amount_of_data_is_judged_by_the_records(tmp_path, monkeypatch):
    """Other records, another answer; without them, what to type."""
    exercise = PAPER.exercise("data")
    arms = {f"alpha-{a}": zone_arm([gain] * 2) for a, gain in ((0, -1.0), (0.5, 1.0), (1, 3.0), (2, 2.0), (4, 1.0))}
    better = arms | {"alpha-0": zone_arm([1.0, -1.0])}
    studies = {n: {"arms": better if n >= 4 else arms} for n in scenes.LEFT}
    with monkeypatch.context() as patch:
        patch.setattr(scenes, "by_left", lambda: studies)
        assert exercise.check((4, 1)).passed
        assert "with 2 episodes on the left alpha = 0 improves 0%: not yet half" in exercise.check((2, 1)).message
        assert "improves 50%: that is more than is needed" in exercise.check((8, 1)).message
        assert "alpha = 2 gains +2.00 on average; another gains more" in exercise.check((4, 2)).message
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    assert scenes.DATA_COMMAND in exercise.check(exercise.solution).message


def test_answers_of_the_wrong_kind_are_told_so():
    assert "not 5" in checks_message("bias", (5, 5, 5))
    assert "three numbers" in checks_message("bias", (0.5, 0.8))
    assert "name of an arm" in checks_message("caution", 2)
    assert "is no arm" in checks_message("caution", "alpha")
    assert "raised ValueError" in checks_message("bellman", _raises)


def _raises(*arguments):
    raise ValueError("no")


def checks_message(key, answer):
    return PAPER.exercise(key).check(answer).message


def test_the_bug_is_the_official_code_s():
    with pytest.raises(AssertionError, match="rewards 10 times as large must change nothing"):
        checks.check_scaling(exercises.broken_scaling)


def test_numbers_of_the_notebook():
    assert checks.lqr_error(lqr.example(), 8) < 1e-9
    assert checks.penalty_gradient_at_zero() == 0.0


# -- claims -----------------------------------------------------------------------------------------------------------


def zone_arm(real, claimed=(0.0,)):
    return {"real": list(real), "claimed": list(claimed)}


RESULT = {
    "data": "simulated",
    "tabular": {"tight_min": 1.0, "tight_mean": 2.0, "loose_mean": 90.0, "cyclic_min": 0.15},
    "calibration": {
        "fake-0.01": {"sqrt_u": {"spearman": [0.0, 0.2], "coverage": [0.6, 0.9, 0.99]}},
        "zone-8": {"sqrt_u": {"spearman": [0.6, 0.8], "coverage": [0.1, 0.2, 0.3]}},
        "point-16": {"sqrt_u": {"spearman": [0.4], "coverage": [0.1, 0.2, 0.3]}},
    },
    "zone": {
        "arms": {
            "alpha-0": zone_arm([-1.0, 1.0, -1.0, -3.0], [4.0]),
            "alpha-0.5": zone_arm([1.0, 1.0, -1.0, -1.0]),
            "alpha-2": zone_arm([1.0, 1.0, 1.0, 1.0], [2.0]),
            "shuffled-2": zone_arm([1.0, -1.0, 1.0, -1.0]),
            "constant-2": zone_arm([1.0, -1.0, 1.0, 1.0]),
        }
    },
    "zone-action-noise": {"arms": {"alpha-0": zone_arm([-1.0] * 4), "alpha-2": zone_arm([1.0, 1.0, 1.0, -1.0])}},
    "zone-observation-noise": {"arms": {"alpha-0": zone_arm([-1.0]), "alpha-2": zone_arm([1.0])}},
    "zone-left-16": {"arms": {"alpha-0": zone_arm([1.0, 1.0, 1.0, -1.0]), "alpha-2": zone_arm([1.0] * 4)}},
    "zone-reward-x0.1": {"arms": {"alpha-2": zone_arm([0.1])}},
    "zone-reward-x0.1-official": {"arms": {"alpha-2": zone_arm([0.03])}},
    "half-cheetah": {
        "pombu": {"stochastic_return": [[0.0, 10.0], [2.0, 12.0]]},
        "meppo": {"stochastic_return": [[0.0, 8.0], [4.0, 8.0]]},
    },
}
WANTED = {
    "upper-bound": 1.0,
    "tighter-than-before": 45.0,
    "bound-survives-recurrence": 0.15,
    "calibrated-where-independent": 0.9,
    "ranks-errors": 0.7,
    "ranks-errors-everywhere": 0.4,
    "calibrated-when-learned": 0.2,
    "improves-with-high-probability": 1.0,
    "more-often-than-plain": 0.75,
    "knowing-where": 0.25,
    "official-alpha": -0.5,
    "less-overfitting-to-models": (4 + 1) - (2 - 1),
    "robust-to-action-noise": 0.75,
    "robust-to-observation-noise": 1.0,
    "caution-keeps-more": (0.75 - 1.0) - (0.0 - 0.25),
    "data-replace-caution": -0.25,
    "scaling-matters": 0.7,
    "beats-its-own-ablation": 3.0,
    "sample-efficiency": None,
    "asymptote": None,
}


def test_claims_read_a_result_as_they_say():
    assert {c.key for c in CLAIMS} == set(WANTED)
    for claim in CLAIMS:
        wanted = WANTED[claim.key]
        measured = claim.measure(RESULT)
        assert measured == (wanted if wanted is None else pytest.approx(wanted)), claim.key
        assert claim.measure({"data": "simulated"}) is None, claim.key
        assert claim.published is None


def test_intervals_are_those_of_all_seeds_of_all_runs():
    """Two equal runs: the value stays, twice the seeds, an interval around it; a share of 1 is not certain."""
    arms = RESULT["zone"]["arms"]
    arms = arms | {name: zone_arm(arms[name]["real"], arms[name]["claimed"] * 4) for name in ("alpha-0", "alpha-2")}
    result = RESULT | {"zone": {"arms": arms}}
    for name in ("zone-reward-x0.1", "zone-reward-x0.1-official", "zone-observation-noise"):
        actual = result[name]["arms"]
        result[name] = {"arms": {arm: zone_arm(value["real"] * 4) for arm, value in actual.items()}}
    pooled = {claim.key: claim for claim in CLAIMS if claim.pooled}
    assert len(pooled) == 10
    for key, claim in pooled.items():
        estimate = claim.pooled([result, result])
        assert estimate.value == pytest.approx(WANTED[key]), key
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.replicates == 8
        assert claim.pooled([{}]) is None
    assert pooled["improves-with-high-probability"].pooled([result]).low < 0.6
    spread = pooled["more-often-than-plain"].pooled([result, result])
    assert spread.low < WANTED["more-often-than-plain"] < spread.high
    uneven = {"zone": {"arms": {"alpha-2": zone_arm([1.0]), "alpha-0": zone_arm([1.0, 2.0])}}}
    assert pooled["more-often-than-plain"].pooled([uneven]) is None


def test_full_claims_compare_with_the_best_rival():
    rivals = ("meppo", "me-trpo", "mbpo", "ppo", "sac")
    result = {"half-cheetah": {"pombu": {"stochastic_return": [[0.0, 10.0]]}}}
    for number, rival in enumerate(rivals):
        result["half-cheetah"][rival] = {"stochastic_return": [[1.0, float(number)]]}
    measured = {c.key: c.measure(result) for c in CLAIMS}
    assert measured["asymptote"] == pytest.approx(10 - 4)
    assert measured["sample-efficiency"] == pytest.approx(5 - 2.5)
