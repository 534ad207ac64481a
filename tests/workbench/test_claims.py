"""The ledger judges as it says: by the near end of the interval, never by luck, never by a guess."""

import math

import pytest

from labkit.metrics.intervals import Interval
from labkit.workbench.claims import (
    Claim,
    difference,
    judge,
    largest,
    least,
    least_effect,
    ledger_markdown,
    number,
)


def claim(margin: float = 0.5, **changes) -> Claim:
    fields = {"key": "k", "sentence": "It helps.", "published": None, "scale": "lesson", "unit": "points"} | changes
    return Claim(measure=lambda result: result.get("effect"), margin=margin, **fields)


def verdict(*effects: float | None, margin: float = 0.5, **changes):
    return judge("toy", claim(margin, **changes), [{"effect": effect} for effect in effects], "a record")


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
    actual = verdict(*effects)
    assert actual.holds is holds
    assert actual.word == word
    assert (actual.source is None) == (actual.measured is None)


def test_the_effect_shows_mean_interval_seeds_and_the_digits_its_margin_needs():
    assert verdict(1.0, 1.2, 1.1).effect == "+1.10 [+0.85, +1.35] points, 3 seeds"
    assert verdict(-1.0).effect == "-1.00 points, 1 seed"
    assert verdict(0.0042, margin=0.003).effect == "+0.0042 points, 1 seed"
    assert verdict(12.0, margin=0.0, unit="").effect == "+12.00, 1 seed"
    assert verdict().effect == "not measured"


@pytest.mark.parametrize(
    ("effect", "margin", "words"),
    [
        (0.2727652892, 1e-9, "+0.2728"),
        (-4e-7, -1e-6, "-4·10⁻⁷"),
        (-3e-16, -1e-6, "0.0000"),  # rounding
        (-0.0, 1e-6, "0.0000"),
        (0.0, 0.5, "0.00"),
        (-0.004, 0.5, "0.00"),  # less than the margin can tell from nothing
        (3e-9, 1e-9, "+3·10⁻⁹"),
        (12.345, 0.0, "+12.35"),
    ],
)
def test_an_effect_has_no_more_digits_than_can_be_read_and_a_zero_no_sign(effect, margin, words):
    assert verdict(effect, margin=margin, unit="").effect == f"{words}, 1 seed"


@pytest.mark.parametrize(
    ("margin", "words"), [(-1e-6, "-1·10⁻⁶ dB"), (2.5e-5, "2.5·10⁻⁵ dB"), (0.003, "0.003 dB"), (0.0, "0 dB")]
)
def test_a_margin_is_written_as_people_do(margin, words):
    assert least_effect(margin, "dB") == words


def test_results_that_did_not_measure_a_claim_are_left_out():
    actual = verdict(1.0, None, 1.0)
    assert (actual.seeds, actual.measured) == (2, 1.0)


def test_a_verdict_as_json_is_plain(toy):
    import json

    assert json.loads(json.dumps(verdict(1.0).as_json(), allow_nan=False))["measured"] == 1.0


def test_the_table_survives_any_sentence():
    actual = verdict(1.0, sentence="a | b\nc", published="3 %")
    head, rule, row = ledger_markdown([actual]).splitlines()
    assert row == "| ✓ | a \\| b c | 3 % | +1.00 points, 1 seed | 0.5 points | holds |"
    assert head.count("|") == rule.count("|") == row.replace("\\|", "").count("|")


def test_a_claim_may_bring_an_interval_over_replicates_inside_of_runs():
    """Two runs of many seeds: Student's interval over two numbers would be useless."""

    def pooled(results):
        effects = [result["effect"] for result in results if "effect" in result]
        return Interval(sum(effects) / len(effects), 0.6, 1.4, 20) if effects else None

    runs = [{"effect": 0.2}, {"effect": 1.8}]
    actual = judge("toy", claim(0.5, pooled=pooled), runs, "a record")
    assert (actual.low, actual.high, actual.seeds, actual.holds) == (0.6, 1.4, 20, True)
    assert actual.effect == "+1.00 [+0.60, +1.40] points, 20 seeds"
    assert judge("toy", claim(0.5), runs, "a record").holds is False
    assert judge("toy", claim(0.5, pooled=pooled), [{}], "a record").word == "not measured"
    broken = claim(0.5, pooled=lambda results: Interval(math.nan, 0.6, 1.4, 20))
    assert judge("toy", broken, [{"effect": 0.1}], "a record").low is None


def test_measures_read_a_path_and_what_is_missing_is_not_measured():
    result = {"a": {"b": 3, "c": {"d": 1.5}}, "e": 7}
    first, second, missing = number("a", "b"), number("a", "c", "d"), number("a", "x")
    assert (first(result), second(result), missing(result), number("e", "f")(result)) == (3.0, 1.5, None, None)
    assert difference(first, second)(result) == 1.5
    assert difference(first, missing)(result) is None
    assert (least(first, second)(result), largest(first, second)(result)) == (1.5, 3.0)
    assert least(first, missing)(result) is largest(missing, first)(result) is None
