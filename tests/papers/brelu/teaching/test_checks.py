"""What the exercises' answers rest on."""

import pytest

from labkit.papers.brelu.teaching.exercises import LAPLACE, LARGEST_SHIFT


def test_the_predicted_numbers():
    assert LARGEST_SHIFT == 27
    assert pytest.approx(9.9, abs=0.2) == LAPLACE
