"""The calibration study: measures on made-up pairs with known answers, the fake ensemble, the trained ones."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.pombu.experiment import calibration
from labkit.papers.pombu.experiment.config import Config

QUICK = Config(
    studies=("calibration",),
    calibration_copies=2,
    calibration_queries=12,
    calibration_rollouts=4,
    zone_clone_steps=200,
    zone_model_steps=60,
)


def test_measures_of_a_calibrated_and_of_a_useless_uncertainty():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.rand(2, 4000, generator=generator) + 0.2
    error = predicted * torch.randn(2, 4000, generator=generator)
    actual = calibration.measures(predicted, error)
    for share, wanted in zip(actual["coverage"], calibration.NORMAL_COVERAGE, strict=True):
        assert share == pytest.approx(wanted, abs=0.01)
    assert actual["deviation"] == pytest.approx(1, abs=0.03)
    assert min(actual["spearman"]) > 0.2
    shuffled = predicted[:, torch.randperm(4000, generator=generator)]
    assert max(abs(rank) for rank in calibration.measures(shuffled, error)["spearman"]) < 0.05
    halved = calibration.measures(predicted / 2, error)
    assert halved["deviation"] == pytest.approx(2, abs=0.06)
    assert halved["spearman"] == actual["spearman"]


@pytest.mark.slow
def test_independent_errors_are_calibrated():
    """The official code's own check, with the paper's assumption true by construction.

    Over 20 seeds: .57 +- .04 within one sigma, .88 +- .03 within two, deviation 1.33 +- .08.
    """
    actual = calibration.calibrate("fake-0.01", QUICK.override(calibration_copies=4, calibration_queries=40))
    assert actual.persistent is None
    row = calibration.summarize(actual)["sqrt_u"]
    assert 0.4 < row["coverage"][0] < 0.75
    assert row["coverage"][1] > 0.75
    assert 0.9 < row["deviation"] < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["point-4", "zone-8"])
def test_trained_ensembles_are_asked_at_the_same_places(name):
    actual = calibration.calibrate(name, QUICK)
    assert actual.predicted.shape == actual.persistent.shape == (2, 12)
    assert bool((actual.predicted > 0).all())
    assert not torch.equal(actual.error, actual.persistent_error)
    ranks = torch.corrcoef(torch.stack([actual.error.flatten(), actual.persistent_error.flatten()]))[0, 1]
    assert float(ranks) > 0.5  # two ways to ask the same models about the same queries: .92 +- .05 over 20 seeds


def test_unknown_rows_are_refused():
    with pytest.raises(InputError, match="there is no calibration 'moon-8'"):
        calibration.calibrate("moon-8", QUICK)
