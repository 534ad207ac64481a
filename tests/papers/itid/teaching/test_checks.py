"""The checks pass on our implementation and reject wrong ones; the claims read a result as they say."""

import pytest
import torch

from labkit.papers.itid import PAPER
from labkit.papers.itid.experiment.claims import CLAIMS, advantage
from labkit.papers.itid.teaching import checks, exercises

RIGHT = (
    (checks.check_iota, lambda *a: exercises.iota_and_bound(*a)[0]),
    (checks.check_osc_times_tv, lambda *a: exercises.iota_and_bound(*a)[1]),
    (checks.check_extreme_laws, exercises.extreme),
    (checks.check_swap, exercises.swap),
    (checks.check_variance_penalty, exercises.variance_of_risks),
    (lambda pair: checks.check_phase_transition(*pair), (0.7, 0.2)),
)


@pytest.mark.parametrize(("check", "right"), RIGHT)
def test_right_answers_pass(check, right):
    check(right)


WRONG = (
    (checks.check_iota, lambda *a: exercises.absolute_outside(*a)[0]),
    (checks.check_iota, lambda p, f, q, q2: exercises.iota_and_bound(p, f, q, q2)[0] / 2),
    (checks.check_iota, lambda p, f, q, q2: ((q - q2) * f).sum(-1).abs().mean()),
    (checks.check_osc_times_tv, lambda *a: exercises.whole_sum(*a)[1]),
    (checks.check_osc_times_tv, lambda p, f, q, q2: (p * f.std(-1) * (q - q2).abs().sum(-1)).sum()),
    (checks.check_extreme_laws, exercises.one_nuisance_for_all),
    (checks.check_extreme_laws, lambda f: (f / f.sum(-1, keepdim=True),) * 2),
    (checks.check_variance_penalty, lambda r: r.var()),
    (checks.check_variance_penalty, lambda r: (r - r.mean().detach()).abs().mean()),
    (lambda pair: checks.check_phase_transition(*pair), (0.7, 0.75)),
)


@pytest.mark.parametrize(("check", "wrong"), WRONG)
def test_wrong_answers_are_rejected(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong)


def test_the_order_of_the_measures_for_three_labels():
    assert checks.order_of_couplings() < 1e-14


def test_claims_measure_what_they_say():
    arms = {
        "ERM": {"target": 0.2, "slack": 0.1, "delta": 0.7},
        "IE-swap": {"target": 0.9, "slack": -0.5, "delta": 0.01},
    }
    by_key = {claim.key: claim for claim in CLAIMS}
    result = {"data": "digits", "backgrounds": {"data": "digits", "arms": arms}}
    assert by_key["modified-data-generalise"].measure(result) == pytest.approx(0.7)
    assert by_key["modified-data-make-invariant"].measure(result) == pytest.approx(70)
    assert by_key["invariance-bounds-the-gap"].measure(result) == -0.5
    assert advantage("backgrounds", "IE-swap", "ERM", "IRM")(result) is None
    for claim in CLAIMS:
        assert claim.measure({"data": "digits"}) is None, claim.key
        assert claim.published is None
    coverage = {"50": {"iid_violations": 1.0, "itid_violations": 0.02, "rerendered_violations": 0.03}}
    assert by_key["itid-bound-holds"].measure({"coverage": coverage}) == pytest.approx(0.07)
    swept = {"-90%": {k: {"training-domain": {"accuracy": a}} for k, a in (("ERM", 0.1), ("IE-swap", 0.7))}}
    assert by_key["domainbed"].measure({"sweep": {"colored-mnist": swept}}) == pytest.approx(0.6)
    fashion = {"data": "fashion-mnist", "arms": {"ERM": {"target": 0.2}}}
    assert by_key["peer-reproduced"].measure({"colored-mnist": fashion}) is None
    assert by_key["peer-reproduced"].measure({"colored-mnist": fashion | {"data": "mnist"}}) == pytest.approx(-0.029)


@pytest.mark.slow
def test_an_edit_may_not_change_labels():
    outcome = PAPER.exercise("edit").check(lambda images, generator: torch.zeros_like(images))
    assert "labels" in outcome.message
