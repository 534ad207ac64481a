import math

import pytest

from labkit.errors import InputError
from labkit.papers.qnet.method.temperature import constant, linear, staircase


def test_ends_and_middles():
    assert linear(300.0)(1.0) == 300
    assert linear(300.0)(0.25) == 75
    assert constant(7.0)(0.1) == constant(7.0)(1.0) == 7
    assert math.isinf(constant(math.inf)(0.5))


def test_staircase_is_the_official_schedule():
    """T = T0 * (epoch + 1), the same for every step of an epoch; T0 = 20, 35 epochs."""
    epochs, steps = 35, 100
    schedule = staircase(20.0 * epochs, epochs)
    for epoch in range(epochs):
        for step in (0, 1, steps - 1):
            assert schedule((epoch * steps + step + 1) / (epochs * steps)) == pytest.approx(20 * (epoch + 1))


def test_every_schedule_rises():
    fractions = [k / 200 for k in range(1, 201)]
    for schedule in (linear(50.0), staircase(50.0, 7), staircase(5000.0, 7)):
        values = [schedule(f) for f in fractions]
        assert values == sorted(values)
        assert values[0] > 0


def test_cap():
    assert [staircase(5000.0, 10)(fraction) for fraction in (0.1, 0.4, 0.5, 1.0)] == [500, 2000, 2000, 2000]
    assert staircase(5000.0, 10, highest=100.0)(1.0) == 100


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_a_fraction_outside_of_training(fraction):
    for schedule in (linear(1.0), constant(1.0), staircase(1.0, 2)):
        with pytest.raises(InputError, match=r"above 0 and up to 1; got .* schedule\(\(step \+ 1\) / steps\)"):
            schedule(fraction)


@pytest.mark.parametrize(
    "make",
    [lambda: linear(0.0), lambda: constant(-1.0), lambda: staircase(5.0, 0), lambda: staircase(1.0, 2, 0.0)],
)
def test_impossible_temperatures(make):
    with pytest.raises(InputError, match="must be positive; got"):
        make()
