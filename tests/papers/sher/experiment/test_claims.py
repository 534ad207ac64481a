"""Claims: directions, what they pool, and that nothing is invented."""

import numpy as np
import pytest

from labkit.papers import load
from labkit.papers.sher.experiment import claims
from labkit.papers.sher.experiment.config import BOX, CHOICES, CONFIGS, EXPERIMENTS
from labkit.papers.sher.method.hindsight import STRATEGIES


def walls(**success):
    """{arm: per-wall seeds} as a result."""
    arms = {
        arm.replace("_", "-"): {"success": {"gap": list(s), "twoway": list(s)}, "curve": {"gap": [[0.0, x] for x in s]}}
        for arm, s in success.items()
    }
    return {"walls": {"arms": arms}}


def claim(key):
    return next(c for c in claims.CLAIMS if c.key == key)


def test_better_seeds_speak_for_sher():
    result = walls(SHER=[0.8, 0.9, 0.8, 0.9], HER_none=[0.1, 0.9, 0.2, 0.8], HER_noise=[0.85, 0.85, 0.85, 0.85])
    assert claim("entropy-replaces-noise").measure(result) == pytest.approx(0.85 - 0.5)
    assert claim("better-than-tuned-her").measure(result) == pytest.approx(0.0)
    assert claim("deterministic-methods-are-brittle").measure(result) == pytest.approx(0.5)
    spread = np.std([0.1, 0.9, 0.2, 0.8], ddof=1) - np.std([0.8, 0.9, 0.8, 0.9], ddof=1)
    assert claim("stable-against-no-noise").measure(result) == pytest.approx(spread)
    assert claim("stable-against-tuned-noise").measure(result) < 0


def test_intervals_are_those_of_all_seeds_of_all_runs():
    first = walls(SHER=[0.8, 0.9, 0.8, 0.9], HER_none=[0.1, 0.9, 0.2, 0.8])
    second = walls(SHER=[0.7, 1.0, 0.8, 0.9], HER_none=[0.3, 0.4, 0.2, 0.9])
    both = walls(
        **{arm: first["walls"]["arms"][arm]["success"]["gap"] + second["walls"]["arms"][arm]["success"]["gap"]
           for arm in ("SHER", "HER-none")}
    )  # fmt: skip
    for key in ("deterministic-methods-are-brittle", "entropy-replaces-noise", "stable-against-no-noise"):
        estimate = claim(key).pooled([first, second])
        assert estimate.value == pytest.approx(claim(key).measure(both))
        assert estimate.low < estimate.value < estimate.high
        assert estimate.replicates == 8
        assert claim(key).pooled([{}, walls(SHER=[1.0, 0.5])]) is None


def test_what_was_not_run_is_not_measured():
    for one in claims.CLAIMS:
        assert one.measure({}) is None
        assert one.measure(walls(SHER=[1.0])) is None


def test_the_box_needs_all_its_corners():
    corners = {corner: walls(SHER=[k / 8, k / 8], HER_noise=[0.5, 0.5])["walls"] for k, corner in enumerate(BOX)}
    assert claim("robust-to-hyper-parameters").measure(corners) == pytest.approx(-np.std(np.arange(8) / 8, ddof=1))
    corners.pop(next(iter(BOX)))
    assert claim("robust-to-hyper-parameters").measure(corners) is None


def test_hands_are_judged_against_the_best_rival():
    def task(**rates):
        return {"arms": {arm: {"success": {"": [rate]}} for arm, rate in rates.items()}}

    result = {"hand-egg": task(SHER=0.5, HER=0.3, CHER=0.4), "fetch-push": task(SHER=0.1, HER=0.9, CHER=0.0)}
    assert claim("hand-manipulation").measure(result) == pytest.approx(0.1)
    assert claim("six-robot-tasks").measure(result) == pytest.approx((0.1 - 0.8) / 2)


def test_no_published_figure_is_invented():
    assert all(one.published is None for one in claims.CLAIMS)
    assert len({one.key for one in claims.CLAIMS}) == len(claims.CLAIMS)


def test_every_claim_of_the_lesson_is_measured_by_an_experiment_that_exists():
    arms = {name: set(experiment.arms) for name, experiment in EXPERIMENTS.items()}
    assert {"HER-none", "HER-eps", "HER-noise", "SHER"} == arms["walls"]
    assert {"SHER-.03", "SHER-0"} <= arms["alpha"]
    assert {"SHER", "CHER"} <= arms["switches"]
    assert {"SHER", "HER"} <= set(CONFIGS["gpu"].arms)
    assert {"SHER", "HER", "CHER"} <= arms["hand-block"]


def test_a_config_offers_the_strategies_that_relabelling_has():
    assert CHOICES["strategy"] == STRATEGIES


def test_the_room_shows_itself():
    paper = load("sher")
    assert paper.notebook == "03_sher"
    assert [v.holds for v in paper.verdicts({}, "lesson")] == [None] * len(claims.CLAIMS)
