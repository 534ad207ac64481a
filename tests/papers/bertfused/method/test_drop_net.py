"""Drop-net: its mean, its frequencies, its generator."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.bertfused.method.drop_net import HALVES, DropNet


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_mean_of_its_cases_is_the_average_of_the_branches(rate):
    """(1, 0) and (0, 1) with probability p/2 each, (1/2, 1/2) with 1 - p: E[mix] = 1/2 a + 1/2 b for every p."""
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, generator=draw, dtype=torch.float64)
    cases = {(1.0, 0.0): rate / 2, (0.0, 1.0): rate / 2, HALVES: 1 - rate}
    mean = sum(probability * (r0 * a + r1 * b) for (r0, r1), probability in cases.items())
    torch.testing.assert_close(mean, a / 2 + b / 2, rtol=0, atol=1e-15)
    assert {mix for mix in DropNet(rate).draw(500)} == {mix for mix, p in cases.items() if p}


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_frequencies(rate):
    """6000 draws in three cases: chi-square with 2 degrees of freedom, below 18.4 with probability 1 - 1e-4."""
    drawn = DropNet(rate, seed=1).draw(6000)
    counts = [sum(mix == case for mix in drawn) for case in ((1.0, 0.0), (0.0, 1.0), HALVES)]
    assert sum(counts) == 6000
    expected = [3000 * rate, 3000 * rate, 6000 * (1 - rate)]
    assert sum((n - e) ** 2 / e for n, e in zip(counts, expected, strict=True) if e) < 18.4
    assert (counts[2] == 0) == (rate == 1)


def test_a_rate_of_zero_draws_nothing():
    drop_net = DropNet(0.0, mixture=(0.25, 0.5))
    before = drop_net.generator.get_state()
    assert drop_net.draw(3) == [(0.25, 0.5)] * 3
    assert torch.equal(drop_net.generator.get_state(), before)


def test_its_draws_are_its_own_and_survive_a_checkpoint():
    torch.manual_seed(0)
    outside = torch.get_rng_state()
    drop_net, same = DropNet(0.5, seed=7), DropNet(0.5, seed=7)
    assert drop_net.draw(40) == same.draw(40)
    assert torch.equal(torch.get_rng_state(), outside)
    saved = drop_net.state_dict()
    ahead = drop_net.draw(40)
    fresh = DropNet(0.5, seed=8)
    assert fresh.draw(40) != ahead
    fresh.load_state_dict(saved)
    assert fresh.draw(40) == ahead


def test_branches_that_are_weighed_by_zero_are_the_same_draws():
    """What DistributedDataParallel and torch.compile take: tensors in place of a choice."""
    chosen, weighed = DropNet(0.5, seed=3).draw(20), DropNet(0.5, seed=3, skip=False).draw(20)
    assert [(float(r0), float(r1)) for r0, r1 in weighed] == chosen
    assert all(r0.shape == (1, 1, 1) for r0, _ in weighed)


def test_the_official_sum_shows_up_where_both_branches_are_heard():
    assert set(DropNet(0.5, mixture=(1.0, 1.0)).draw(200)) == {(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"rate": 1.5}, "drop-net rate"), ({"rate": float("nan")}, "drop-net"), ({"seed": -1}, "seed")],
)
def test_bad_input_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        DropNet(**options)
