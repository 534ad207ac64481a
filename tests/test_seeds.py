"""Seeds: stable over releases, and without the collisions that sums have."""

import itertools

import pytest

from labkit.seeds import derive


def test_the_seed_of_a_key_never_changes():
    """Committed records depend on it."""
    assert derive(0) == 1445747665984815037
    assert derive(1, 2, 3) == 1939795698739271479


def test_keys_do_not_meet():
    """1000 * 0 + 1000 is 1000 * 1 + 0; order, number and size of the keys tell them apart here."""
    keys = [(0,), (0, 0, 0), *itertools.product(range(3), (0, 1, 999, 1000, 1001, 2**32 - 1))]
    seeds = {derive(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_negative_key_is_refused():
    with pytest.raises(ValueError, match="negative"):
        derive(-1)
