"""Random streams: a copy's numbers do not depend on its neighbours."""

import pytest
import torch

from labkit.errors import InputError
from labkit.rl.streams import Streams


def test_a_copy_draws_what_it_draws_alone():
    together, alone = Streams([3, 4, 5]), Streams([4])
    for _ in range(3):
        assert torch.equal(together.uniform(2, 5)[1], alone.uniform(2, 5)[0])
        assert torch.equal(together.normal(7)[1], alone.normal(7)[0])
    assert len(together) == 3


def test_state_comes_back():
    streams = Streams([1, 2])
    streams.uniform(3)
    kept = streams.state_dict()
    wanted = streams.normal(4)
    streams.load_state_dict(kept)
    assert torch.equal(streams.normal(4), wanted)
    with pytest.raises(ValueError, match="2 generators were saved"):
        Streams([1]).load_state_dict(kept)


def test_no_seed_is_refused():
    with pytest.raises(InputError, match="at least one seed"):
        Streams([])


def test_integers_are_each_copys_own():
    pair, alone = Streams([3, 4]), Streams([4])
    first, second = pair.integers(), pair.integers()
    assert [first[1], second[1]] == [alone.integers()[0], alone.integers()[0]]
    assert len({*first, *second}) == 4
