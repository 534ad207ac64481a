"""The ledger judges as it says: by the near end of the interval, never by luck, never by a guess."""

import math

import numpy as np
import pytest
from scipy import stats

from labkit.workbench.claims import (
    Claim,
    Estimate,
    bootstrap,
    interval,
    judge,
    ledger_markdown,
    ledger_text,
    prediction_interval,
)


def claim(margin: float = 0.5, **changes) -> Claim:
    fields = {"key": "k", "sentence": "It helps.", "published": None, "scale": "lesson", "unit": "points"} | changes
    return Claim(measure=lambda result: result.get("effect"), margin=margin, **fields)


def verdict(*effects: float | None, margin: float = 0.5, **changes):
    return judge("toy", claim(margin, **changes), [{"effect": effect} for effect in effects], "a record")


def test_the_interval_is_students():
    values = [1.0, 2.5, 2.0, 4.0]
    mean, low, high = interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert mean == pytest.approx(2.375)
    assert interval([]) == (None, None, None)
    assert interval([3.0]) == (3.0, None, None)


def test_a_prediction_interval_holds_one_more_value_as_often_as_it_says():
    draws = stats.norm.rvs(size=(2000, 4), random_state=0)
    inside = 0
    for *seen, new in draws.tolist():
        low, high = prediction_interval(seen, 0.9)
        inside += low <= new <= high
    assert 0.88 < inside / len(draws) < 0.92
    assert prediction_interval([1.0]) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("effects", "holds", "word"),
    [
        ((1.0, 1.1, 0.9), True, "holds"),
        ((0.0, 0.1, -0.1), False, "does not hold"),
        ((0.0, 1.0, 2.0), False, "not shown"),  # the mean passes, its near end does not
        ((0.5,), True, "holds"),  # one seed: the value decides, and equal is enough
        ((0.49,), False, "does not hold"),
        ((None, None), None, "not measured"),
        ((), None, "not measured"),
        ((float("nan"), math.inf), None, "not measured"),
    ],
)
def test_the_near_end_of_the_interval_decides(effects, holds, word):
    found = verdict(*effects)
    assert found.holds is holds
    assert found.word == word
    assert (found.source is None) == (found.measured is None)


def test_the_effect_shows_mean_interval_seeds_and_the_digits_its_margin_needs():
    assert verdict(1.0, 1.2, 1.1).effect == "+1.10 [+0.85, +1.35] points, 3 seeds"
    assert verdict(-1.0).effect == "-1.00 points, 1 seed"
    assert verdict(0.0042, margin=0.003).effect == "+0.0042 points, 1 seed"
    assert verdict(12.0, margin=0.0, unit="").effect == "+12.00, 1 seed"
    assert verdict().effect == "not measured"


def test_results_that_did_not_measure_a_claim_are_left_out():
    found = verdict(1.0, None, 1.0)
    assert (found.seeds, found.measured) == (2, 1.0)


def test_a_verdict_as_json_is_plain(toy):
    import json

    assert json.loads(json.dumps(verdict(1.0).as_json(), allow_nan=False))["measured"] == 1.0


def test_the_ledger_names_the_claim_first_and_a_table_survives_any_sentence():
    found = verdict(1.0, sentence="a | b\nc", published="3 %")
    assert ledger_text([found, verdict()]) == "claim k: holds\nclaim k: not measured"
    head, rule, row = ledger_markdown([found]).splitlines()
    assert row == "| ✓ | a \\| b c | 3 % | +1.00 points, 1 seed | 0.5 points | holds |"
    assert head.count("|") == rule.count("|") == row.replace("\\|", "").count("|")


def test_a_claim_may_bring_an_interval_over_replicates_inside_of_runs():
    """Two runs of many seeds: Student's interval over two numbers would be useless."""

    def pooled(results):
        seen = [result["effect"] for result in results if "effect" in result]
        return Estimate(sum(seen) / len(seen), 0.6, 1.4, 20) if seen else None

    runs = [{"effect": 0.2}, {"effect": 1.8}]
    found = judge("toy", claim(0.5, pooled=pooled), runs, "a record")
    assert (found.low, found.high, found.seeds, found.holds) == (0.6, 1.4, 20, True)
    assert found.effect == "+1.00 [+0.60, +1.40] points, 20 seeds"
    assert judge("toy", claim(0.5), runs, "a record").holds is False
    assert judge("toy", claim(0.5, pooled=pooled), [{}], "a record").word == "not measured"
    broken = claim(0.5, pooled=lambda results: Estimate(math.nan, 0.6, 1.4, 20))
    assert judge("toy", broken, [{"effect": 0.1}], "a record").low is None


def test_bootstrap_draws_replicates_inside_of_strata_and_pairs_their_columns():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(1, 40))
    strata = [np.concatenate([shared + 1, shared]), np.concatenate([shared - 9, shared - 10])]
    found = bootstrap(strata, lambda parts: np.mean([part[0].mean(-1) - part[1].mean(-1) for part in parts], axis=0))
    assert found == pytest.approx((1, 1, 1, 40))  # pairs: what is shared cancels in every draw
    alone = bootstrap([strata[0][:1]], lambda parts: parts[0][0].mean(-1))
    reach = stats.t.ppf(0.975, 39) * shared.std(ddof=1) / math.sqrt(40)
    assert alone.high - alone.low == pytest.approx(2 * reach, rel=0.1)
    with_strata = bootstrap([shared + 5, shared - 5], lambda parts: np.concatenate(parts, -1)[0].mean(-1))
    assert with_strata.high - with_strata.low < 2 * reach  # the ten units between the strata are no noise
